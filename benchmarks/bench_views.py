"""Two SimCLR views on one core: Fewlabel's batched views and lightly's SimCLRTransform, side by side."""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightly.transforms import SimCLRTransform
from PIL import Image
from torch import Tensor

from fewlabel.data.decode import decode
from fewlabel.data.resize import resize
from fewlabel.data.views import TwoViews

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
REPEATS = 7
SIDE = 280
"""Side of the squares that 224 px views are made from: 1.25 times the view's."""


def interleaved(ours: Callable[[], int], peer: Callable[[], int]) -> tuple[float, float]:
    """Median images a second of both, in turns so that load slows both; a call returns its images."""
    rates: tuple[list[float], list[float]] = ([], [])
    for repeat in range(REPEATS + 1):
        for work, seen in zip((ours, peer), rates, strict=True):
            start = time.perf_counter()
            count = work()
            if repeat:  # the first round warms caches and allocators
                seen.append(count / (time.perf_counter() - start))
    return statistics.median(rates[0]), statistics.median(rates[1])


def jpeg_files(data: Path) -> list[bytes]:
    files = sorted(path for path in data.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if len(files) < 64:
        raise SystemExit(f"{data} holds {len(files)} JPEG files; give a folder with at least 64 of them in --data.")
    return [path.read_bytes() for path in files[:128]]


def small_images(encoded: list[bytes], count: int, side: int) -> list[Image.Image]:
    pictures = [Image.open(io.BytesIO(data)).convert("RGB").resize((side, side)) for data in encoded]
    return [pictures[i % len(pictures)] for i in range(count)]


def stack(pictures: list[Image.Image]) -> Tensor:
    return (
        torch.stack(
            [torch.frombuffer(bytearray(p.tobytes()), dtype=torch.uint8).view(p.height, p.width, 3) for p in pictures]
        )
        .permute(0, 3, 1, 2)
        .contiguous()
    )


def bench_small(encoded: list[bytes]) -> dict[str, Any]:
    """Views of 32 px from decoded images of 32 px, batch 256, without blur as in the paper's CIFAR runs."""
    pictures = small_images(encoded, 256, 32)
    pixels, aspect, generator = stack(pictures), torch.ones(256), torch.Generator().manual_seed(0)
    views = TwoViews("natural", 32, MEAN, STD)
    transform = SimCLRTransform(input_size=32, cj_strength=0.5, gaussian_blur=0.0)

    def ours() -> int:
        for _ in range(8):
            views(pixels, aspect, generator)
        return 8 * len(pixels)

    def peer() -> int:
        pairs = [transform(picture) for picture in pictures]
        for i in range(2):
            torch.stack([pair[i] for pair in pairs])
        return len(pictures)

    return row("two views at 32 px, decoded images", *interleaved(ours, peer))


def bench_large(encoded: list[bytes]) -> dict[str, Any]:
    """Views of 224 px from encoded JPEG files, batch 16, decoding included, at the settings of the paper."""
    generator = torch.Generator().manual_seed(0)
    views = TwoViews("natural", 224, MEAN, STD)
    transform = SimCLRTransform(input_size=224)
    batch = encoded[:64]

    def ours() -> int:
        for start in range(0, len(batch), 16):
            pairs = [decoded_square(data) for data in batch[start : start + 16]]
            pixels = torch.stack([square for square, _ in pairs])
            views(pixels, torch.tensor([aspect for _, aspect in pairs]), generator)
        return len(batch)

    def peer() -> int:
        for start in range(0, len(batch), 16):
            pairs = [transform(Image.open(io.BytesIO(data)).convert("RGB")) for data in batch[start : start + 16]]
            for i in range(2):
                torch.stack([pair[i] for pair in pairs])
        return len(batch)

    return row("two views at 224 px, from JPEG files", *interleaved(ours, peer))


def decoded_square(encoded: bytes) -> tuple[Tensor, float]:
    """A square (3, SIDE, SIDE) uint8 of an image file as the store makes it, and its width over height."""
    pixels = decode(encoded, SIDE)
    return resize(pixels, SIDE, SIDE), pixels.shape[1] / pixels.shape[0]


def row(name: str, ours: float, peer: float) -> dict[str, Any]:
    return {"name": name, "ours": ours, "peer": peer, "ratio": ours / peer, "unit": "images/s"}


def run(data: Path) -> list[dict[str, Any]]:
    """Both comparisons on one thread; `data` is a folder with JPEG files."""
    encoded = jpeg_files(Path(data))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [bench_small(encoded), bench_large(encoded)]
    finally:
        torch.set_num_threads(threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with at least 64 JPEG files, best about 400 px"
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args()
    rows = run(options.data)
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    for entry in rows:
        print(
            f"{entry['name']:40} ours {entry['ours']:9,.0f}  lightly {entry['peer']:8,.0f} {entry['unit']}"
            f"  ratio {entry['ratio']:.2f}"
        )


if __name__ == "__main__":
    main()
