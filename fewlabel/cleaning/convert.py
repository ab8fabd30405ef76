"""Cleaned copies of a collection's images in a folder of their own: one format, one mode, no longer than asked for."""

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import pyarrow
import pyarrow.csv
from PIL import Image

from fewlabel.cleaning.collection import Collection
from fewlabel.cleaning.config import ConvertConfig
from fewlabel.console import track
from fewlabel.data.colour import LUMA
from fewlabel.data.decode import DecodeError, Pixels
from fewlabel.data.frames import ending_of, split_frame
from fewlabel.data.origin import BadImage, column, labels_of
from fewlabel.data.parallel import ordered_map
from fewlabel.data.resize import resize
from fewlabel.data.scan import available_cores, read_cell
from fewlabel.data.source import Source
from fewlabel.data.window import AUTO
from fewlabel.errors import UserError
from fewlabel.files import atomic_path

__all__ = ["Copies", "check_destination", "convert"]

TABLE: Final = "images.csv"

_SUFFIXES: Final = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
_LOSSY: Final = {"JPEG": "jpeg", "MPO": "jpeg", "WEBP": "webp"}
"""Formats that "same" keeps, by Pillow's names."""

_QUALITY: Final = 95


@dataclass(frozen=True)
class Copies:
    """What was written."""

    table: Path
    """A row for each copy: path, id of the original, and as far as known split, group and labels."""
    written: int
    failed: list[BadImage]
    """Images that can no longer be read."""
    deep: int
    """Copies that are PNG, whatever was asked for, as they have 16 bits a channel."""


def check_destination(folder: Path, root: Path | None) -> None:
    """Refuse a folder that copies can't go to, before anything is looked at.

    Raises:
        UserError: it holds something, is a file, or lies in the source's folder `root`.
    """
    if root is not None and folder.resolve().is_relative_to(root.resolve()):
        raise UserError(f"--convert {folder} lies in the images' own folder {root}, where nothing is written.")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--convert {folder} is a file; give a folder that is new or empty.")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(
            f"--convert {folder} isn't empty. Give a folder that is new or empty; nothing is ever written over."
        )


def convert(
    collection: Collection, rows: Sequence[int], config: ConvertConfig, *, workers: int | None, window: str = AUTO
) -> Copies:
    """Write copies of the images in `rows` to `config.convert`, each where its id says, decoded as for training.

    What a decoded image no longer has is lost: EXIF and other metadata, transparency, all frames of an animation but
    the first. Images of a file that holds several become files of their own. Where two would get one name, as a.png
    and a.jpg may, the later one keeps its old ending before the new one.

    Raises:
        UserError: see `check_destination`; or the disk is full or can't be written.
    """
    folder = config.convert
    if folder is None:
        raise ValueError("no folder to convert to")
    check_destination(folder, collection.root)
    kinds = [_LOSSY.get(collection.formats[row], "png") for row in rows]
    if config.convert_format != "same":
        kinds = [config.convert_format] * len(rows)
    # Only a look at the pixels tells how many bits there are; the measures have it from there.
    deep = [kind != "png" and collection.measures["bits"][row] > 8 for row, kind in zip(rows, kinds, strict=True)]
    kinds = ["png" if is_deep else kind for kind, is_deep in zip(kinds, deep, strict=True)]
    names = _names([collection.ids[row] for row in rows], kinds)

    def write(work: tuple[int, str, str]) -> str | None:
        row, kind, name = work
        cell = collection.cell(row)
        assert cell is not None
        try:
            encoded = _encode(_changed(read_cell(cell, window=window), config), kind)
        except DecodeError as error:
            return str(error)
        try:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                file.write(encoded)
        except OSError as error:
            raise UserError(
                f"Could not write {target}: {error.strerror}. The copies before it are complete."
            ) from error
        return None

    reasons = ordered_map(write, zip(rows, kinds, names, strict=True), workers or available_cores())
    outcome = list(track(reasons, "Writing copies", total=len(rows)))
    done = {row: name for row, name, reason in zip(rows, names, outcome, strict=True) if reason is None}
    failed = [
        BadImage(collection.ids[row], reason) for row, reason in zip(rows, outcome, strict=True) if reason is not None
    ]
    return Copies(_write_table(collection, done, folder / TABLE), len(done), failed, sum(deep))


def _names(ids: Sequence[str], kinds: Sequence[str]) -> list[str]:
    """For each image the path of its copy; no two are the same, not even where capitals don't count."""
    wanted = [_candidates(identity, _SUFFIXES[kind]) for identity, kind in zip(ids, kinds, strict=True)]
    names = [next(candidates) for candidates in wanted]
    taken: set[str] = set()
    # Whose name needs no change keeps it.
    for place in sorted(range(len(ids)), key=lambda place: names[place] != ids[place]):
        while names[place].casefold() in taken:
            names[place] = next(wanted[place])
        taken.add(names[place].casefold())
    return names


def _candidates(identity: str, suffix: str) -> Iterator[str]:
    file, frame = split_frame(identity)
    # The ids of a table are paths as it has them, and may well lead up or begin at the root.
    path = PurePosixPath(*(part for part in PurePosixPath(file).parts if part not in ("/", "..", ".")))
    stem = path.name[: -len(ending_of(path.name)) or None] or "image"
    mark = "" if frame is None else f"-{frame:04d}"
    yield str(path.with_name(f"{stem}{mark}{suffix}")) if path.parts else f"{stem}{mark}{suffix}"
    number = 1
    while True:
        again = "" if number == 1 else f"-{number}"
        yield str(path.parent / f"{path.name or stem}{mark}{again}{suffix}")
        number += 1


def _changed(pixels: Pixels, config: ConvertConfig) -> Pixels:
    """(H, W, C) with the channels and no longer than `config` asks for."""
    height, width, channels = pixels.shape
    if config.longest_side is not None and max(height, width) > config.longest_side:
        scale = config.longest_side / max(height, width)
        pixels = resize(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
    if config.convert_mode == "grey" and channels == 3:
        pixels = (pixels @ np.array(LUMA)).round().clip(0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)[:, :, None]
    elif config.convert_mode == "rgb" and channels == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return pixels


def _encode(pixels: Pixels, kind: str) -> bytes:
    if pixels.dtype == np.uint16 and pixels.shape[2] == 3:
        return _deep_colour_png(pixels)
    image = Image.fromarray(np.ascontiguousarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]))
    stream = io.BytesIO()
    if kind == "png":
        image.save(stream, "PNG")
    elif kind == "jpeg":
        image.save(stream, "JPEG", quality=_QUALITY, subsampling=0)
    else:
        image.save(stream, "WEBP", quality=_QUALITY)
    return stream.getvalue()


def _deep_colour_png(pixels: Pixels) -> bytes:
    """A PNG of (H, W, 3) uint16, which Pillow doesn't write (ISO/IEC 15948: colour type 2, no filter, no interlace)."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 6 * width), np.uint8)
    rows[:, 1:] = np.ascontiguousarray(pixels).astype(">u2").view(np.uint8).reshape(height, -1)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.tobytes())),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def _write_table(collection: Collection, names: dict[int, str], path: Path) -> Path:
    """A table that is a source itself, and divided and labelled as the originals are."""
    place_of = {collection.ids[row]: name for row, name in names.items()}
    heads, rows = ["path", "id"], [(name, identity) for identity, name in place_of.items()]
    if collection.source is not None:
        heads += ["split", "group", *_label_heads(collection.source)]
        rows = [(place_of[row[0]], *row) for row in _known(collection.source) if row[0] in place_of]
    columns = {head: [row[place] for row in rows] for place, head in enumerate(heads)}
    if not any(columns.get("group", ())):
        columns.pop("group", None)
    with atomic_path(path) as temporary:
        pyarrow.csv.write_csv(pyarrow.table(columns), temporary)
    return path


def _label_heads(source: Source) -> list[str]:
    names = source.class_names
    return [] if names is None else names if source.multi_label else ["label"]


def _known(source: Source) -> Iterator[tuple[Any, ...]]:
    """Of each image id, split, group and its labels: the class, or 1, 0 or None for each of several."""
    names = source.class_names
    for split, part in source.items():
        ids, labels = column(part, "id"), labels_of(part)
        groups = column(part, "group") if "group" in part.column_names else [None] * len(ids)
        for row, identity in enumerate(ids):
            values: list[Any] = []
            if labels is not None and names is not None:
                numbers = [None if number < 0 else number for number in np.atleast_1d(labels[row]).tolist()]
                values = numbers if source.multi_label else [None if n is None else names[n] for n in numbers]
            yield identity, split, groups[row], *values
