"""`python -m benchmarks.dirty_folder --photos FOLDER --out FOLDER`: a folder of real images with known faults in it.

Seeded crops of photos, in eight orientations, make as many images as wanted; 20 kinds of faults are planted in some
of them, and a table says which. Images that would draw a finding without any fault planted (a crop of a white wall)
are drawn again, so that the table is the whole truth.
"""

import argparse
import csv
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from fewlabel.errors import UserError

__all__ = ["COPIES", "GROUP_PATTERN", "KINDS", "Planted", "near_copy", "plant"]

GROUP_PATTERN: Final = r"photo(\d+)"
"""Finds in a file's name which photo it was cut from: images of one photo are one group."""

_SPLITS: Final = ("train",) * 7 + ("val",) + ("test",) * 2
_SIDES: Final = (0.5, 0.8)
"""Width and height of a crop, as shares of the photo's."""
_OVERLAP: Final = 0.35
"""Most of their union that two crops of one photo may share in one orientation, so that no two are near duplicates."""
_LONGEST: Final = 2.5
"""Most that a crop's longer side measures in shorter ones."""
_TRIES: Final = 20

Generator = np.random.Generator
Encoded = tuple[bytes, str, str]
"""A file's content, its suffix, and what was done in few words."""


@dataclass(frozen=True)
class Planted:
    """An image with a fault."""

    id: str
    """Its path in the folder."""
    kind: str
    how: str
    """What was done to it."""
    original: str
    """Of a copy, the id of the image that it was copied from; else empty."""


@dataclass(frozen=True)
class _Base:
    """A crop, and where it belongs."""

    pixels: Image.Image
    split: str
    label: str
    photo: int
    number: int

    def path(self, suffix: str, *, split: str = "", label: str = "", photo: int | None = None, extra: str = "") -> str:
        name = f"photo{self.photo if photo is None else photo:04d}-{self.number:05d}{extra}{suffix}"
        return f"{split or self.split}/{label or self.label}/{name}"


def _save(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _jpeg(image: Image.Image) -> bytes:
    return _save(image, "JPEG", quality=90)


def _levels(image: Image.Image, change: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]) -> Image.Image:
    """The image with its levels, in [0, 1], changed."""
    changed = change(np.asarray(image, dtype=np.float32) / 255)
    return Image.fromarray((255 * changed.clip(0, 1)).round().astype(np.uint8))


def _undecodable(image: Image.Image, generator: Generator) -> Encoded:
    return generator.bytes(len(_jpeg(image))), ".jpg", "random bytes"


def _truncated(image: Image.Image, generator: Generator) -> Encoded:
    content = _jpeg(image)
    share = generator.uniform(0.2, 0.9)
    return content[: int(share * len(content))], ".jpg", f"the first {share:.0%}"


def _empty(image: Image.Image, generator: Generator) -> Encoded:
    return b"", ".jpg", "no bytes"


def _wrong_suffix(image: Image.Image, generator: Generator) -> Encoded:
    return [
        (_save(image, "PNG"), ".jpg", "PNG as .jpg"),
        (_jpeg(image), ".png", "JPEG as .png"),
        (_save(image, "WEBP", quality=90), ".jpg", "WebP as .jpg"),
    ][generator.integers(3)]


def _too_small(image: Image.Image, generator: Generator) -> Encoded:
    side = int(generator.integers(12, 29))
    return _jpeg(image.resize((side, side))), ".jpg", f"{side} px"


def _odd_size(image: Image.Image, generator: Generator) -> Encoded:
    factor = generator.uniform(4, 6)
    large = image.resize((round(factor * image.width), round(factor * image.height)), Image.Resampling.LANCZOS)
    return _jpeg(large), ".jpg", f"{factor:.1f} times as large"


def _odd_aspect(image: Image.Image, generator: Generator) -> Encoded:
    aspect = generator.uniform(4, 7)
    width, height = image.size
    if generator.random() < 0.5:
        strip = image.crop((0, 0, width, round(width / aspect)))
    else:
        strip = image.crop((0, 0, round(height / aspect), height))
    return _jpeg(strip), ".jpg", f"1 to {aspect:.1f}"


def _blurred(image: Image.Image, generator: Generator) -> Encoded:
    share = generator.uniform(0.015, 0.06)
    blurred = image.filter(ImageFilter.GaussianBlur(share * max(image.size)))
    return _jpeg(blurred), ".jpg", f"Gaussian, sigma {share:.1%} of the longer side"


def _dark(image: Image.Image, generator: Generator) -> Encoded:
    factor = generator.uniform(0.04, 0.25)
    return _jpeg(_levels(image, lambda levels: factor * levels)), ".jpg", f"levels times {factor:.2f}"


def _bright(image: Image.Image, generator: Generator) -> Encoded:
    factor = generator.uniform(0.01, 0.05)
    return _jpeg(_levels(image, lambda levels: 1 - factor * (1 - levels))), ".jpg", f"the uppermost {factor:.1%}"


def _low_contrast(image: Image.Image, generator: Generator) -> Encoded:
    factor, middle = generator.uniform(0.03, 0.1), generator.uniform(0.35, 0.65)
    changed = _levels(image, lambda levels: middle + factor * (levels - levels.mean()))
    return _jpeg(changed), ".jpg", f"contrast times {factor:.2f}"


def _uniform(image: Image.Image, generator: Generator) -> Encoded:
    colour = generator.integers(30, 226, 3)
    noisy = colour + generator.integers(-1, 2, (image.height, image.width, 1))
    return _jpeg(Image.fromarray(noisy.astype(np.uint8))), ".jpg", "one colour"


def _odd_mode(image: Image.Image, generator: Generator) -> Encoded:
    mode = ("L", "CMYK", "RGBA")[generator.integers(3)]
    converted = image.convert(mode)
    if mode == "RGBA":
        return _save(converted, "PNG"), ".png", mode
    return _jpeg(converted), ".jpg", mode


def _odd_depth(image: Image.Image, generator: Generator) -> Encoded:
    levels = np.asarray(image.convert("L"), dtype=np.uint16) * 257
    levels ^= generator.integers(0, 256, levels.shape, dtype=np.uint16)
    return _save(Image.fromarray(levels), "PNG"), ".png", "16 bits"


def near_copy(image: Image.Image, generator: Generator) -> Encoded:
    """The same picture encoded anew, resized, brightened, or without a narrow border."""
    width, height = image.size
    edge = round(0.02 * max(width, height))
    factor = generator.uniform(0.6, 0.9)
    return [
        (_save(image, "JPEG", quality=40), ".jpg", "quality 40"),
        (_jpeg(image.resize((round(factor * width), round(factor * height)))), ".jpg", "resized"),
        (_jpeg(_levels(image, lambda levels: 1.15 * levels)), ".jpg", "brightened"),
        (_jpeg(image.crop((edge, edge, width - edge, height - edge))), ".jpg", "cropped by 2 %"),
    ][generator.integers(4)]


_FAULTS: Final[dict[str, Callable[[Image.Image, Generator], Encoded]]] = {
    "undecodable": _undecodable,
    "truncated": _truncated,
    "empty": _empty,
    "wrong_suffix": _wrong_suffix,
    "too_small": _too_small,
    "odd_size": _odd_size,
    "odd_aspect": _odd_aspect,
    "blurred": _blurred,
    "dark": _dark,
    "bright": _bright,
    "low_contrast": _low_contrast,
    "uniform": _uniform,
    "odd_mode": _odd_mode,
    "odd_depth": _odd_depth,
}

COPIES: Final = ("same_content", "same_pixels", "near_duplicate", "label_conflict", "across_splits", "across_groups")
"""Kinds that are planted as a copy of an image that stays."""

KINDS: Final = (*_FAULTS, *COPIES)


def plant(photos: Path, folder: Path, count: int = 5000, each: int = 40, seed: int = 0) -> list[Planted]:
    """Write `count` images into `folder` as <split>/<class>/photo<number>-<number><suffix>.

    Every photo's crops are in one split. A copy of the kinds that end so is byte for byte the same ("label_conflict",
    "across_groups"), or a near copy ("across_splits"); the others lie beside their original.

    Args:
        photos: a folder of photos of about 400 px, each class in a sub-folder.
        folder: does not exist yet.
        count: images, with the faulty ones.
        each: images of each kind of fault.
        seed: of everything.

    Returns:
        The faults, by kind.

    Raises:
        UserError: there are too few photos for so many images.
    """
    crops = _crops(photos, seed)
    generator = np.random.default_rng([seed, 1])
    labels = sorted({path.parent.name for path in photos.glob("*/*")})
    bases = []
    for _ in range(count - each * len(COPIES)):
        base = next(crops, None)
        if base is None:
            raise UserError(
                f"{photos} has too few photos for {count:,} images: {len(bases):,} crops were found. Give more photos, "
                "or ask for fewer images."
            )
        bases.append(base)
    order = iter(generator.permutation(len(bases)))
    planted = []

    def write(path: str, content: bytes) -> str:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as stream:
            stream.write(content)
        return path

    for kind, spoil in _FAULTS.items():
        for _ in range(each):
            base = bases[next(order)]
            content, suffix, how = spoil(base.pixels, generator)
            planted.append(Planted(write(base.path(suffix), content), kind, how, ""))
    rest = [bases[place] for place in order]
    for base in rest:
        write(base.path(".jpg"), _jpeg(base.pixels))
    for place, base in enumerate(rest[: each * len(COPIES)]):
        kind = COPIES[place // each]
        path, content, how = _copy(base, kind, labels, generator)
        planted.append(Planted(write(path, content), kind, how, base.path(".jpg")))
    return planted


def _copy(base: _Base, kind: str, labels: Sequence[str], generator: Generator) -> tuple[str, bytes, str]:
    """Path and content of a copy, and how it was made."""
    content = _jpeg(base.pixels)
    decoded = Image.open(io.BytesIO(content))
    if kind == "same_pixels":
        return base.path(".png", extra="-same"), _save(decoded, "PNG"), "PNG of the same pixels"
    if kind == "label_conflict":
        others = [label for label in labels if label != base.label]
        return base.path(".jpg", label=others[generator.integers(len(others))]), content, "another class"
    if kind == "across_groups":
        return base.path(".jpg", photo=9000 + int(generator.integers(1000))), content, "another photo's name"
    if kind == "same_content":
        return base.path(".jpg", extra="-copy"), content, "copied file"
    content, suffix, how = near_copy(decoded, generator)
    if kind == "across_splits":
        others = [split for split in dict.fromkeys(_SPLITS) if split != base.split]
        return base.path(suffix, split=others[generator.integers(len(others))], extra="-near"), content, how
    return base.path(suffix, extra="-near"), content, how


def _crops(photos: Path, seed: int) -> Iterator[_Base]:
    """Crops of one photo after the other, in one orientation after the other, until no new ones fit."""
    paths = sorted(photos.glob("*/*"))
    splits = [_SPLITS[place] for place in np.random.default_rng([seed, 0]).integers(len(_SPLITS), size=len(paths))]
    taken: dict[tuple[int, int], list[tuple[int, int, int, int]]] = {}
    number = 0
    # A third crop in the same orientation hardly ever fits.
    for turn in range(3 * len(Image.Transpose) + 3):
        orientation = turn % (len(Image.Transpose) + 1)
        for photo, path in enumerate(paths):
            generator = np.random.default_rng([seed, 2, turn, photo])
            with Image.open(path) as opened:
                image = opened.convert("RGB")
            for _ in range(_TRIES):
                box = _box(image.size, generator)
                crop = image.crop(box)
                earlier = taken.setdefault((photo, orientation), [])
                if all(_overlap(box, other) <= _OVERLAP for other in earlier) and _beyond_doubt(crop):
                    earlier.append(box)
                    turned = crop.transpose(Image.Transpose(orientation - 1)) if orientation else crop
                    yield _Base(turned, splits[photo], path.parent.name, photo, number)
                    number += 1
                    break


def _box(size: tuple[int, int], generator: Generator) -> tuple[int, int, int, int]:
    width, height = (round(side * share) for side, share in zip(size, generator.uniform(*_SIDES, 2), strict=True))
    left, top = int(generator.integers(size[0] - width + 1)), int(generator.integers(size[1] - height + 1))
    return left, top, left + width, top + height


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """Intersection over union."""
    width, height = (min(one[axis + 2], other[axis + 2]) - max(one[axis], other[axis]) for axis in (0, 1))
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def _beyond_doubt(image: Image.Image) -> bool:
    """Whether nobody would call it long, dark, bright, of low contrast or blurred."""
    if max(image.size) > _LONGEST * min(image.size):
        return False
    grey = np.asarray(image.convert("L"), dtype=np.float32) / 255
    low, high = np.percentile(grey, [5, 95])
    laplacian = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    return bool(high - low >= 0.3 and high >= 0.5 and low <= 0.6 and laplacian.std() >= 0.02)


def main() -> int:
    """Write the folder and its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dirty_folder", description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="photos of about 400 px, each class in a folder")
    parser.add_argument("--out", type=Path, required=True, help="new folder; the table is written beside it, as .csv")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--each", type=int, default=40, help="images of each kind of fault")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    planted = plant(options.photos, options.out, options.images, options.each, options.seed)
    with options.out.with_name(f"{options.out.name}.truth.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow([field.name for field in fields(Planted)])
        table.writerows(map(astuple, planted))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(str(error))
