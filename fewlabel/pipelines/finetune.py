"""`fewlabel finetune`: from an encoder and few labels to a classifier on disk."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabel.backbones.config import BackboneConfig
from fewlabel.data.config import SourceConfig, ViewsConfig
from fewlabel.errors import UserError
from fewlabel.pipelines.labelled import find_encoder, labelled_part, say, tell_leaks
from fewlabel.pipelines.resumable import recorded, require_parent, run_training
from fewlabel.supervised.config import FinetuneConfig
from fewlabel.tracking.config import RunConfig

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

    from fewlabel.backbones.encoder import Encoder
    from fewlabel.data.source import Source
    from fewlabel.data.store import ImageStore
    from fewlabel.supervised.few_labels import Part

COMMAND = "finetune"

SCRATCH = "scratch"
TIMM = "timm:"

LEAST_VALIDATION = 20
"""Validation labels from which training is stopped by them: the log loss of fewer says little."""


@dataclass(frozen=True)
class Config:
    """Train a classifier on few labels, beginning with an encoder."""

    encoder: str | None = None
    """Encoder directory, or the run that made it; timm:NAME for ImageNet weights; scratch for fresh weights. Default:
    the newest encoder in runs/."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """The network of --encoder scratch; --image-size also for timm:NAME."""
    source: SourceConfig = field(default_factory=SourceConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    labels: float | None = None
    """Share of the training labels to learn from. Default: 1, all that there are."""
    shots: int | None = None
    """Labelled images a class, in place of a share."""
    draw: int = 0
    """Which of the random draws of so many labels, from 0; the same as those of `fewlabel probe`."""
    ordinal: bool = False
    """The classes are grades in the order of their names: report the quadratic kappa too."""
    training: FinetuneConfig = field(default_factory=FinetuneConfig)
    run: RunConfig = field(default_factory=RunConfig)
    resume: Path | None = None
    """A stopped run's directory: go on from its last checkpoint, with its own options."""
    config: Path | None = None
    """The config.json of an earlier run: its options become the defaults."""
    json: bool = False
    """Print the result alone, as JSON, on standard output."""

    def __post_init__(self) -> None:
        """Check the ranges, so that a typing error shows before anything is computed."""
        if self.labels is not None and not 0 < self.labels <= 1:
            raise UserError(f"--labels is {self.labels:g}; give a share above 0 and at most 1 (0.1 is 10 %).")
        if self.shots is not None and self.shots < 1:
            raise UserError(f"--shots is {self.shots}; give a number of images from 1 on.")
        if self.labels is not None and self.shots is not None:
            raise UserError("--labels and --shots both say how many labels: give one of them.")
        if self.draw < 0:
            raise UserError(f"--draw is {self.draw}; draws are numbered from 0.")


def run(config: Config) -> int:
    """Run the command; its exit status."""
    return run_training(config, _check, _finetune)


def _check(config: Config) -> Config:
    """Refuse what takes no look at the images; the configuration with the encoder and the backbone named in full."""
    from fewlabel.backbones.encoder_config import read_config
    from fewlabel.backbones.options import as_texts
    from fewlabel.backbones.registry import check, options_from
    from fewlabel.backbones.scale import Scale
    from fewlabel.data.presets import resolve_preset

    resolve_preset(config.views.views, None, channels=1)
    chosen = config.backbone
    if config.encoder == SCRATCH:
        options = options_from(chosen.backbone, chosen.backbone_option)
        if chosen.image_size is not None:
            check(chosen.backbone, image_size=chosen.image_size, scale=Scale.of(chosen), **options)
        return replace(config, backbone=replace(chosen, backbone_option=as_texts(options)))
    of_timm = config.encoder is not None and config.encoder.startswith(TIMM)
    if chosen != (BackboneConfig(image_size=chosen.image_size) if of_timm else BackboneConfig()):
        raise UserError(
            "--backbone, its options, scale and image size are for --encoder scratch: an encoder has its own "
            "(timm:NAME takes --image-size). Leave them out, or add --encoder scratch."
        )
    if of_timm:
        return config
    directory = find_encoder(Path(config.encoder) if config.encoder is not None else None).resolve()
    read_config(directory)
    return replace(config, encoder=str(directory))


def _finetune(config: Config, accelerator: "Accelerator") -> Mapping[str, Any]:
    from accelerate.utils import set_seed

    from fewlabel.data.presets import resolve_preset
    from fewlabel.data.source import load, require_labels
    from fewlabel.data.store import cache_folder
    from fewlabel.pipelines.finetune_report import announce, conclude
    from fewlabel.supervised.classifier import save_classifier
    from fewlabel.supervised.finetune_plan import settle_finetuning
    from fewlabel.supervised.finetuning import fine_tune
    from fewlabel.supervised.leaks import find_leaks
    from fewlabel.training.checkpoint import latest_checkpoint
    from fewlabel.training.feature_store import features_of
    from fewlabel.training.features import extract_features

    with accelerator.main_process_first():
        source = load(config.source)
    names = require_labels(source)
    set_seed(config.training.seed)
    config, start, stores = _begin(config, source, accelerator)
    labelled, validation = _drawn(config, source, stores)
    training, plan = settle_finetuning(
        config.training,
        len(labelled),
        trained=start.trained,
        convolutional=start.backbone.convolutional,
        processes=accelerator.num_processes,
    )
    data, views = config.source.data, config.views
    config = replace(
        config,
        training=training,
        source=replace(config.source, data=str(Path(data).resolve()) if Path(data).exists() else data),
        views=replace(views, views=resolve_preset(views.views, source.hints.views, source.channels)),
    )
    made_by = config.encoder if config.encoder == SCRATCH else start.config.provenance.get("run", config.encoder)
    parent = f"{made_by}@{start.hash[:16]}"
    slug = f"{start.config.name}-{source.name}"
    with recorded(COMMAND, config, source, stores, accelerator, slug=slug, parents={"encoder": parent}) as record:
        require_parent(record, parent, str(config.encoder))
        checkpoint = latest_checkpoint(record.checkpoints) if config.resume else None
        record.rewind(checkpoint.step if checkpoint else -1)
        if accelerator.is_main_process:
            announce(config, source, stores, start, labelled, validation, plan, record.directory, checkpoint)
        features = features_of(start, stores, source.fingerprint, accelerator, cache_dir=cache_folder(config.source))
        leaks = []
        if accelerator.is_main_process:
            leaks = find_leaks(stores, {split: found.values for split, found in features.items()})
            tell_leaks(leaks)
        classifier = fine_tune(
            start,
            stores["train"],
            labelled,
            classes=names,
            multi_label=source.multi_label,
            validation=None if validation is None else (stores["val"], validation),
            config=training,
            preset=config.views.views,
            strength=config.views.strength,
            accelerator=accelerator,
            log=record,
            seed=training.seed,
            checkpoint=checkpoint,
        )
        said = {
            split: extract_features(classifier, stores[split], places, accelerator)
            for split, places in (("test", stores["test"].labelled), ("val", validation))
            if places is not None
        }
        if not accelerator.is_main_process:
            return {}
        parts = {split: labelled_part(store, features[split]) for split, store in stores.items()}
        leaked = {image for leak in leaks for split, image in (leak.left, leak.right) if split == "test"}
        metrics = _judge(config, stores, parts, labelled, validation, said, leaked)
        # Tables stay in result.json.
        plain = {name: figure for name, figure in metrics.items() if not isinstance(figure, list)}
        save_classifier(
            record.classifier,
            classifier,
            provenance={
                **{
                    name: record.record[name]
                    for name in ("run", "command", "created", "source", "parents", "provenance")
                },
                "labelled_images": len(labelled),
                "metrics": plain,
            },
        )
        record.log_artifact(f"classifier-{start.config.name}", "classifier", record.classifier, plain)
        result = record.finish(
            metrics,
            classifier=str(record.classifier),
            encoder=config.encoder,
            backbone=start.config.name,
            labelled_images=len(labelled),
            validation_images=0 if validation is None else len(validation),
            leaks=[asdict(leak) for leak in leaks],
        )
        conclude(result, record.directory, config.source.data)
        return result


def _begin(
    config: Config, source: "Source", accelerator: "Accelerator"
) -> "tuple[Config, Encoder, dict[str, ImageStore]]":
    """The encoder to start from, and the splits at the size that suits it."""
    from fewlabel.backbones.encoder import as_encoder, load_encoder
    from fewlabel.backbones.pretrained import imagenet_encoder
    from fewlabel.backbones.registry import create, fit_image_size, options_from
    from fewlabel.backbones.scale import Scale
    from fewlabel.data.sizes import stored_side, view_side
    from fewlabel.data.store import mean_and_std, open_split

    def opened(image_size: int) -> "dict[str, ImageStore]":
        with accelerator.main_process_first():
            side = stored_side(image_size, source.median_side)
            return {split: open_split(source, split, side, config.source) for split in source}

    encoder = config.encoder or ""
    if encoder == SCRATCH:
        chosen = config.backbone
        options = options_from(chosen.backbone, chosen.backbone_option)
        suits_source = source.hints.image_size or view_side(source.median_side)
        size = chosen.image_size or fit_image_size(chosen.backbone, suits_source, **options)
        backbone = create(chosen.backbone, image_size=size, in_chans=source.channels, scale=Scale.of(chosen), **options)
        stores = opened(backbone.image_size)
        mean, std = mean_and_std(stores["train"], config.training.seed)
        start = as_encoder(backbone, mean=mean, std=std, bits=source.bits, provenance={}, trained=False)
        return replace(config, backbone=replace(chosen, image_size=size)), start, stores
    if encoder.startswith(TIMM):
        with accelerator.main_process_first():
            name = encoder.removeprefix(TIMM)
            start = imagenet_encoder(name, config.backbone.image_size, source.channels, source.bits)
        config = replace(
            config,
            encoder=str(start.config.provenance["run"]),
            backbone=replace(config.backbone, image_size=start.image_size),
        )
    else:
        start = load_encoder(encoder)
        if start.backbone.in_chans != source.channels:
            takes = start.backbone.in_chans
            say(f"The encoder takes {takes} channels: the images, of {source.channels}, are converted.")
    return config, start, opened(start.image_size)


def _drawn(config: Config, source: "Source", stores: "Mapping[str, ImageStore]") -> "tuple[Tensor, Tensor | None]":
    """The positions of the labelled images in train, and of the same share in val if they are enough to judge by.

    Raises:
        UserError: there is no such draw, or nothing to judge the result by.
    """
    from fewlabel.supervised.linear_probe import targets_of
    from fewlabel.supervised.subsets import fractions_of, shots_of

    seed, draws = config.training.seed, config.draw + 1
    test = stores.get("test")
    if test is None or test.labels is None or not len(test.labelled):
        raise UserError(
            f"{source.name} has no labelled test images to judge by: give a --test-share above 0, or a test split "
            "with labels."
        )
    if targets_of(test.labels[test.labelled], "none") is None:
        raise UserError(
            f"The {len(test.labelled)} labelled test images of {source.name} all have the same label, so no figure "
            "can be computed. Give a larger --test-share, or a test split with images of each class."
        )
    train = stores["train"]
    share = config.labels or 1.0
    subsets = (
        fractions_of(train.ids, train.labels, train.groups, [share], draws, seed)
        if config.shots is None
        else shots_of(train.ids, train.labels, train.groups, [config.shots], draws, seed)
    )
    found = {subset.draw: subset.indices for subset in subsets}
    if config.draw not in found:
        raise UserError(
            f"There is no draw {config.draw} of so many labels that differs from the ones before. Take --draw 0, or "
            "fewer labels."
        )
    labelled = found[config.draw]
    if config.shots is not None:
        share = len(labelled) / len(train.labelled)
    val = stores.get("val")
    if val is None or val.labels is None or len(val.labelled) < LEAST_VALIDATION:
        return labelled, None
    if targets_of(val.labels[val.labelled], "none") is None:
        return labelled, None
    (same, *_) = fractions_of(val.ids, val.labels, val.groups, [share], 1, seed)
    return labelled, same.indices if len(same.indices) >= LEAST_VALIDATION else None


def _judge(
    config: Config,
    stores: "Mapping[str, ImageStore]",
    parts: "Mapping[str, Part]",
    labelled: "Tensor",
    validation: "Tensor | None",
    said: "Mapping[str, Tensor]",
    leaked: set[str],
) -> dict[str, Any]:
    """The figures of the classifier and of the linear probe of where it started, with their intervals, on test.

    Args:
        config: settled.
        stores: the splits.
        parts: their labelled images, with the features that training started with.
        labelled: positions in train of the images whose labels were used.
        validation: likewise in val.
        said: the classifier's probabilities of the labelled test images, and of the validation images.
        leaked: ids of test images that stand elsewhere too.
    """
    import torch

    from fewlabel.supervised.bootstrap import figures_with_intervals, paired_difference
    from fewlabel.supervised.linear_probe import choose_penalty, fit_probe
    from fewlabel.supervised.metrics import Predictions, best_threshold

    training, test = config.training, parts["test"]

    def places(split: str, positions: "Tensor") -> "Tensor":
        return torch.searchsorted(stores[split].labelled, positions)

    few = parts["train"].at(places("train", labelled))
    penalty = choose_penalty(
        few.features,
        few.labels,
        few.groups,
        class_weights=training.class_weights,
        validation=None,
        seed=training.seed,
    ).value
    classes = said["test"].shape[1]
    probe = fit_probe(few.features, few.labels, classes, penalty=penalty, class_weights=training.class_weights)
    answers = {
        "finetuned": {split: found.double() for split, found in said.items()},
        "probe": {"test": probe.probabilities(test.features)},
    }
    known = None
    if validation is not None:
        val = parts["val"].at(places("val", validation))
        answers["probe"]["val"], known = probe.probabilities(val.features), val.labels
    two_classes = classes == 2 and known is not None and known.ndim == 1 and len(torch.unique(known)) == 2

    def predictions(method: str, kept: "Tensor") -> list[Predictions]:
        found, threshold = answers[method], None
        if two_classes and known is not None:
            threshold = best_threshold(found["val"][:, 1].numpy(), known.numpy())
        return [
            Predictions(
                found["test"][kept].numpy(), test.labels[kept].numpy(), threshold=threshold, ordinal=config.ordinal
            )
        ]

    def figures(kept: "Tensor") -> dict[str, Any]:
        groups = test.at(kept).groups
        tuned, frozen = predictions("finetuned", kept), predictions("probe", kept)
        of_tuned, of_frozen = (figures_with_intervals(method, groups, seed=training.seed) for method in (tuned, frozen))
        gains = {
            f"gain_{name}": paired_difference(tuned, frozen, name, groups, seed=training.seed)
            for name in ("auroc", "accuracy")
        }
        named = {**of_tuned, **{f"probe_{name}": figure for name, figure in of_frozen.items()}, **gains}
        return {name: asdict(figure) for name, figure in named.items()}

    metrics = figures(torch.arange(len(test.ids)))
    clean = torch.tensor([place for place, image in enumerate(test.ids) if image not in leaked], dtype=torch.int64)
    if len(clean) == len(test.ids):
        return metrics
    try:
        rows = figures(clean)
    except UserError as error:
        say(f"Without the test images that stand elsewhere too there are no figures: {error}")
        return metrics
    return {**metrics, "without_leaks": [{"figure": name, **figure} for name, figure in rows.items()]}
