"""Two SimCLR views on one core: Fewlabel's batched views and lightly's SimCLRTransform, side by side."""

import argparse
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.rows import Row, at_least
from benchmarks.sides import PEER_SETTINGS, Side, answers
from fewlabel.data.decode import decode
from fewlabel.data.resize import resize
from fewlabel.data.sizes import stored_side
from fewlabel.data.views import TwoViews
from fewlabel.errors import UserError

__all__ = ["run"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ROUNDS = 7
PHOTOS = 128
BATCH_SIZE = 64
SMALL_REPEATS = {"ours": 8, "peer": 1}
"""How often a turn makes views of all images at 32 px, so that turns of both sides last alike."""

LEAST_RATIO = {"small": 8.0, "large": 2.0}


def run(photos: Path) -> list[Row]:
    """Both comparisons on one thread; `photos` is a folder with JPEG files, best of about 400 px."""
    arguments = (str(photos.resolve()),)
    rates: dict[str, dict[str, list[float]]] = {size: {"ours": [], "peer": []} for size in LEAST_RATIO}
    with (
        Side("benchmarks.bench_views", "ours", *arguments) as ours,
        Side("benchmarks.bench_views", "peer", *arguments, settings=PEER_SETTINGS) as peer,
    ):
        for size, measured in rates.items():
            for _ in range(ROUNDS + 1):
                measured["ours"].append(ours.ask(size)["rate"])
                measured["peer"].append(peer.ask(size)["rate"])
        facts = ours.facts
    # The first round warms caches and allocators.
    medians = {size: [median(seen[1:]) for seen in measured.values()] for size, measured in rates.items()}
    note = "both in fp32 on one thread; "
    return [
        at_least(
            LEAST_RATIO["small"],
            "Two views at 32 px, decoded images",
            *medians["small"],
            "images/s",
            note=f"{note}batch {2 * PHOTOS}",
        ),
        at_least(
            LEAST_RATIO["large"],
            "Two views at 224 px, from JPEG files",
            *medians["large"],
            "images/s",
            note=f"{note}batch {BATCH_SIZE}; files of {facts['median_side']} px (median), ours stored at "
            f"{facts['stored_side']}",
        ),
    ]


def jpeg_files(photos: Path) -> list[bytes]:
    """The content of the first photos of a folder and its sub-folders."""
    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if len(files) < PHOTOS:
        raise UserError(f"{photos} holds {len(files)} JPEG files; --photos takes a folder with {PHOTOS} or more.")
    return [path.read_bytes() for path in files[:PHOTOS]]


Work = Callable[[], int]
"""Makes two views of some images; how many these were."""


def ours(encoded: list[bytes], small: list[Image.Image], side: int) -> dict[str, Work]:
    generator = torch.Generator().manual_seed(0)
    pixels = batch([np.asarray(picture) for picture in small])
    views_32, views_224 = (TwoViews("natural", size, MEAN, STD) for size in (32, 224))

    def small_views() -> int:
        for _ in range(SMALL_REPEATS["ours"]):
            views_32(pixels, torch.ones(len(pixels)), generator)
        return SMALL_REPEATS["ours"] * len(pixels)

    def large_views() -> int:
        for photos in batches(encoded):
            decoded = [decode(photo, side) for photo in photos]
            aspect = torch.tensor([image.shape[1] / image.shape[0] for image in decoded])
            views_224(batch([resize(image, side, side) for image in decoded]), aspect, generator)
        return len(encoded)

    return {"small": small_views, "large": large_views}


def peer(encoded: list[bytes], small: list[Image.Image], side: int) -> dict[str, Work]:
    """Lightly's, which takes images as they are; without blur at 32 px, as in the paper's CIFAR runs."""
    from lightly.transforms import SimCLRTransform

    transform_32 = SimCLRTransform(input_size=32, cj_strength=0.5, gaussian_blur=0.0)
    transform_224 = SimCLRTransform(input_size=224)

    def small_views() -> int:
        for _ in range(SMALL_REPEATS["peer"]):
            collate([transform_32(picture) for picture in small])
        return SMALL_REPEATS["peer"] * len(small)

    def large_views() -> int:
        for photos in batches(encoded):
            collate([transform_224(Image.open(io.BytesIO(photo)).convert("RGB")) for photo in photos])
        return len(encoded)

    return {"small": small_views, "large": large_views}


def batches(encoded: list[bytes]) -> list[list[bytes]]:
    return [encoded[start : start + BATCH_SIZE] for start in range(0, len(encoded), BATCH_SIZE)]


def batch(images: list[np.ndarray]) -> Tensor:
    """(B, C, S, S) in the memory format of the product's store."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def collate(pairs: list[list[Tensor]]) -> list[Tensor]:
    """Both views of all images, each in one tensor, as a data loader would."""
    return [torch.stack(views) for views in zip(*pairs, strict=True)]


def _serve(name: str, photos: Path) -> None:
    """For each line of standard input, which names a size, answer with the images a second of one turn."""
    answer = answers()
    torch.set_num_threads(1)
    encoded = jpeg_files(photos)
    median_side = int(median(min(Image.open(io.BytesIO(photo)).size) for photo in encoded))
    side = stored_side(224, median_side)
    small = [Image.open(io.BytesIO(photo)).convert("RGB").resize((32, 32)) for photo in encoded] * 2
    works = {"ours": ours, "peer": peer}[name](encoded, small, side)
    answer({"median_side": median_side, "stored_side": side})
    for line in sys.stdin:
        started = time.perf_counter()
        count = works[line.strip()]()
        answer({"rate": count / (time.perf_counter() - started)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=["ours", "peer"])
    parser.add_argument("photos", type=Path)
    options = parser.parse_args()
    _serve(options.side, options.photos)
