"""What `fewlabel label-curve` makes of its answers: figures, verdict, page and pictures."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from fewlabel import __version__
from fewlabel.console import as_typed, say, say_rows
from fewlabel.pipelines.label_report import write_report
from fewlabel.pipelines.labelled import LEARNED_FROM_LABELS, saw_labels, tell_curve
from fewlabel.supervised.few_labels import figures_of, gains_of, judge, penalties_of, resample, without
from fewlabel.supervised.leaks import leaked_images
from fewlabel.supervised.methods import comparisons, figures_in, main_method, method_name
from fewlabel.supervised.verdict import verdict

if TYPE_CHECKING:
    from fewlabel.backbones.encoder import Encoder
    from fewlabel.pipelines.label_curve import Config
    from fewlabel.supervised.few_labels import Part
    from fewlabel.supervised.label_curve import LabelCurve
    from fewlabel.supervised.leaks import Leak
    from fewlabel.tracking.run import Run

__all__ = ["announce", "conclude"]

METHODS = (
    *("finetune", "probe", "knn", "scratch", "probe_untrained", "knn_untrained"),
    *("finetune_imagenet", "probe_imagenet", "knn_imagenet"),
)


def announce(config: "Config", encoder: "Encoder", curve: "LabelCurve", device: str, directory: Path) -> None:
    """Print what the run in `directory` derived from the options and the source, and how much is still to do."""
    source, names = curve.source, curve.class_names
    sizes = ", ".join(
        f"{len(store):,} {split} ({len(store.labelled):,} labelled)" for split, store in curve.stores.items()
    )
    amounts = ", ".join(
        f"{median(len(subset.indices) for subset in draws):,.0f}" + (f" x {len(draws)} draws" if len(draws) > 1 else "")
        for draws in curve.amounts
    )
    # Whether ImageNet weights can be had shows later.
    trains = {"finetune": "finetune", "scratch": "scratch", "imagenet": "finetune_imagenet"}
    found = {trains[method]: curve.missing(trains[method]) for method in config.methods if method in trains}
    say_rows(
        {
            "source": f"{source.name}: {sizes}; {len(names)} {'labels' if source.multi_label else 'classes'}",
            "encoder": f"{encoder.config.name} at {encoder.image_size} px, {encoder.num_features} features",
            "labels": amounts,
            "methods": ", ".join(config.methods),
            "trainings": ", ".join(
                f"{count} x {method_name(method, in_sentence=True)}" for method, count in found.items()
            )
            + " still to do"
            if found
            else "none",
            "views": f"{config.views.views}, half as strong as in pretraining, not cropped",
            "device": f"{curve.accelerator.num_processes} x {device}, {config.training.precision}",
            "run": str(directory),
        }
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
    leaked = leaked_images(leaks, "test")
    if leaked:
        fewer, clean = without(answers, leaked, test)
        judged = judge(fewer, clean, val, ordinal=config.few.ordinal)
        metrics["curve_without_leaks"] = figures_of(resample(judged, clean.groups, seed), amounts)
    groups = None if test.groups is None else len(set(test.groups))
    sentences = verdict(gains, test_images=len(test.ids), test_groups=groups)
    sentences += [left_out] if left_out is not None else []
    sentences += [LEARNED_FROM_LABELS] if saw_labels(encoder) else []
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
    figures = figures_in(metrics["curve"])
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
    tell_curve(metrics["curve"])
    for sentence in sentences:
        say(sentence)
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
        + ("with labels" if saw_labels(encoder) else "no label was used")
        if pretrained_on
        else "unknown",
        "Source": f"{source.name}, fingerprint {source.fingerprint[:16]}",
        "Images": sizes,
        **({"Groups, kept together": source.groups_told} if source.groups_told is not None else {}),
        "Draws and seed": f"{config.few.draws} draws of each amount, seed {curve.seed}; where all labels are one draw, "
        "networks are trained as often from other seeds",
        "Validation labels": "fine-tuning may stop by as large a share of them as of the training labels, or by none "
        "where these would be fewer than 20",
        "Versions": f"Fewlabel {__version__}, torch {packages.get('torch', '?')}, timm {packages.get('timm', '?')}"
        + (f", commit {git['commit'][:10]}{' with changes' if git['dirty'] else ''}" if git else ""),
        "To repeat it": f"fewlabel label-curve --config {record.directory / 'config.json'}",
        "To get the classifier": f"fewlabel finetune --encoder {config.encoder} --data {_quoted(config)}",
    }


def _quoted(config: "Config") -> str:
    return shlex.quote(config.source.data)
