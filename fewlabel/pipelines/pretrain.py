"""`fewlabel pretrain`: from a source of images to an encoder on disk, without labels."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabel.backbones.config import BackboneConfig
from fewlabel.data.config import SourceConfig, ViewsConfig
from fewlabel.pipelines.resumable import recorded, run_training
from fewlabel.ssl.config import SimCLRConfig
from fewlabel.tracking.config import RunConfig
from fewlabel.training.config import TrainingConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

    from fewlabel.data.source import Source
    from fewlabel.training.schedule import Plan

COMMAND = "pretrain"

KNN_WHILE_TRAINING = {"most_bank": 5_000, "most_queries": 2_000}
KNN_AT_THE_END = {"most_bank": 50_000, "most_queries": 20_000}


@dataclass(frozen=True)
class Config:
    """Learn features from the images of a source, without labels (SimCLR)."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    simclr: SimCLRConfig = field(default_factory=SimCLRConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    run: RunConfig = field(default_factory=RunConfig)
    resume: Path | None = None
    """A stopped run's directory: go on from its last checkpoint, with its own options."""
    config: Path | None = None
    """The config.json of an earlier run: its options become the defaults."""
    json: bool = False
    """Print the result alone, as JSON, on standard output."""


def run(config: Config) -> int:
    """Run the command; its exit status."""
    return run_training(config, _check, _pretrain)


def _check(config: Config) -> Config:
    """Refuse what takes no look at the images; the configuration with the backbone's options as they are read."""
    from fewlabel.backbones.options import as_texts
    from fewlabel.backbones.registry import check, options_from
    from fewlabel.backbones.scale import Scale
    from fewlabel.data.presets import resolve_preset

    name, scale = config.backbone.backbone, Scale.of(config.backbone)
    options = options_from(name, config.backbone.backbone_option)
    if config.backbone.image_size is not None:
        check(name, image_size=config.backbone.image_size, scale=scale, **options)
    resolve_preset(config.views.views, None, channels=1)
    return replace(config, backbone=replace(config.backbone, backbone_option=as_texts(options)))


def _pretrain(config: Config, accelerator: "Accelerator") -> dict[str, Any]:
    from functools import partial

    from fewlabel.backbones.encoder import save_encoder
    from fewlabel.backbones.featurizer import Featurizer
    from fewlabel.backbones.registry import create, options_from
    from fewlabel.backbones.scale import Scale
    from fewlabel.data.loading import load
    from fewlabel.data.sizes import stored_side
    from fewlabel.data.store import open_split
    from fewlabel.pipelines.pretrain_report import announce, conclude
    from fewlabel.pipelines.views import draw
    from fewlabel.ssl.evaluation import health_on, knn_on
    from fewlabel.ssl.pretraining import fresh_backbone, prepare
    from fewlabel.training.checkpoint import latest_checkpoint

    with accelerator.main_process_first():
        source = load(config.source)
    config = _derive(config, source)
    seed = config.training.seed
    make = partial(
        create,
        config.backbone.backbone,
        image_size=config.backbone.image_size or 0,
        in_chans=source.channels,
        scale=Scale.of(config.backbone),
        **options_from(config.backbone.backbone, config.backbone.backbone_option),
    )
    backbone = fresh_backbone(make, seed)
    side = stored_side(backbone.image_size, source.median_side)
    with accelerator.main_process_first():
        stores = {split: open_split(source, split, side, config.source) for split in source}
    pretraining = prepare(
        backbone,
        stores["train"],
        views=config.views,
        simclr=config.simclr,
        training=config.training,
        accelerator=accelerator,
    )
    config = replace(config, training=pretraining.training, views=pretraining.views_config, simclr=pretraining.simclr)
    featurizer, plan = pretraining.featurizer, pretraining.plan
    watched = stores["val"] if "val" in stores else stores["train"]

    def evaluate(step: int) -> dict[str, float]:
        figures = pretraining.health(watched, step)
        if watched is not stores["train"]:
            accuracy = knn_on(featurizer, stores["train"], watched, accelerator, seed=seed, **KNN_WHILE_TRAINING)
            if accuracy is not None:
                figures["knn_accuracy"] = accuracy.mean
        pretraining.tell(figures, step)
        return figures

    slug = f"{config.backbone.backbone}-{source.name}"
    with recorded(COMMAND, config, source, stores, accelerator, slug=slug, parents={}) as record:
        checkpoint = latest_checkpoint(record.checkpoints) if config.resume else None
        record.rewind(checkpoint.step if checkpoint else -1)
        if accelerator.is_main_process:
            announce(config, source, stores, backbone, plan, accelerator, record.directory, checkpoint)
            if checkpoint is None:
                draw(stores["train"], pretraining.views, seed, record.directory / "views.png")
                record.log_image("views", record.directory / "views.png", 0)
        pretraining.fit(record, evaluate, checkpoint)
        metrics: dict[str, Any] = {}
        held_out = stores.get("test", watched)
        if held_out is not stores["train"]:
            fresh = fresh_backbone(make, seed)
            untrained = Featurizer(fresh, featurizer.mean, featurizer.std).to(accelerator.device)
            for name, kind in (("knn_accuracy", featurizer), ("knn_accuracy_untrained", untrained)):
                interval = knn_on(kind, stores["train"], held_out, accelerator, seed=seed, **KNN_AT_THE_END)
                if interval is not None:
                    metrics[name] = asdict(interval)
        if not metrics:
            metrics = dict(health_on(pretraining.task, watched, accelerator, seed=seed))
        if not accelerator.is_main_process:
            return {}
        metrics |= _last_figures(record.history(), plan)
        save_encoder(
            record.encoder,
            backbone,
            mean=featurizer.mean,
            std=featurizer.std,
            bits=source.bits,
            provenance={
                **{name: record.record[name] for name in ("run", "command", "created", "source", "provenance")},
                "metrics": metrics,
            },
        )
        record.log_artifact(f"encoder-{backbone.name}", "encoder", record.encoder, metrics)
        in_wandb = record.wandb_directory is not None
        result = record.finish(metrics, encoder=str(record.encoder), backbone=backbone.name)
        conclude(result, record.directory, in_wandb=in_wandb, labelled=source.class_names is not None)
        return result


def _derive(config: Config, source: "Source") -> Config:
    """Fill in every option that the user left open, so that the record repeats the run."""
    from fewlabel.data.presets import resolve_preset
    from fewlabel.pipelines.sources import base_image_size
    from fewlabel.ssl.pretraining import settle_training

    image_size = base_image_size(source, config.backbone)
    return replace(
        config,
        backbone=replace(config.backbone, image_size=image_size),
        source=replace(config.source.resolved(), window=source.window),
        views=replace(config.views, views=resolve_preset(config.views.views, source.hints.views, source.channels)),
        training=settle_training(
            config.training,
            images=len(source["train"]),
            image_size=image_size,
            suggested_epochs=source.hints.epochs,
        ),
    )


def _last_figures(history: list[dict[str, Any]], plan: "Plan") -> dict[str, float]:
    """The mean loss of the last tenth of the steps, and the median of the views a second."""
    from statistics import fmean, median

    losses = [line["loss"] for line in history if line.get("loss") is not None]
    rates = [line["views_per_second"] for line in history if line.get("views_per_second")]
    return {"loss": fmean(losses[-max(1, plan.total_steps // 10) :]), "views_per_second": median(rates)}
