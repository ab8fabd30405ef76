"""The encoder directory: what pretraining leaves behind and everything downstream takes."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from fewlabel import __version__
from fewlabel.backbones.backbone import Backbone
from fewlabel.backbones.card import model_card
from fewlabel.backbones.encoder_config import CONFIG, FORMAT, WEIGHTS, EncoderConfig, read_config
from fewlabel.backbones.featurizer import Featurizer
from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.registry import create
from fewlabel.backbones.scale import Scale
from fewlabel.backbones.weights import hash_of_files, load_weights, save_weights
from fewlabel.errors import UserError
from fewlabel.files import atomic_directory

__all__ = ["Encoder", "as_encoder", "load_encoder", "save_encoder", "untrained"]


class Encoder(Featurizer):
    """The backbone of an encoder directory behind its own preprocessing: images -> features.

    It is always in eval mode: `train()` leaves it there, so that a probe which trains a head on top can't
    disturb batch statistics. Its parameters take gradients; to fine-tune, train `encoder.backbone` itself on
    `encoder.preprocess(images)`.
    """

    def __init__(
        self, backbone: Backbone, config: EncoderConfig, directory: Path | None, digest: str, *, trained: bool = True
    ) -> None:
        super().__init__(backbone, config.mean, config.std)
        self.config = config
        self.directory = directory
        """Where it was loaded from, if it was."""
        self.hash = digest
        """SHA-256 over `config.json` and `model.safetensors`: names these weights and their preprocessing."""
        self.trained = trained
        """Whether the weights have learned from images, or are as they were drawn."""
        self.eval()

    def train(self, mode: bool = True) -> "Encoder":
        """Stay in eval mode, whatever `mode` says."""
        return super().train(False)


def save_encoder(
    directory: Path,
    backbone: Backbone,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    bits: int,
    provenance: dict[str, Any],
) -> Path:
    """Write `config.json`, `model.safetensors` and a model card, atomically.

    Args:
        directory: where to; an encoder that stands there is replaced, anything else there is refused.
        backbone: as `create` made it, in any memory format and on any device.
        mean: per channel on the [0, 1] scale, as subtracted in training; `in_chans` numbers.
        std: as divided by in training; likewise.
        bits: depth of the training images, 8 or 16.
        provenance: JSON values for the record: the source and its fingerprint, command, commit, versions, and
            `metrics` (names to a number or to `{mean, low, high}`), which the card shows.

    Returns:
        `directory`.

    Raises:
        UserError: `directory` holds something else, or the disk is full.
        ValueError, TypeError: mean, std or bits don't fit the backbone, or `provenance` is no JSON (as NaN).
    """
    config = _config_of(backbone, mean, std, bits, provenance)
    text = json.dumps({"format": FORMAT, **config.as_json()}, indent=2, allow_nan=False) + "\n"
    _refuse_foreign(directory)
    with atomic_directory(directory) as temporary:
        save_weights(temporary / WEIGHTS, backbone.body)
        (temporary / CONFIG).write_text(text, encoding="utf-8")
        parameters = sum(parameter.numel() for parameter in backbone.parameters())
        (temporary / "README.md").write_text(model_card(config, parameters), encoding="utf-8")
    return directory


def as_encoder(
    backbone: Backbone,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    bits: int,
    provenance: dict[str, Any],
    trained: bool,
) -> Encoder:
    """`backbone` as an encoder that was never written to disk; arguments as for `save_encoder`.

    Its hash follows from the weights and the preprocessing.
    """
    config = _config_of(backbone, mean, std, bits, provenance)
    digest = hashlib.sha256(json.dumps({**config.as_json(), "provenance": None}, sort_keys=True).encode())
    for name, value in sorted(backbone.body.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return Encoder(backbone, config, None, digest.hexdigest(), trained=trained)


def _config_of(
    backbone: Backbone, mean: Sequence[float], std: Sequence[float], bits: int, provenance: dict[str, Any]
) -> EncoderConfig:
    return EncoderConfig(
        name=backbone.name,
        options=backbone.options,
        image_size=backbone.image_size,
        in_chans=backbone.in_chans,
        scale=asdict(backbone.scale),
        num_features=backbone.num_features,
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        bits=bits,
        timm_call=backbone.timm_call,
        made_with={"fewlabel": __version__, "timm": timm.__version__, "torch": torch.__version__},
        provenance=provenance,
    )


def _refuse_foreign(directory: Path) -> None:
    """Refuse to replace anything but an encoder or an empty directory."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    try:
        read_config(directory)
    except UserError as error:
        raise UserError(f"{directory} exists already, so nothing was written there. {error}") from error


def load_encoder(directory: str | Path) -> Encoder:
    """Rebuild the encoder in `directory`, on the CPU. Nothing in it is ever unpickled or executed.

    Raises:
        UserError: no such directory, something else or damaged files in it, weights of another network.
    """
    directory = Path(directory)
    config = read_config(directory)
    path = directory / WEIGHTS
    weights = load_weights(path, "encoder")
    build = partial(
        create,
        config.name,
        image_size=config.image_size,
        in_chans=config.in_chans,
        scale=Scale(**config.scale),
        **config.options,
    )
    # Before any memory is taken: a config.json may name a giant that the weights are not.
    with without_weights():
        expected = build().body.state_dict()
    _check_weights(path, config, expected, weights)
    # The weights drawn here are overwritten; whoever loads an encoder keeps their random state.
    with torch.random.fork_rng(devices=[]):
        backbone = build()
    backbone.body.load_state_dict(weights)
    if backbone.num_features != config.num_features:
        raise UserError(
            f"{directory / CONFIG} states {config.num_features} features; {config.name} has "
            f"{backbone.num_features}. The file was changed: copy it again."
        )
    return Encoder(backbone, config, directory, hash_of_files(directory, (CONFIG, WEIGHTS)))


def untrained(encoder: Encoder, seed: int) -> Encoder:
    """`encoder` with fresh weights from `seed`: what it is compared with. Its hash is of its own kind."""
    config = encoder.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = create(
            config.name,
            image_size=config.image_size,
            in_chans=config.in_chans,
            scale=Scale(**config.scale),
            **config.options,
        )
    digest = hashlib.sha256(f"untrained {seed} {torch.__version__} {encoder.hash}".encode()).hexdigest()
    return Encoder(backbone, config, None, digest, trained=False)


def _check_weights(path: Path, config: EncoderConfig, expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    differences = [f"{name} is missing" for name in expected.keys() - found.keys()]
    differences += [f"{name} is unknown" for name in found.keys() - expected.keys()]
    differences += [
        f"{name} has the shape {tuple(found[name].shape)} and not {tuple(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    if differences:
        raise UserError(
            f"{path} doesn't hold the weights of {config.name} at {config.image_size} px with "
            f"{config.in_chans} channels: {sorted(differences)[0]}, {len(differences)} differences in "
            f"all. timm {config.made_with.get('timm', '?')} made it; timm {timm.__version__} is installed."
        )
