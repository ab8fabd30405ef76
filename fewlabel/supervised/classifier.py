"""A classifier: an encoder with a linear head. Its directory, and how a stranger's is read."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from fewlabel import __version__
from fewlabel.backbones import encoder_config
from fewlabel.backbones.encoder import load_encoder, save_encoder
from fewlabel.backbones.featurizer import Featurizer
from fewlabel.backbones.pixels import Images
from fewlabel.backbones.weights import hash_of_files, load_weights, save_weights
from fewlabel.errors import UserError
from fewlabel.files import atomic_directory, read_json
from fewlabel.supervised.classifier_card import classifier_card

__all__ = ["Classifier", "load_classifier", "save_classifier"]

CONFIG: Final = "config.json"
HEAD: Final = "head.safetensors"
ENCODER: Final = "encoder"

FORMAT: Final = 1
"""Version of the directory's layout; raised when an older reader would go wrong."""

_ENCODER_FILES: Final = (encoder_config.CONFIG, encoder_config.WEIGHTS)


class Classifier(nn.Module):
    """Images -> a probability for each class, or for each label where an image may have several.

    Args:
        featurizer: backbone and preprocessing; shared, not copied.
        head: features `(B, D)` to logits `(B, K)`.
        class_names: K names.
        multi_label: whether they name labels, of which an image may have several, and not classes.
        bits: depth of the training images.

    Raises:
        ValueError: the widths or the number of names don't fit together.
    """

    def __init__(
        self, featurizer: Featurizer, head: nn.Linear, class_names: Sequence[str], *, multi_label: bool, bits: int
    ) -> None:
        super().__init__()
        if (head.in_features, head.out_features) != (featurizer.num_features, len(class_names)):
            raise ValueError(
                f"the head is {tuple(head.weight.shape)}, expected {(len(class_names), featurizer.num_features)}"
            )
        self.featurizer = featurizer
        self.head = head
        self.class_names = list(class_names)
        self.multi_label = multi_label
        self.bits = bits
        self.hash: str | None = None
        """SHA-256 over the directory's files; None for a classifier that was not loaded."""
        self.provenance: dict[str, Any] = {}
        """Where it comes from, as its maker recorded it."""

    def logits(self, images: Images) -> Tensor:
        """(B, K) logits of `images`, as `Featurizer.preprocess` takes them."""
        return self.logits_of(self.featurizer.preprocess(images))

    def logits_of(self, pixels: Tensor) -> Tensor:
        """(B, K) logits of preprocessed `pixels` (B, in_chans, image_size, image_size)."""
        logits: Tensor = self.head(self.featurizer.backbone(pixels))
        return logits

    def probabilities(self, images: Images) -> Tensor:
        """(B, K) float probabilities of `images`; those of classes have the sum 1, each of labels is that of a yes."""
        logits = self.logits(images).float()
        return logits.sigmoid() if self.multi_label else logits.softmax(dim=1)

    def forward(self, images: Images) -> Tensor:
        """The same as `probabilities`."""
        return self.probabilities(images)


@dataclass(frozen=True)
class _Config:
    """Everything about a classifier but its encoder and weights."""

    class_names: list[str]
    multi_label: bool
    encoder_hash: str
    """Of the directory `encoder`, so that a head is never taken for that of another encoder."""
    made_with: dict[str, str]
    provenance: dict[str, Any]


def save_classifier(directory: Path, classifier: Classifier, *, provenance: dict[str, Any]) -> Path:
    """Write `config.json`, `head.safetensors`, a model card and the directory `encoder`, atomically.

    The encoder is one as `save_encoder` writes it: whatever takes an encoder takes it.

    Args:
        directory: where to; a classifier that stands there is replaced, anything else there is refused.
        classifier: on any device.
        provenance: JSON values for the record, as for `save_encoder`.

    Returns:
        `directory`.

    Raises:
        UserError: `directory` holds something else, or the disk is full.
        ValueError, TypeError: `provenance` is no JSON (as NaN).
    """
    _refuse_foreign(directory)
    featurizer = classifier.featurizer
    trained_on = {"labels": len(classifier.class_names)} | provenance
    with atomic_directory(directory) as temporary:
        save_encoder(
            temporary / ENCODER,
            featurizer.backbone,
            mean=featurizer.mean,
            std=featurizer.std,
            bits=classifier.bits,
            provenance=trained_on,
        )
        config = _Config(
            class_names=classifier.class_names,
            multi_label=classifier.multi_label,
            encoder_hash=hash_of_files(temporary / ENCODER, _ENCODER_FILES),
            made_with={"fewlabel": __version__, "torch": torch.__version__},
            provenance=provenance,
        )
        text = json.dumps({"format": FORMAT, **asdict(config)}, indent=2, allow_nan=False) + "\n"
        (temporary / CONFIG).write_text(text, encoding="utf-8")
        save_weights(temporary / HEAD, classifier.head)
        card = classifier_card(classifier.class_names, classifier.multi_label, featurizer.backbone, provenance)
        (temporary / "README.md").write_text(card, encoding="utf-8")
    return directory


def _refuse_foreign(directory: Path) -> None:
    """Refuse to replace anything but a classifier or an empty directory."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    try:
        _read_config(directory)
    except UserError as error:
        raise UserError(f"{directory} exists already, so nothing was written there. {error}") from error


def load_classifier(directory: str | Path) -> Classifier:
    """Rebuild the classifier in `directory`, on the CPU and in eval mode. Nothing in it is unpickled or executed.

    Raises:
        UserError: no such directory, something else or damaged files in it, or parts of two classifiers.
    """
    directory = Path(directory)
    config = _read_config(directory)
    encoder = load_encoder(directory / ENCODER)
    if encoder.hash != config.encoder_hash:
        raise UserError(
            f"{directory / ENCODER} is not the encoder that {directory / HEAD} was trained with: one of them was "
            "changed. Copy the whole directory again."
        )
    path = directory / HEAD
    weights = load_weights(path, "classifier")
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    expected = {"weight": (len(config.class_names), encoder.num_features), "bias": (len(config.class_names),)}
    finite = all(value.is_floating_point() and bool(value.isfinite().all()) for value in weights.values())
    if shapes != expected or not finite:
        raise UserError(f"{path} doesn't hold a head of finite numbers with the shapes {expected}, but {shapes}.")
    head = nn.Linear(encoder.num_features, len(config.class_names))
    head.load_state_dict(weights)
    classifier = Classifier(encoder, head, config.class_names, multi_label=config.multi_label, bits=encoder.config.bits)
    classifier.hash = hash_of_files(directory, (CONFIG, HEAD))
    classifier.provenance = config.provenance
    return classifier.eval()


_TYPES: Final[dict[str, type]] = {
    "class_names": list,
    "multi_label": bool,
    "encoder_hash": str,
    "made_with": dict,
    "provenance": dict,
}


def _read_config(directory: Path) -> _Config:
    path = directory / CONFIG
    if not directory.is_dir():
        raise UserError(f"There is no classifier directory {directory}. Fine-tuning writes one as RUN/classifier.")
    if not path.is_file():
        raise UserError(f"{directory} is no classifier directory: it has no {CONFIG}. Is it RUN/classifier?")
    values = read_json(path)
    if not isinstance(values, dict) or type(values.get("format")) is not int:
        raise UserError(f"{path} was not written by Fewlabel: it states no format.")
    if "class_names" not in values:
        raise UserError(
            f"{directory} is no classifier: its {CONFIG} names no classes. `fewlabel finetune --encoder {directory}` "
            "makes one of an encoder."
        )
    if values["format"] != FORMAT:
        raise UserError(
            f"{path} has format {values['format']} and this version reads {FORMAT}: install the version "
            "of Fewlabel that wrote it."
        )
    for field in fields(_Config):
        if type(values.get(field.name)) is not _TYPES[field.name]:
            raise UserError(f"{path} is damaged: {field.name} is {values.get(field.name)!r}.")
    names, least = values["class_names"], 1 if values["multi_label"] else 2
    if not all(type(name) is str for name in names) or len(set(names)) < len(names) or len(names) < least:
        raise UserError(f"{path} is damaged: class_names must be {least} or more different names, not {names!r}.")
    return _Config(**{field.name: values[field.name] for field in fields(_Config)})
