"""What `fewlabel finetune` tells the user before and after training."""

import shlex
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabel.console import as_typed, console, say, say_rows

if TYPE_CHECKING:
    from torch import Tensor

    from fewlabel.backbones.encoder import Encoder
    from fewlabel.data.source import Source
    from fewlabel.data.store import ImageStore
    from fewlabel.pipelines.finetune import Config
    from fewlabel.training.checkpoint import Checkpoint
    from fewlabel.training.schedule import Plan

__all__ = ["announce", "conclude"]


def announce(
    config: "Config",
    source: "Source",
    stores: "Mapping[str, ImageStore]",
    start: "Encoder",
    labelled: "Tensor",
    validation: Sized | None,
    plan: "Plan",
    directory: Path,
    checkpoint: "Checkpoint | None",
) -> None:
    """Print what the run in `directory` derived from the options and the source."""
    from fewlabel.supervised.finetuning import BATCH_NORM_FROM

    training, names = config.training, source.class_names or []
    labels = stores["train"].labels
    assert labels is not None
    chosen = labels[labelled]
    counts = (chosen == 1).sum(0).tolist() if chosen.ndim == 2 else chosen.bincount(minlength=len(names)).tolist()
    sizes = ", ".join(f"{len(store):,} {split}" for split, store in stores.items())
    batch = training.batch_size or 0
    frozen = start.trained and batch < BATCH_NORM_FROM
    judged = (
        f"{len(validation):,} labels of val: the weights with the least loss on them are kept; stops after "
        f"{training.patience} evaluations in which training made none better"
        if validation is not None
        else "no early stopping: too few labels in val; the whole schedule, then its averaged weights"
    )
    rows = {
        "source": f"{source.name}: {sizes}; {len(names)} {'labels' if source.multi_label else 'classes'}",
        "labels": f"{len(labelled):,} of {len(stores['train'].labelled):,} in train, draw {config.draw}: "
        + ", ".join(f"{count} {name}" for name, count in list(zip(names, counts, strict=True))[:10])
        + (" ..." if len(names) > 10 else ""),
        "validation": judged,
        "encoder": f"{config.encoder}: {start.config.name} at {start.image_size} px",
        "classifier": f"starts as {'the linear probe' if training.head == 'probe' else 'zero weights'}; layer decay "
        f"{training.layer_decay:g}{'; batch norms frozen' if frozen else ''}",
        "views": f"{config.views.views}, half as strong as in pretraining, not cropped",
        "steps": f"{plan.total_steps:,} of {batch} images, {plan.steps_per_epoch:,} an epoch, "
        f"{plan.warmup_steps:,} of warm-up, learning rate {training.lr:.2g}",
        "run": str(directory),
    }
    absent = [name for name, count in zip(names, counts, strict=True) if not count]
    if absent and not source.multi_label:
        rows["absent"] = f"no label of {', '.join(absent[:10])}: the classifier will never say so"
    if config.resume is not None:
        rows["resumed"] = f"after step {checkpoint.step:,}" if checkpoint else "at the start: no checkpoint was written"
    say_rows(rows)


def conclude(result: Mapping[str, Any], directory: Path, data: str) -> None:
    """Print the figures, where everything is and what to type next."""
    from rich.table import Table

    metrics = result["metrics"]
    _table(metrics, Table("on test", "fine-tuned", "linear probe", box=None))
    if "without_leaks" in metrics:
        say("Without the test images that stand elsewhere too:")
        clean = {row["figure"]: row for row in metrics["without_leaks"]}
        _table(clean, Table("on test", "fine-tuned", "linear probe", box=None))
    gain = metrics["gain_auroc"]
    verdict = (
        "Fine-tuning paid"
        if gain["low"] > 0
        else "Fine-tuning cost"
        if gain["high"] < 0
        else "Can't tell which is better"
    )
    say(
        f"{verdict}: the AUROC is {gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f}) from that of the "
        "linear probe on the features that it started from, with the same labels."
    )
    say(f"Classifier: {result['classifier']}")
    say(f"Run:        {directory}")
    command = f"{as_typed()} predict --classifier {shlex.quote(str(directory))} --data {shlex.quote(data)}"
    say(f"Next:       {command}")


def _table(metrics: Mapping[str, Any], table: Any) -> None:
    from fewlabel.tracking.report import shown

    for name, label in (
        ("auroc", "AUROC"),
        ("accuracy", "accuracy"),
        ("balanced_accuracy", "balanced accuracy"),
        ("exact_match", "exact match"),
        ("sensitivity", "sensitivity"),
        ("specificity", "specificity"),
        ("kappa_quadratic", "quadratic kappa"),
    ):
        if name in metrics:
            table.add_row(label, *(shown(metrics[f"{prefix}{name}"]) for prefix in ("", "probe_")))
    console.print(table)
