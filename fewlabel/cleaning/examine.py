"""The one pass over a collection: every image is opened, decoded and measured once."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from fewlabel.cleaning.collection import Collection, Fault
from fewlabel.cleaning.faults import damage, faults_beside, wrong_suffix
from fewlabel.cleaning.measures import MEASURES, measure
from fewlabel.console import track
from fewlabel.data.config import SourceConfig
from fewlabel.data.decode import DecodeError, Pixels
from fewlabel.data.frames import open_file, split_frame
from fewlabel.data.likeness import SIDE, perceptual_hash, signature, window_of
from fewlabel.data.loading import TooFewImages, divide_origin, read_origin
from fewlabel.data.origin import Origin, column, labels_of, paths_of
from fewlabel.data.parallel import ordered_map
from fewlabel.data.scan import Seen, available_cores, look, open_cell, read_cell
from fewlabel.data.source import Source
from fewlabel.data.window import AUTO

__all__ = ["examine"]

_CHUNK: Final = 32
_DIGEST: Final = 16
_HELD: Final = 2**26
"""Bytes of a file that is read at once."""
_NO_PICTURE: Final = np.zeros((SIDE, SIDE), np.float32)

Cell = dict[str, Any]


class _Image(NamedTuple):
    """What is kept of one image."""

    seen: Seen
    faults: tuple[Fault, ...] = ()
    size: int = 0
    """Size of its file."""
    pixels: bytes = b""
    """Hash of the decoded pixels."""
    values: Mapping[str, float] = MappingProxyType({})
    """By the names in `MEASURES` those that need pixels."""


class _Chunk(NamedTuple):
    """What is kept of a few images."""

    images: list[_Image]
    hashes: NDArray[np.uint64]
    signatures: NDArray[np.float32]


def examine(config: SourceConfig) -> Collection:
    """Look at every image that `config` names, in threads, however broken some are.

    Nothing is left out: --exclude and --max-bad-share don't count here. The images are divided into splits as `load`
    divides them; where it would refuse to, only those that the source itself divides are in one.

    Raises:
        UserError: there is nothing of that name, it holds no images, or --group-pattern does not fit.
    """
    origin = read_origin(config)
    workers, window = config.workers or available_cores(), config.window or AUTO
    chunks = {name: _look(part, workers, window, origin.name) for name, part in origin.parts.items()}
    images = {name: [image for chunk in found for image in chunk.images] for name, found in chunks.items()}
    looks = {name: [image.seen for image in found] for name, found in images.items()}
    try:
        source = divide_origin(origin, looks, config, least=1)
    except TooFewImages:
        source = None
    beside = [] if origin.found is None or origin.root is None else list(faults_beside(origin.root, origin.found))
    return _collect(origin, images, chunks, source, beside)


def _look(part: datasets.Dataset, workers: int, window: str, name: str) -> list[_Chunk]:
    undecoded = part.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))

    def chunks() -> Iterator[list[Cell | None]]:
        for start in range(0, len(undecoded), _CHUNK):
            yield undecoded[start : start + _CHUNK]["image"]

    found = ordered_map(lambda cells: _chunk(cells, window), chunks(), workers)
    # Threads of BLAS under our own get into each other's way: ten times slower.
    with threadpool_limits(1):
        return list(track(found, f"Examining {name}", total=-(-len(undecoded) // _CHUNK)))


def _chunk(cells: Sequence[Cell | None], window: str) -> _Chunk:
    images, pictures = zip(*(_image(cell, window) for cell in cells), strict=True)
    stacked = torch.from_numpy(np.stack(pictures))
    return _Chunk(list(images), perceptual_hash(stacked), signature(window_of(stacked)).numpy())


def _image(cell: Cell | None, window: str) -> tuple[_Image, NDArray[np.float32]]:
    """What is kept of an image, and the picture by which it is compared, black where there is none."""
    size, file = (0, None) if cell is None else _size_and_file(cell)
    if file is not None and size <= _HELD:
        cell = _held(cell)
    seen = _seen(cell)
    if cell is None or not seen.digest:
        return _Image(seen, (Fault("unreadable", seen.reason),)), _NO_PICTURE
    if seen.header is None:
        return _Image(seen, (_damage(cell, seen.reason),), size), _NO_PICTURE
    named = None if file is None else wrong_suffix(file, seen.header.format)
    faults = () if named is None else (named,)
    try:
        pixels = read_cell(cell, window=window)
        measured = measure(pixels)
    except Exception as error:
        # One broken file must not end the scan, whatever a decoder makes of it.
        reason = str(error) if isinstance(error, DecodeError) else f"{type(error).__name__}: {error}"
        return _Image(seen, (*faults, _damage(cell, reason)), size), _NO_PICTURE
    return _Image(seen, faults, size, _digest(pixels), measured.values), measured.picture


def _held(cell: Cell | None) -> Cell | None:
    """An image with its file's content, so that hash, header and pixels take one reading; one of several in a file and
    what can't be read stay as they are."""
    if cell is None or split_frame(cell["path"])[1] is not None:
        return cell
    try:
        with open_file(cell["path"]) as stream:
            return {**cell, "bytes": stream.read()}
    except OSError:
        return cell


def _seen(cell: Cell | None) -> Seen:
    try:
        return look(cell)
    except Exception as error:
        return Seen(b"", None, f"{type(error).__name__}: {error}")


def _size_and_file(cell: Cell) -> tuple[int, str | None]:
    """The encoded size of an image, 0 where there is none, and its file, None where it lies inside another."""
    if cell["bytes"] is not None or cell["path"] is None:
        return len(cell["bytes"] or b""), None
    file, _ = split_frame(cell["path"])
    try:
        return Path(file).stat().st_size, file
    except OSError:
        return 0, file


def _damage(cell: Cell, reason: str) -> Fault:
    try:
        with open_cell(cell) as (stream, _):
            return damage(stream, reason)
    except (DecodeError, OSError) as error:
        return Fault("unreadable", str(error))


def _digest(pixels: Pixels) -> bytes:
    # Half the time of BLAKE2b where the processor knows SHA-256, and pixels are many.
    digest = hashlib.sha256(repr((pixels.shape, pixels.dtype.str)).encode())
    digest.update(np.ascontiguousarray(pixels).reshape(-1).data)
    return digest.digest()[:_DIGEST]


def _collect(
    origin: Origin,
    images: Mapping[str, Sequence[_Image]],
    chunks: Mapping[str, Sequence[_Chunk]],
    source: Source | None,
    beside: Sequence[tuple[str, Fault]],
) -> Collection:
    rows = [image for found in images.values() for image in found]
    parts, count = origin.parts, len(rows) + len(beside)
    ids = [identity for part in parts.values() for identity in column(part, "id")]
    own = [
        "" if name not in ("train", "val", "test") else name for name, part in parts.items() for _ in range(len(part))
    ]
    split_of = {} if source is None else {id_: name for name, part in source.items() for id_ in column(part, "id")}
    groups = dict(zip(ids, (group for part in parts.values() for group in _groups(part)), strict=True))
    if source is not None:
        # --group-pattern may have made them anew.
        groups |= {
            id_: group for part in source.values() for id_, group in zip(column(part, "id"), _groups(part), strict=True)
        }
    places = [(name, row) for name, part in parts.items() for row in range(len(part))]
    hashes, signatures = np.zeros(count, np.uint64), np.zeros((count, 63), np.float32)
    done = [chunk for found in chunks.values() for chunk in found]
    if done:
        hashes[: len(rows)] = np.concatenate([chunk.hashes for chunk in done])
        signatures[: len(rows)] = np.concatenate([chunk.signatures for chunk in done])
    headers = [image.seen.header for image in rows]
    return Collection(
        name=origin.name,
        root=origin.root,
        ids=ids + [identity for identity, _ in beside],
        listed=np.arange(count) < len(rows),
        splits=[split_of.get(id_, split) for id_, split in zip(ids, own, strict=True)] + [""] * len(beside),
        paths=[path for part in parts.values() for path in paths_of(part)]
        + [None if origin.root is None else str(origin.root / identity) for identity, _ in beside],
        labels=[label for part in parts.values() for label in _labels(part)] + [None] * len(beside),
        groups=[groups[identity] for identity in ids] + [None] * len(beside),
        contents=[image.seen.digest.hex() for image in rows] + [""] * len(beside),
        pixels=[image.pixels for image in rows] + [b""] * len(beside),
        formats=["" if header is None else header.format for header in headers] + [""] * len(beside),
        modes=["" if header is None else header.mode for header in headers] + [""] * len(beside),
        measures=_measures(rows, count),
        hashes=hashes,
        signatures=signatures,
        faults=[image.faults for image in rows] + [(fault,) for _, fault in beside],
        source=source,
        _parts={
            name: part.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))
            for name, part in parts.items()
        },
        _places=[*places, *([None] * len(beside))],
    )


def _groups(part: datasets.Dataset) -> list[str | None]:
    return column(part, "group") if "group" in part.column_names else [None] * len(part)


def _labels(part: datasets.Dataset) -> list[tuple[str, ...] | None]:
    """The names of each image's labels."""
    labels = labels_of(part)
    if labels is None:
        return [None] * len(part)
    feature = part.features["label"]
    if labels.ndim == 1:
        return [(feature.names[label],) if label >= 0 else None for label in labels]
    return [
        tuple(name for name, value in zip(feature, row, strict=True) if value == 1) if max(row) >= 0 else None
        for row in labels.tolist()
    ]


def _measures(rows: Sequence[_Image], count: int) -> dict[str, NDArray[np.float32]]:
    columns = {name: np.full(count, np.nan, np.float32) for name in MEASURES}
    for row, image in enumerate(rows):
        if image.seen.digest:
            columns["bytes"][row] = image.size
        if (header := image.seen.header) is not None:
            shorter, longer = sorted((header.width, header.height))
            values = {
                "width": header.width,
                "height": header.height,
                "shorter_side": shorter,
                "size": math.sqrt(shorter * longer),
                "ratio": longer / max(shorter, 1),
                "channels": header.channels,
                "bits": header.bits,
            }
            for name, value in (values | dict(image.values)).items():
                columns[name][row] = value
    return columns
