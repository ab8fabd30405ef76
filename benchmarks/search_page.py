"""The page of the search benchmark: results/search.md from results/search.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from fewlabel.files import atomic_write_text

__all__ = ["page", "write"]

PAPER = {"depth": 1.2, "width": 1.1, "resolution": 1.15}
"""Tan and Le 2019, arXiv:1905.11946, section 3.3: alpha, beta and gamma found on ImageNet at 224 px."""
DIMENSIONS = tuple(PAPER)


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Write the page of `record`, what results/search.json holds."""
    atomic_write_text(path, page(record))


def page(record: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    machine, found = record["machine"], record["found"]
    lines = [
        "# What the scaling search finds, and what it costs",
        "",
        "On a random part of CIFAR-10 (32 px). Accuracy is that on validation images after training from scratch on",
        "the labels for a few epochs, with its 95 % interval: what it ranks is short training on few images, and",
        "longer training may rank otherwise. `python -m benchmarks.bench_search --data CIFAR10 --out RUNS` measures it",
        "again.",
        "",
        f"- {machine['cpu']}, {machine['cores']} cores, {record['date']}; load average before "
        f"{record['load_average_before']}",
    ]
    if "coefficients" in found:
        lines += _coefficients(found)
    if "pruning" in found:
        lines += _pruning(found)
    if "workers" in found:
        lines += _workers(found)
    return "\n".join(lines) + "\n"


def _coefficients(found: Mapping[str, Any]) -> list[str]:
    size = found["settings"]["coefficients"]
    lines = [
        "",
        "## Which dimension to buy at about twice the cost",
        "",
        f"{size['images']:,} training images, {size['validation']:,} validation images. Image sizes come "
        "in steps of 8 px and widths in steps of 8 channels, so the cost is as near to twice as they allow. "
        f"Seconds are those with {_threads(size)}.",
    ]
    for one in found["coefficients"]:
        trained = [row for row in one["trainings"] if row["accuracy"]]
        grid = [row for row in trained if row["slot"].startswith("grid/")]
        together = max(grid, key=lambda row: row["accuracy"]["mean"], default=None)
        lines += [
            "",
            f"### {one['network']}: {one['epochs']} epochs, seed {one['seed']}",
            "",
            "| alpha (depth), beta (width), gamma (resolution) | |",
            "|---|---|",
            f"| found | {_triple(one['chosen'])} |",
            f"| the paper's, on ImageNet | {_triple(PAPER)} |",
            "",
            "| scaled | depth, width, resolution | image | operations | accuracy | seconds |",
            "|---|---|---|---|---|---|",
            *(_training(row, together) for row in trained),
            "",
            *(f"- {sentence}" for sentence in one["verdict"]),
        ]
    return lines


def _threads(settings: Mapping[str, Any]) -> str:
    return "one thread" if settings["threads"] == 1 else f"{settings['threads']} threads"


def _triple(scale: Mapping[str, float] | None) -> str:
    return "none" if scale is None else ", ".join(f"{scale[name]:.2f}" for name in DIMENSIONS)


def _training(row: Mapping[str, Any], together: Mapping[str, Any] | None) -> str:
    value = row["accuracy"]
    name = f"{row['slot'].partition('/')[0]}{' alone' if row['slot'] in DIMENSIONS else ''}"
    best = " (the best of them)" if row is together else ""
    return (
        f"| {name.replace('grid', 'together')}{best} | {_triple(row['scale'])} | {row['image_size']} px | "
        f"{row['ratio']:.2f}x | {value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f}) | "
        f"{row['seconds']:.0f} |"
    )


def _pruning(found: Mapping[str, Any]) -> list[str]:
    size = found["settings"]["pruning"]
    lines = [
        "",
        "## What early stopping saves",
        "",
        f"{size['trials']} trials of a small ResNet, {size['small_images']:,} images and {size['small_epochs']} epochs "
        f"each, {size['small_validation']:,} validation images; depth, width, resolution and learning rate chosen by "
        "the sampler; the same seed with successive halving and without. The target is the lower of the two best "
        "accuracies, of a trial trained to its end. "
        f"Seconds are those with {_threads(size)}.",
        "",
        "| seed | pruner | trials trained, to their end | best | to the target: PFLOP | seconds | in all: PFLOP | "
        "seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found["pruning"]:
        for pruner in ("none", "halving"):
            row = one[pruner]
            spent = " | ".join(
                f"{row[part]['petaflop']:.4g} | {row[part]['seconds']:.0f}" for part in ("to_target", "total")
            )
            lines.append(
                f"| {one['seed']} | {pruner} | {row['trained']}, {row['completed']} | {row['best']:.3f} | {spent} |"
            )
    shares = [
        100
        * sum(one["halving"][part]["petaflop"] for one in found["pruning"])
        / sum(one["none"][part]["petaflop"] for one in found["pruning"])
        for part in ("to_target", "total")
    ]
    lines += ["", f"All seeds together: {shares[0]:.0f} % of the compute to the target, {shares[1]:.0f} % in all."]
    for one in found["pruning"]:
        none, halving = one["none"], one["halving"]
        whole, first = (halving[part]["petaflop"] / none[part]["petaflop"] for part in ("total", "to_target"))
        replay = one["replayed"]
        lines += [
            "",
            f"Seed {one['seed']}: {100 * whole:.0f} % of the compute. What the two searches ended with, trained again "
            f"from {len(none['again'])} other seeds and judged on test images: {_spread(halving['again'])} with "
            f"halving and {_spread(none['again'])} without. Up to the first trial with accuracy {one['target']:.3f}: "
            f"{100 * first:.0f} %. Replayed on the same curves in {replay['orders']:,} random orders, halving takes "
            f"{100 * replay['share']:.0f} % of the compute (median), {100 * replay['to_target']:.0f} % up to the same "
            f"best value, and keeps the best trial in {100 * replay['best_found']:.0f} % of them; what it keeps is "
            f"{100 * replay['shortfall']:.1f} points lower on average.",
        ]
    return [*lines, *_foretold(found["pruning"])]


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _foretold(found: Sequence[Mapping[str, Any]]) -> list[str]:
    seeds = [one["seed"] for one in found]
    lines = [
        "",
        "What the accuracy on the way tells of that at the end, without early stopping: Spearman's rank correlation of "
        "all trials, and of the better half of them. Trials stop after two ninths and after two thirds.",
        "",
        f"| of the way |{''.join(f' seed {seed}: all | better half |' for seed in seeds)}",
        f"|---|{'---|---|' * len(found)}",
    ]
    for place, share in enumerate(point["share"] for point in found[0]["foretold"][:-1]):
        points = [one["foretold"][place] for one in found]
        figures = " | ".join(f"{point['all']:.2f} | {point['better_half']:.2f}" for point in points)
        lines.append(f"| {100 * share:.0f} % | {figures} |")
    return lines


def _workers(found: Mapping[str, Any]) -> list[str]:
    size, one = found["settings"]["workers"], found["workers"]
    return [
        "",
        "## Two workers on PostgreSQL",
        "",
        f"{size['shared_trials']} trials of one cost, from the start of the command to its end.",
        "",
        "| workers | cores for each trial | seconds | of one worker's |",
        "|---|---|---|---|",
        f"| 1 | all | {one['one']:.0f} | 100 % |",
        f"| 2 | half | {one['two']:.0f} | {100 * one['two'] / one['one']:.0f} % |",
        f"| 1 | one | {one['one_thread']:.0f} | {100 * one['one_thread'] / one['one']:.0f} % |",
    ]
