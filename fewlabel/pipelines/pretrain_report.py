"""What `fewlabel pretrain` tells the user before and after training."""

import shlex
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabel.backbones.backbone import Backbone
from fewlabel.backbones.cost import count_parameters
from fewlabel.console import as_typed, console, say, say_rows
from fewlabel.data.source import Source
from fewlabel.training.checkpoint import Checkpoint
from fewlabel.training.schedule import Plan

if TYPE_CHECKING:
    from accelerate import Accelerator

    from fewlabel.pipelines.pretrain import Config

__all__ = ["announce", "conclude"]


def announce(
    config: "Config",
    source: Source,
    stores: Mapping[str, Sized],
    backbone: Backbone,
    plan: Plan,
    accelerator: "Accelerator",
    directory: Path,
    checkpoint: Checkpoint | None,
) -> None:
    """Print what the run in `directory` derived from the options and the source."""
    training, classes = config.training, len(source.class_names or ())
    kind = "labels, of which an image may have several" if source.multi_label else "classes"
    sizes = ", ".join(f"{len(store):,} {split}" for split, store in stores.items())
    depth = f"{source.channels} channel{'s' * (source.channels > 1)} of {source.bits} bits"
    steps = f"{plan.total_steps:,} of {training.batch_size} images, {plan.steps_per_epoch:,} an epoch"
    rows = {
        "source": f"{source.name}: {sizes}; {classes or 'no'} {kind}; {depth}",
        "fingerprint": source.fingerprint[:16],
        "backbone": f"{backbone.name}{_scaled(backbone)}: {count_parameters(backbone):,} parameters, "
        f"{backbone.num_features} features",
        "views": f"{config.views.views} at {backbone.image_size} px",
        "steps": f"{steps}, {plan.warmup_steps:,} of warm-up",
        "device": f"{accelerator.num_processes} x {accelerator.device.type}, {training.precision}",
        "run": str(directory),
    }
    if config.resume is not None:
        rows["resumed"] = f"after step {checkpoint.step:,}" if checkpoint else "at the start: no checkpoint was written"
    say_rows(rows)


def _scaled(backbone: Backbone) -> str:
    parts = [(name, getattr(backbone.scale, name)) for name in ("depth", "width")]
    return "".join(f", {name} x {value:.3g}" for name, value in parts if value != 1)


def conclude(result: Mapping[str, Any], directory: Path, *, in_wandb: bool, labelled: bool) -> None:
    """Print the figures, where everything is and what to type next, which depends on whether there are labels."""
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
        say(f"No classes to judge by; of the representation itself: {figures}.")
    say(f"Encoder: {result['encoder']}")
    say(f"Run:     {directory}")
    if in_wandb:
        say(f"Curves:  {as_typed('wandb')} leet {shlex.quote(str(directory / 'wandb'))}")
    command = "runs"
    if labelled:
        command = f"label-curve --encoder {shlex.quote(str(directory))} --data {shlex.quote(result['source']['data'])}"
    say(f"Next:    {as_typed()} {command}")
