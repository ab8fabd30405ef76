"""The searches that the search benchmark runs, as a user does: `fewlabel search` on a part of CIFAR-10."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as parquet

from benchmarks.commands import finished
from fewlabel.files import read_json, write_json

if TYPE_CHECKING:
    import optuna

__all__ = ["Images", "searched", "study_in", "timed", "trained_again", "write_part"]

SUBSET_SEED = 0
BATCH_SIZE = 64


@dataclass(frozen=True)
class Images:
    """How many of the source's images a part of the benchmark takes."""

    train: int
    val: int
    test: int = 0
    """Of the source's test images, which no search looks at."""


def write_part(data: Path, folder: Path, images: Images) -> Path:
    """A source of random training images of `data`, divided into training and validation, and of its test images.

    Args:
        data: folder with a train.parquet and, for test images, a test.parquet, such as CIFAR-10's.
        folder: where it is kept for the next run.
        images: how many; where no test images are wanted there is no such split.
    """
    part = folder / f"images-{images.train}-{images.val}{f'-{images.test}' if images.test else ''}"
    if not (part / "val.parquet").exists():
        part.mkdir(parents=True, exist_ok=True)
        if images.test:
            table = parquet.read_table(data / "test.parquet")
            chosen = np.random.default_rng(SUBSET_SEED).permutation(len(table))[: images.test]
            parquet.write_table(table.take(chosen), part / "test.parquet")
        table = parquet.read_table(data / "train.parquet")
        order = np.random.default_rng(SUBSET_SEED).permutation(len(table))
        parquet.write_table(table.take(order[: images.train]), part / "train.parquet")
        parquet.write_table(table.take(order[images.train : images.train + images.val]), part / "val.parquet")
    return part


def trained_again(run: Path, data: Path, out: Path, seed: int, *options: str) -> float:
    """The accuracy on test images of what the search in `run` ended with, trained once more with another seed.

    The best of many trials owes a part of its value to chance; this one was chosen by nothing.

    Args:
        run: of a finished search of kind "supervised" for which nothing was confirmed.
        data: a source with test images that has the search's training and validation images.
        out: run directory of the training, which goes on if it is there.
        seed: of weights, order and views.
        options: of `fewlabel finetune` beside those that `winner.json` has.
    """
    winner: dict[str, Any] = read_json(run / "winner.json")["config"]
    backbone, training = winner["backbone"], winner["training"]
    scale = {name: backbone[f"scale_{name}"] for name in ("depth", "width", "resolution")}
    given = [f"--scale-{name}={value!r}" for name, value in scale.items() if value is not None]
    given += [f"--backbone-option={option}" for option in backbone["backbone_option"]]
    given += [] if training["lr"] is None else [f"--lr={training['lr']!r}"]
    result = finished(
        "finetune",
        out,
        *("--encoder", "scratch", "--data", str(data), "--labels", "1.0", "--seed", str(seed)),
        *("--backbone", backbone["backbone"], "--image-size", str(backbone["image_size"]), *given),
        *("--views", winner["views"]["views"], "--batch-size", str(training["batch_size"])),
        *("--evaluate-steps", str(training["evaluate_steps"]), *options),
    )
    return float(result["metrics"]["accuracy"]["mean"])


def searched(out: Path, *options: str) -> Path:
    """The finished search in the run directory `out`: as it stands there, or after going on or beginning."""
    if not (out / "result.json").exists():
        _run("--resume", str(out)) if (out / "config.json").exists() else _run(*options, "--out", str(out))
    return out


def timed(out: Path, storage: str, *options: str, environment: Mapping[str, str] | None = None) -> float:
    """Seconds of a whole search with its study in `storage`; one that was broken off is begun anew."""
    record = out.parent / f"{out.name}.json"
    if not record.exists():
        shutil.rmtree(out, ignore_errors=True)
        # What was broken off is still in the storage.
        study = f"{out.name} {time.strftime('%Y-%m-%d %H:%M:%S')}"
        started = time.monotonic()
        _run(*options, "--out", str(out), "--storage", storage, "--study", study, environment=environment)
        write_json(record, {"seconds": time.monotonic() - started})
    return float(read_json(record)["seconds"])


def study_in(run: Path) -> "optuna.Study":
    """The study that a search keeps in its own run directory."""
    import optuna

    record: dict[str, Any] = read_json(run / "config.json")
    return optuna.load_study(study_name=record["config"]["study"]["study"], storage=f"sqlite:///{run / 'study.db'}")


def _run(*options: str, environment: Mapping[str, str] | None = None) -> None:
    # Nothing is confirmed at full length, so no test images are needed.
    common: Sequence[str] = ("--batch-size", str(BATCH_SIZE), "--confirm", "0", "--test-share", "0")
    if "--resume" in options:
        common = ()
    subprocess.run(
        [sys.executable, "-m", "fewlabel", "search", *common, *options],
        check=True,
        env={**os.environ, **(environment or {})},
    )
