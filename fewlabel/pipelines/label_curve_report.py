"""What `fewlabel label-curve` makes of its answers: figures, verdict, page and pictures."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from fewlabel import __version__
from fewlabel.console import as_typed, console
from fewlabel.pipelines.label_report import write_report
from fewlabel.pipelines.labelled import say
from fewlabel.supervised.few_labels import figures_of, gains_of, judge, penalties_of, resample, without
from fewlabel.supervised.methods import comparisons, main_method, method_name
from fewlabel.supervised.verdict import verdict

if TYPE_CHECKING:
    from fewlabel.backbones.encoder import Encoder
    from fewlabel.pipelines.label_curve import Config
    from fewlabel.supervised.few_labels import Part
    from fewlabel.supervised.label_curve import LabelCurve
    from fewlabel.supervised.leaks import Leak
    from fewlabel.tracking.run import Run

__all__ = ["conclude"]

METHODS = (
    *("finetune", "probe", "knn", "scratch", "probe_untrained", "knn_untrained"),
    *("finetune_imagenet", "probe_imagenet", "knn_imagenet"),
)


def conclude(
    config: "Config",
    encoder: "Encoder",
    curve: "LabelCurve",
    parts: "Mapping[str, Part]",
    leaks: "Sequence[Leak]",
    left_out: str | None,
    record: "Run",
) -> dict[str, Any]:
    """Judge the answers of `curve`, write the report, and end the run.

    Args:
        config: settled.
        encoder: that the run is about.
        curve: with every answer in it.
        parts: the labelled images of each split.
        leaks: images that stand in two splits.
        left_out: why ImageNet weights were not compared, if they were not.
        record: the run.

    Returns:
        The result.
    """
    amounts, seed = curve.amounts, curve.seed
    test, val = parts["test"], parts.get("val")
    answers = curve.found(METHODS)
    said = judge(answers, test, val, ordinal=config.few.ordinal)
    resampled = resample(said, test.groups, seed)
    gains = [row for better, worse in comparisons(said) for row in gains_of(resampled, better, worse, amounts)]
    metrics: dict[str, Any] = {
        "curve": figures_of(resampled, amounts),
        "gain": gains,
        "penalty": penalties_of(answers, amounts),
    }
    leaked = {image for leak in leaks for split, image in (leak.left, leak.right) if split == "test"}
    if leaked:
        fewer, clean = without(answers, leaked, test)
        judged = judge(fewer, clean, val, ordinal=config.few.ordinal)
        metrics["curve_without_leaks"] = figures_of(resample(judged, clean.groups, seed), amounts)
    groups = None if test.groups is None else len(set(test.groups))
    sentences = verdict(gains, test_images=len(test.ids), test_groups=groups)
    sentences += [left_out] if left_out is not None else []
    places = curve.stores["test"].labelled
    page, pictures = write_report(
        record.directory,
        title=f"Did pretraining pay? {encoder.config.name} on {curve.source.name}",
        about=_about(config, encoder, curve, record),
        verdict=sentences,
        metrics=metrics,
        curve=said,
        amounts=amounts,
        test_ids=test.ids,
        class_names=curve.class_names,
        leaks=leaks,
        thumbnails=lambda chosen: curve.stores["test"].batch(places[torch.tensor(chosen)]).pixels.numpy(),
    )
    for name, path in pictures.items():
        record.log_image(name, path, 0)
    figures = list(
        dict.fromkeys(name for row in metrics["curve"] for name, value in row.items() if _is_interval(value))
    )
    record.log_table(
        "label_curve",
        ["method", "labels", "draws", *(f"{name}{end}" for name in figures for end in ("", "_low", "_high"))],
        [
            [row["method"], row["labels"], row["draws"]]
            + [row[name][part] if name in row else None for name in figures for part in ("mean", "low", "high")]
            for row in metrics["curve"]
        ],
    )
    main = [row for row in metrics["curve"] if row["method"] == main_method(said)]
    most = max(main, key=lambda row: row["labels"])
    result = record.finish(
        {"accuracy": most["accuracy"], "auroc": most["auroc"], **metrics},
        backbone=encoder.config.name,
        encoder=str(config.encoder),
        verdict=sentences,
        report=str(page),
        leaks=[asdict(leak) for leak in leaks],
    )
    _tell(metrics["curve"], sentences)
    say(f"Report: {page}")
    say(f"Run:    {record.directory}")
    say(f"Next:   {as_typed()} finetune --encoder {shlex.quote(str(config.encoder))} --data {_quoted(config)}")
    return result


def _about(config: "Config", encoder: "Encoder", curve: "LabelCurve", record: "Run") -> dict[str, str]:
    """What was trained on what, and how to do it again."""
    made = encoder.config.provenance
    source = curve.source
    pretrained_on = made.get("source") or {}
    same = pretrained_on.get("fingerprint") == source.fingerprint
    git, packages = record.record["provenance"]["git"], record.record["provenance"]["packages"]
    sizes = ", ".join(
        f"{len(store):,} {split} ({len(store.labelled):,} labelled)" for split, store in curve.stores.items()
    )
    return {
        "Encoder": f"{encoder.config.name} at {encoder.image_size} px, {encoder.num_features} features, "
        f"{encoder.hash[:16]}",
        "Made by": str(made.get("run", config.encoder)),
        "Pretrained on": f"{pretrained_on.get('name', 'unknown')}, {'the same images' if same else 'other images'}; "
        "no label was used"
        if pretrained_on
        else "unknown",
        "Source": f"{source.name}, fingerprint {source.fingerprint[:16]}",
        "Images": sizes,
        "Draws and seed": f"{config.few.draws} draws of each amount, seed {curve.seed}; where all labels are one draw, "
        "networks are trained as often from other seeds",
        "Validation labels": "fine-tuning may stop by as large a share of them as of the training labels, or by none "
        "where these would be fewer than 20",
        "Versions": f"Fewlabel {__version__}, torch {packages.get('torch', '?')}, timm {packages.get('timm', '?')}"
        + (f", commit {git['commit'][:10]}{' with changes' if git['dirty'] else ''}" if git else ""),
        "To repeat it": f"fewlabel label-curve --config {record.directory / 'config.json'}",
        "To get the classifier": f"fewlabel finetune --encoder {config.encoder} --data {_quoted(config)}",
    }


def _tell(rows: Sequence[Mapping[str, Any]], sentences: Sequence[str]) -> None:
    from rich.table import Table

    table = Table("labelled", "draws", "method", "AUROC", "accuracy", box=None)
    for row in sorted(rows, key=lambda row: row["labels"]):
        figures = [_shown(row[name]) for name in ("auroc", "accuracy")]
        table.add_row(f"{row['labels']:,}", str(row["draws"]), method_name(row["method"]), *figures)
    console.print(table)
    for sentence in sentences:
        say(sentence)


def _shown(interval: Mapping[str, float]) -> str:
    return f"{interval['mean']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"


def _is_interval(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"mean", "low", "high"}


def _quoted(config: "Config") -> str:
    return shlex.quote(config.source.data)
