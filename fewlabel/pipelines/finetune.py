"""`fewlabel finetune`: from an encoder and few labels to a classifier on disk."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabel.backbones.config import BackboneConfig
from fewlabel.data.config import SourceConfig, ViewsConfig
from fewlabel.errors import UserError
from fewlabel.pipelines.finetune_start import SCRATCH, TIMM, begin, drawn
from fewlabel.pipelines.labelled import find_encoder, labelled_part, tell_leaks
from fewlabel.pipelines.resumable import recorded, require_parent, run_training
from fewlabel.pipelines.sources import shown_alike
from fewlabel.supervised.config import FinetuneConfig
from fewlabel.tracking.config import RunConfig

if TYPE_CHECKING:
    from accelerate import Accelerator


COMMAND = "finetune"


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
    made_of = read_config(directory).provenance
    return replace(config, encoder=str(directory), source=shown_alike(config.source, made_of))


def _finetune(config: Config, accelerator: "Accelerator") -> Mapping[str, Any]:
    from accelerate.utils import set_seed

    from fewlabel.data.loading import load
    from fewlabel.data.presets import resolve_preset
    from fewlabel.data.store import cache_folder
    from fewlabel.pipelines.finetune_report import announce, conclude
    from fewlabel.supervised.classifier import save_classifier
    from fewlabel.supervised.finetune_figures import compare
    from fewlabel.supervised.finetune_plan import settle_finetuning
    from fewlabel.supervised.finetuning import fine_tune
    from fewlabel.supervised.leaks import find_leaks, leaked_images
    from fewlabel.training.checkpoint import latest_checkpoint
    from fewlabel.training.feature_store import features_of
    from fewlabel.training.features import extract_features

    with accelerator.main_process_first():
        source = load(config.source)
    set_seed(config.training.seed)
    config, start, stores = begin(config, source, accelerator)
    labelled, validation = drawn(config, stores)
    training, plan = settle_finetuning(
        config.training,
        len(labelled),
        trained=start.trained,
        convolutional=start.backbone.convolutional,
        processes=accelerator.num_processes,
    )
    views = config.views
    config = replace(
        config,
        training=training,
        source=config.source.resolved(),
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
        if start.directory is not None:
            record.log_input(f"encoder-{start.config.name}", "encoder", start.directory)
        features = features_of(start, stores, source.fingerprint, accelerator, cache_dir=cache_folder(config.source))
        leaks = []
        if accelerator.is_main_process:
            leaks = find_leaks(stores, {split: found.values for split, found in features.items()})
            tell_leaks(leaks)
        classifier = fine_tune(
            start,
            stores["train"],
            labelled,
            classes=source.class_names or [],
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
            split: extract_features(classifier, stores[split], places, accelerator).double()
            for split, places in (("test", stores["test"].labelled), ("val", validation))
            if places is not None
        }
        if not accelerator.is_main_process:
            return {}
        parts = {split: labelled_part(store, features[split]) for split, store in stores.items()}
        few = stores["train"].places_of(labelled)
        if validation is not None:
            parts["val"] = parts["val"].at(stores["val"].places_of(validation))
        else:
            parts.pop("val", None)
        leaked = leaked_images(leaks, "test")
        metrics = compare(said, parts, few, leaked, config=training, ordinal=config.ordinal)
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
