"""`fewlabel pretrain`: from a source of images to an encoder on disk, without labels."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabel.backbones.config import BackboneConfig
from fewlabel.console import console
from fewlabel.data.config import SourceConfig, ViewsConfig
from fewlabel.errors import UserError
from fewlabel.pipelines.configuration import as_dict
from fewlabel.ssl.config import SimCLRConfig
from fewlabel.tracking.config import RunConfig
from fewlabel.training.config import TrainingConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

    from fewlabel.backbones.backbone import Backbone
    from fewlabel.data.source import Source
    from fewlabel.data.store import ImageStore
    from fewlabel.tracking.run import Run
    from fewlabel.training.schedule import Plan

COMMAND = "pretrain"

FREE = ("resume", "config", "json", "source.workers", "source.cache_dir", "run.out")
"""Options that don't change what a run computes, so that a resumed run may have others."""

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
    from fewlabel.backbones.registry import check_name
    from fewlabel.training.processes import choose_precision, launched, make_accelerator, run_processes

    check_name(config.backbone.backbone)
    precision = choose_precision(config.training.precision)
    if (config.training.processes or 1) > 1 and not launched():
        return run_processes(sys.argv[1:], config.training.processes or 1)
    accelerator = make_accelerator(config.training, precision)
    config = replace(
        config,
        training=replace(config.training, precision=precision, processes=accelerator.num_processes),
    )

    from fewlabel.training.loop import Interrupted

    try:
        result = _pretrain(config, accelerator)
    except Interrupted as stop:
        return 128 + stop.number
    finally:
        accelerator.end_training()
    if accelerator.is_main_process and config.json:
        print(json.dumps(result, indent=2))
    return 0


def _pretrain(config: Config, accelerator: "Accelerator") -> dict[str, Any]:
    from accelerate.utils import set_seed

    from fewlabel.backbones.encoder import save_encoder
    from fewlabel.backbones.featurizer import Featurizer
    from fewlabel.backbones.registry import create
    from fewlabel.data.loader import Loader
    from fewlabel.data.sizes import stored_side
    from fewlabel.data.source import load
    from fewlabel.data.store import mean_and_std, open_split
    from fewlabel.data.views import TwoViews
    from fewlabel.ssl.evaluation import health_on, knn_on
    from fewlabel.ssl.health import collapse_warning
    from fewlabel.ssl.simclr import SimCLR
    from fewlabel.training.batch_norm import synchronize_batch_norm
    from fewlabel.training.checkpoint import latest_checkpoint
    from fewlabel.training.loop import fit
    from fewlabel.training.optimizers import build_optimizer
    from fewlabel.training.schedule import plan_steps

    with accelerator.main_process_first():
        source = load(config.source)
    config = _derive(config, source)
    training, seed, world = config.training, config.training.seed, accelerator.num_processes
    image_size, batch_size = config.backbone.image_size or 0, training.batch_size or 0
    set_seed(seed)

    def new_backbone() -> "Backbone":
        set_seed(seed)
        return create(config.backbone.backbone, image_size=image_size, in_chans=source.channels)

    backbone = new_backbone()
    with accelerator.main_process_first():
        stores = {
            split: open_split(source, split, stored_side(image_size, source.median_side), config.source)
            for split in source
        }
    loader = Loader(stores["train"], batch_size // world, seed=seed, rank=accelerator.process_index, world=world)
    plan = plan_steps(training, loader.steps_per_epoch, source.hints.epochs)
    mean, std = mean_and_std(stores["train"], seed)
    views = TwoViews(config.views.views, image_size, mean, std, config.views.strength)
    task = SimCLR(backbone, views, config.simclr)
    if world > 1:
        synchronize_batch_norm(task, accelerator.device)
    optimizer = build_optimizer(task, training, batch_size, backbone.no_weight_decay())
    if training.compile:
        backbone.compile()
    featurizer = Featurizer(backbone, mean, std).to(accelerator.device)
    watched = stores["val"] if "val" in stores else stores["train"]

    def evaluate(step: int) -> dict[str, float]:
        figures = health_on(task, watched, accelerator, seed=seed)
        if figures and (warning := collapse_warning(figures)):
            console.print(f"[bold yellow]Step {step}:[/] {warning}", soft_wrap=True)
        if watched is not stores["train"]:
            accuracy = knn_on(featurizer, stores["train"], watched, accelerator, seed=seed, **KNN_WHILE_TRAINING)
            if accuracy is not None:
                figures["knn_accuracy"] = accuracy.mean
        return figures

    with _recorded(config, source, backbone, accelerator) as record:
        checkpoint = latest_checkpoint(record.checkpoints) if config.resume else None
        record.rewind(checkpoint.step if checkpoint else -1)
        if accelerator.is_main_process:
            _announce(config, source, stores, backbone, plan, accelerator, record)
            _show_views(record, stores["train"], views, seed)
        fit(
            task,
            optimizer,
            loader,
            plan,
            accelerator,
            record,
            seed=seed,
            clip_grad_norm=training.clip_grad_norm,
            evaluate=evaluate,
            checkpoint=checkpoint,
        )
        metrics: dict[str, Any] = {}
        held_out = stores.get("test", watched)
        if held_out is not stores["train"]:
            untrained = Featurizer(new_backbone(), mean, std).to(accelerator.device)
            for name, kind in (("knn_accuracy", featurizer), ("knn_accuracy_untrained", untrained)):
                interval = knn_on(kind, stores["train"], held_out, accelerator, seed=seed, **KNN_AT_THE_END)
                if interval is not None:
                    metrics[name] = asdict(interval)
        if not metrics:
            metrics = dict(health_on(task, watched, accelerator, seed=seed))
        if not accelerator.is_main_process:
            return {}
        metrics |= _last_figures(record.history(), plan)
        save_encoder(
            record.encoder,
            backbone,
            mean=mean,
            std=std,
            bits=source.bits,
            provenance={
                **{name: record.record[name] for name in ("run", "command", "created", "source", "provenance")},
                "metrics": metrics,
            },
        )
        record.log_artifact(f"encoder-{backbone.name}", "encoder", record.encoder, metrics)
        curves = record.wandb_directory
        result = record.finish(metrics, encoder=str(record.encoder), backbone=backbone.name)
        _conclude(result, record, curves)
        return result


def _derive(config: Config, source: "Source") -> Config:
    """Fill in every option that the user left open, so that the record repeats the run."""
    from fewlabel.data.presets import resolve_preset
    from fewlabel.data.sizes import view_side
    from fewlabel.training.schedule import DEFAULT_EPOCHS, default_batch_size

    training, world, images = config.training, config.training.processes or 1, len(source["train"])
    image_size = config.backbone.image_size or source.hints.image_size or view_side(source.median_side)
    batch_size = training.batch_size or default_batch_size(images, image_size, world)
    if batch_size % world:
        raise UserError(
            f"--batch-size {batch_size} does not divide by {world} processes: "
            f"take {batch_size // world * world or world} or {(batch_size // world + 1) * world}."
        )
    epochs = training.epochs
    if epochs is None and training.max_steps is None:
        epochs = source.hints.epochs or DEFAULT_EPOCHS
    data = config.source.data
    return replace(
        config,
        backbone=replace(config.backbone, image_size=image_size),
        source=replace(config.source, data=str(Path(data).resolve()) if Path(data).exists() else data),
        views=replace(config.views, views=resolve_preset(config.views.views, source.hints.views, source.channels)),
        training=replace(training, batch_size=batch_size, epochs=epochs),
    )


@contextmanager
def _recorded(config: Config, source: "Source", backbone: "Backbone", accelerator: "Accelerator") -> Iterator["Run"]:
    """The run's record on the main process, a silent one on the others; closed as what ended the block says."""
    from accelerate.utils import broadcast_object_list

    from fewlabel.tracking.run import NullRun, Run
    from fewlabel.training.loop import Interrupted

    shared: list[Any] = [None, None]
    if accelerator.is_main_process:
        about = {
            "name": source.name,
            "data": config.source.data,
            "fingerprint": source.fingerprint,
            "images": {split: len(part) for split, part in source.items()},
            "bad_images": [{"id": bad.id, "reason": bad.reason} for bad in source.bad],
        }
        if config.resume:
            record = Run.resume(config.resume, command=COMMAND)
            record.require_config(as_dict(config), free=FREE)
            if record.record["source"]["fingerprint"] != source.fingerprint:
                record.close("interrupted")
                raise UserError(
                    f"The images of {config.source.data} have changed since {config.resume} began. "
                    "Put them back as they were, or begin a new run without --resume."
                )
        else:
            record = Run.create(
                COMMAND,
                as_dict(config),
                out=config.run.out,
                slug=f"{config.backbone.backbone}-{source.name}",
                parents={"source": f"{source.name}@{source.fingerprint}"},
                source=about,
                project=config.run.project,
            )
        shared = [record.directory, record.record]
    broadcast_object_list(shared)
    if not accelerator.is_main_process:
        record = NullRun(*shared)
    try:
        with record:
            yield record
    except Interrupted as stop:
        if accelerator.is_main_process:
            console.print(f"{str(stop).capitalize()}. Go on with:")
            console.print(f"  fewlabel pretrain --resume {record.directory}", style="bold", soft_wrap=True)
        raise


def _announce(
    config: Config,
    source: "Source",
    stores: "Mapping[str, ImageStore]",
    backbone: "Backbone",
    plan: "Plan",
    accelerator: "Accelerator",
    record: "Run",
) -> None:
    """Print what the run derived."""
    from rich.table import Table

    from fewlabel.backbones.catalogue import count_parameters

    training = config.training
    sizes = ", ".join(f"{len(store):,} {split}" for split, store in stores.items())
    classes = source["train"].features["label"].names if "label" in source["train"].features else []
    table = Table.grid(padding=(0, 2))
    for name, value in (
        (
            "source",
            f"{source.name}, {sizes}; {len(classes) or 'no'} classes; {source.channels} channel(s), {source.bits} bits",
        ),
        ("fingerprint", source.fingerprint[:16]),
        (
            "backbone",
            f"{backbone.name}, {count_parameters(backbone):,} parameters, {backbone.num_features} features",
        ),
        ("views", f"{config.views.views} at {config.backbone.image_size} px"),
        (
            "steps",
            f"{plan.total_steps:,} of {training.batch_size} images, {plan.steps_per_epoch} an epoch, {plan.warmup_steps} of warm-up",
        ),
        ("device", f"{accelerator.num_processes} x {accelerator.device.type}, {training.precision}"),
        ("run", str(record.directory)),
    ):
        table.add_row(f"[dim]{name}[/]", value)
    console.print(table)
    if source.bad:
        names = ", ".join(bad.id for bad in source.bad[:3])
        console.print(f"[yellow]{len(source.bad)} images could not be read and are left out, such as {names}.[/]")


def _show_views(record: "Run", store: "ImageStore", views: Any, seed: int) -> None:
    from fewlabel.pipelines.views import draw

    draw(store, views, seed, record.directory / "views.png")
    record.log_image("views", record.directory / "views.png", 0)


def _last_figures(history: list[dict[str, Any]], plan: "Plan") -> dict[str, float]:
    """The mean loss of the last tenth of the steps, and the median of the views a second."""
    from statistics import fmean, median

    losses = [line["loss"] for line in history if line.get("loss") is not None]
    rates = [line["views_per_second"] for line in history if line.get("views_per_second")]
    return {"loss": fmean(losses[-max(1, plan.total_steps // 10) :]), "views_per_second": median(rates)}


def _conclude(result: dict[str, Any], record: "Run", curves: Path | None) -> None:
    """Print the figures, where everything is and what to type next."""
    metrics = result["metrics"]
    if "knn_accuracy" in metrics:
        for name, label in (("knn_accuracy", "learned"), ("knn_accuracy_untrained", "untrained")):
            figure = {key: 100 * value for key, value in metrics[name].items()}
            console.print(
                f"kNN accuracy on held-out images, {label:<9}: [bold]{figure['mean']:.1f} %[/] "
                f"(95 % interval {figure['low']:.1f} to {figure['high']:.1f})"
            )
    else:
        figures = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in metrics.items())
        console.print(f"No labels to judge by; of the representation itself: {figures}.")
    console.print(f"Encoder: [bold]{record.encoder}[/]   Run: {record.directory}", soft_wrap=True)
    if curves:
        console.print(f"Curves:  wandb leet {curves}", soft_wrap=True)
    console.print("Next:    fewlabel runs")
