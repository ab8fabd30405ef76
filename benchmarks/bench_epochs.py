"""What ten epochs on small images are worth: `fewlabel pretrain` as it is by default, beside lightly's recipe.

Both sides train the same network on the same images for equally many epochs; then the same linear probe and kNN judge
both on the same test images, which nothing is chosen on.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.commands import fewlabel, finished
from benchmarks.rows import Row, at_least
from benchmarks.search_studies import Images, write_part
from fewlabel.errors import UserError
from fewlabel.files import read_json

__all__ = ["run"]

EPOCHS = 10
SEED = 0
NETWORK = ("--backbone", "resnet18", "--backbone-option", "small_stem=false", "--image-size", "32")
"""ImageNet's stem: two cores train it on all of CIFAR-10 in the time of a meal, with the small one in a day."""
HELD_OUT = 1000
"""Images to watch our training by; the peer's takes none."""


def run(data: Path, images: int, runs: Path) -> list[Row]:
    """Accuracy of both, and the seconds that their training took.

    Args:
        data: folder with CIFAR-10's train.parquet and test.parquet.
        images: training images of the pretraining.
        runs: where both trainings are kept; ours goes on where it was stopped, what is finished is not done again.

    Raises:
        UserError: `data` holds no such files.
    """
    if not all((data / f"{split}.parquet").exists() for split in ("train", "test")):
        raise UserError(f"{data} holds no train.parquet and test.parquet; give the folder of CIFAR-10's.")
    runs.mkdir(parents=True, exist_ok=True)
    part = write_part(data, runs, Images(images, HELD_OUT))
    ours, peer = runs / "ours", runs / "lightly"
    options = (*NETWORK, "--epochs", str(EPOCHS), "--seed", str(SEED), "--test-share", "0")
    trained = finished("pretrain", ours, "--data", str(part), *options)
    if not (peer / "seconds.json").exists():
        arguments = (str(part), str(peer / "encoder"), str(EPOCHS), str(SEED))
        peer.mkdir(exist_ok=True)
        subprocess.run([sys.executable, "-m", "benchmarks.epochs_lightly", *arguments], check=True)
    judged = {side: _judged(directory / "encoder", data) for side, directory in (("ours", ours), ("peer", peer))}
    what = f"{EPOCHS} epochs on {images:,} images of {data.name}, ResNet-18 with ImageNet's stem at 32 px, seed {SEED}"
    rows = []
    for method, title in (("probe", "linear probe"), ("knn", "kNN")):
        found, other = (_accuracy(judged[side], method) for side in ("ours", "peer"))
        rows.append(
            at_least(
                1.0,
                f"accuracy of the {title} on test images, {what}",
                100 * found["mean"],
                100 * other["mean"],
                "%",
                note=f"95 % intervals {_interval(found)} and {_interval(other)}; all labels of the training images",
            )
        )
    seconds = trained["seconds"], read_json(peer / "seconds.json")["seconds"]
    rows.append(
        at_least(
            1.0,
            f"time, {what}",
            *seconds,
            "s",
            lower_is_better=True,
            note="ours from the command to its end with decoding, checks and record; the peer's from decoded images on",
        )
    )
    return rows


def _judged(encoder: Path, data: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        given = ("--encoder", str(encoder), "--data", str(data), "--labels", "1", "--draws", "1")
        return fewlabel("probe", *given, "--out", f"{scratch}/probe")


def _accuracy(result: dict[str, Any], method: str) -> dict[str, float]:
    (found,) = (point["accuracy"] for point in result["metrics"]["curve"] if point["method"] == method)
    accuracy: dict[str, float] = found
    return accuracy


def _interval(score: dict[str, float]) -> str:
    return f"{100 * score['low']:.1f} to {100 * score['high']:.1f}"
