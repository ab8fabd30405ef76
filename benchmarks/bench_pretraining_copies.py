"""What leaving out near duplicates before pretraining is worth: the probe's score with and without, on small images."""

import json
import tempfile
from pathlib import Path
from statistics import mean

import numpy as np

from benchmarks.commands import fewlabel
from benchmarks.dirty_folder import near_copy
from benchmarks.rows import Row
from fewlabel.data.config import SourceConfig
from fewlabel.data.loading import load
from fewlabel.errors import UserError

__all__ = ["run"]

DISTINCT = 1500
REPEATED, COPIES = 75, 20
"""As many of the distinct images have so many near copies each: half of all images show one of 75 pictures."""
LABELLED = 2000
"""Training images of the probe, and as many to test it on."""
LEARNING = (
    *("--backbone", "resnet18", "--backbone-option", "small_stem=false", "--image-size", "32"),
    *("--scale-width", "0.5", "--batch-size", "128"),
)
"""ImageNet's stem, so that two cores do it in minutes."""
SEED = 0


def run(data: Path, seeds: int = 3, steps: int = 300) -> list[Row]:
    """Pretrain with all images and with what `fewlabel clean` leaves, for equally many steps.

    Args:
        data: small colour images in two or more classes, with a training split of 3,500 and a test split of 2,000.
        seeds: pretrainings of each kind.
        steps: of each pretraining.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return [_measured(data, Path(scratch), seeds, steps)]


def _measured(data: Path, scratch: Path, seeds: int, steps: int) -> Row:
    folder, labelled = scratch / "images", scratch / "labelled"
    _write(data, folder, labelled)
    whole = ("--val-share", "0", "--test-share", "0")
    fewlabel(
        *("clean", "--data", str(folder), *whole, "--out", str(scratch / "cleaned")),
        *("--apply", "exclude", "--exclude-kinds", "near_duplicate", "exact_duplicate"),
    )
    accuracies: dict[str, list[float]] = {"none": [], f"{folder}.exclude.csv": []}
    trained_on = []
    for exclude, reached in accuracies.items():
        for seed in range(seeds):
            out = scratch / f"pretrained-{len(trained_on)}-{seed}"
            options = ("--data", str(folder), *whole, "--exclude", exclude, "--max-steps", str(steps))
            fewlabel("pretrain", *options, *LEARNING, "--seed", str(seed), "--out", str(out))
            probed = scratch / f"probed-{len(trained_on)}-{seed}"
            given = ("--encoder", str(out), "--data", str(labelled), "--labels", "1", "--draws", "1")
            result = fewlabel("probe", *given, "--out", str(probed))
            reached.append(result["metrics"]["accuracy"]["mean"])
        trained_on.append(json.loads((out / "result.json").read_text(encoding="utf-8"))["source"]["images"]["train"])
    every, rest = accuracies.values()
    return Row(
        name="accuracy of the probe after pretraining without near duplicates, beside with them",
        ours=mean(rest),
        peer=mean(every),
        ratio=mean(rest) / mean(every),
        unit="",
        target="as it comes",
        met=True,
        note=f"{trained_on[0]:,} images, of which {REPEATED * COPIES:,} are near copies of {REPEATED}; "
        f"{trained_on[1]:,} were left; {steps} steps each, mean of {seeds} seeds "
        f"({_spread(rest)} beside {_spread(every)}); {LABELLED:,} labelled images to "
        f"learn from and to choose by, {LABELLED:,} to test",
    )


def _spread(values: list[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _write(data: Path, folder: Path, labelled: Path) -> None:
    """The images to pretrain on, in one folder, and those of the probe."""
    source = load(SourceConfig(data=str(data), val_share=0))
    if source.class_names is None or len(source["train"]) < DISTINCT + LABELLED or len(source["test"]) < LABELLED:
        raise UserError(
            f"{data} is too small: give {DISTINCT + LABELLED:,} labelled training images and {LABELLED:,} test images."
        )
    generator = np.random.default_rng(SEED)
    drawn = {split: generator.permutation(len(source[split])).tolist() for split in ("train", "test")}
    folder.mkdir()
    for place, row in enumerate(drawn["train"][:DISTINCT]):
        image = source["train"][row]["image"].convert("RGB")
        image.save(folder / f"{place:05d}.png")
        for copy in range(COPIES if place < REPEATED else 0):
            content, suffix, _ = near_copy(image, generator)
            (folder / f"{place:05d}-{copy:02d}{suffix}").write_bytes(content)
    rows = {"train": drawn["train"][DISTINCT : DISTINCT + LABELLED], "test": drawn["test"][:LABELLED]}
    for split, chosen in rows.items():
        for row in chosen:
            cell = source[split][row]
            file = labelled / split / source.class_names[cell["label"]] / f"{row:05d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            cell["image"].save(file)
