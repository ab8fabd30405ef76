"""One split of a source as squares of one size, from which batches are drawn."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import datasets
import numpy as np
import torch
from torch import Tensor

from fewlabel.console import track
from fewlabel.data.cache import CacheEntry, Record
from fewlabel.data.config import SourceConfig
from fewlabel.data.decode import Pixels
from fewlabel.data.loading import check_bad_share
from fewlabel.data.origin import BadImage, column, labels_of
from fewlabel.data.scan import available_cores
from fewlabel.data.source import Source
from fewlabel.data.squares import SquareReader
from fewlabel.errors import UserError

__all__ = ["ImageBatch", "ImageStore", "cache_folder", "mean_and_std", "open_split", "open_store"]

_MEMORY_LIMIT: Final = 64 * 2**20
"""Splits of fewer decoded bytes are held in memory; larger ones get a file."""

_DISK_SHARE: Final = 0.5
"""The share of the free disk that the file may take; squares that need more are decoded for each batch."""

_STATISTICS_SAMPLE: Final = 2000


class ImageBatch(NamedTuple):
    """Images of a store."""

    pixels: Tensor
    """(B, C, side, side) uint8 or uint16 in channels-last memory, on the CPU."""
    aspect: Tensor
    """(B,) float32: original width by height, to draw crops in the original's geometry."""
    index: Tensor  # type: ignore[assignment]  # shadows tuple.index, which nobody calls on a batch
    """(B,) int64: positions in the store."""


class ImageStore:
    """The decodable images of one split; made by `open_store`.

    `len(store)` images, at the positions 0 to len - 1 and in the order of their ids.
    """

    ids: list[str]
    labels: Tensor | None
    """(N,) int64 class numbers, -1 for an image without label; of several labels an image (N, K), 1 for yes, 0 for no
    and -1 for unknown; None where the source has no labels."""
    groups: list[str] | None
    """A group for each image, its id where it has none; None where the source has no groups."""
    aspect: Tensor
    """(N,) float32: original width by height."""
    channels: int
    bits: int
    side: int
    bad: list[BadImage]
    """Images whose header was readable and whose pixels were not."""

    def __init__(self, part: datasets.Dataset, reader: SquareReader, record: Record, squares: Pixels | None) -> None:
        rows = np.array(record.rows, dtype=np.int64)
        kept = part.select(rows)
        self.ids = column(kept, "id")
        labels = labels_of(kept)
        self.labels = None if labels is None else torch.from_numpy(labels)
        self.groups = None
        if "group" in part.column_names:
            groups = column(kept, "group")
            self.groups = [group or identity for group, identity in zip(groups, self.ids, strict=True)]
        self.aspect = torch.tensor(record.aspect, dtype=torch.float32)
        self.side, _, self.channels = reader.shape
        self.bits = 8 * reader.dtype.itemsize
        self.bad = [BadImage(*bad) for bad in record.bad]
        self._rows, self._reader, self._squares = rows, reader, squares

    def __len__(self) -> int:
        """Images in the store."""
        return len(self.ids)

    @property
    def labelled(self) -> Tensor:
        """(n,) int64: sorted positions of the images of which a label is known."""
        if self.labels is None:
            return torch.empty(0, dtype=torch.int64)
        known = self.labels >= 0
        return (known if known.ndim == 1 else known.any(dim=1)).nonzero().flatten()

    def places_of(self, indices: Tensor) -> Tensor:
        """Where `indices` (n,) int64, positions of labelled images, stand among `labelled`."""
        return torch.searchsorted(self.labelled, indices)

    def batch(self, indices: Tensor) -> ImageBatch:
        """The images at `indices` (B,) int64, in that order; safe to call from several threads.

        Raises:
            IndexError: an index is not in 0 to len - 1.
            UserError: an image that was readable when the store was opened no longer is.
        """
        if len(indices) and not (int(indices.min()) >= 0 and int(indices.max()) < len(self)):
            raise IndexError(f"indices must be within 0 to {len(self) - 1}")
        chosen = indices.numpy()
        squares = self._decode(chosen) if self._squares is None else self._squares[chosen]
        return ImageBatch(torch.from_numpy(squares).permute(0, 3, 1, 2), self.aspect[indices], indices)

    def _decode(self, chosen: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Pixels:
        squares: Pixels = np.empty((len(chosen), *self._reader.shape), self._reader.dtype)
        for place, square in enumerate(self._reader.read(self._rows[chosen].tolist())):
            if square.pixels is None:
                raise UserError(
                    f"{self.ids[chosen[place]]} was readable when this began and is not now: {square.reason}."
                )
            squares[place] = square.pixels
        return squares


def open_store(
    source: Source, split: str, side: int, *, cache_dir: Path, workers: int, max_bad_share: float
) -> ImageStore:
    """Decode the images of `split` once to squares of `side` pixels, or find them decoded.

    Splits of less than 64 MiB are held in memory; larger ones lie in a memory-mapped file in `cache_dir`,
    which runs on the same source share, and which is rebuilt if damaged. Where such a file would take more
    than half of the free disk, each batch is decoded by `workers` threads when it is asked for, after one
    pass that finds what can't be decoded.

    Raises:
        UserError: the source has no such split, more than `max_bad_share` of it can't be decoded, or the
        cache
            can't be written.
    """
    if split not in source:
        raise UserError(
            f"{source.name} has no split {split!r}, only {', '.join(source)}. Give it one, or a share "
            f"(--{split}-share) above 0."
        )
    part = source[split]
    reader = SquareReader(part, side, source.channels, source.bits, workers, source.window)
    check = _checker(part, max_bad_share, f"{source.name}, {split}")
    if reader.nbytes < _MEMORY_LIMIT:
        kept: list[Pixels] = []
        record = _decode(part, reader, split, kept.append)
        check(record)
        return ImageStore(part, reader, record, np.stack(kept))
    entry = CacheEntry(cache_dir, source.fingerprint, split, reader.shape, reader.dtype)
    with entry.locked():
        found = entry.read_record()
        squares = entry.read_squares(found) if found is not None else None
        if found is None or squares is None:
            entry.squares_path.unlink(missing_ok=True)
            on_disk = reader.nbytes <= _DISK_SHARE * shutil.disk_usage(cache_dir).free
            if on_disk:
                with entry.writing_squares() as writer:
                    found = _decode(part, reader, split, writer.append)
                    check(found)
                entry.write_record(found, writer.checksums)
                squares = entry.read_squares(found)
            elif found is None:
                found = _decode(part, reader, split, lambda square: None)
                entry.write_record(found)
    check(found)
    return ImageStore(part, reader, found, squares)


def open_split(source: Source, split: str, side: int, config: SourceConfig) -> ImageStore:
    """`open_store` as `config` says, with its defaults filled in."""
    return open_store(
        source,
        split,
        side,
        cache_dir=cache_folder(config),
        workers=config.workers or available_cores(),
        max_bad_share=config.max_bad_share,
    )


def cache_folder(config: SourceConfig) -> Path:
    """Where what is made of the source's images is kept for the next run."""
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return config.cache_dir or cache_home / "fewlabel"


def mean_and_std(store: ImageStore, seed: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, on a scale where black is 0 and white is 1.

    Taken over all pixels of at most 2,000 images drawn from `seed`. The deviation is at least one level of
    grey, so that a channel that never changes can be divided by it.
    """
    count = min(len(store), _STATISTICS_SAMPLE)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(store))[:count])
    white = 2**store.bits - 1
    total, squared, pixels = np.zeros(store.channels), np.zeros(store.channels), 0
    for indices in np.array_split(drawn, -(-count // 64)):
        values = store.batch(torch.from_numpy(indices)).pixels.numpy().astype(np.float64) / white
        total += values.sum(axis=(0, 2, 3))
        squared += np.square(values).sum(axis=(0, 2, 3))
        pixels += values.size // store.channels
    mean = total / pixels
    deviation = np.sqrt(np.maximum(squared / pixels - mean**2, white**-2.0))
    return tuple(mean.tolist()), tuple(deviation.tolist())


def _decode(part: datasets.Dataset, reader: SquareReader, split: str, keep: Callable[[Pixels], None]) -> Record:
    """Decode all rows, hand each square to `keep`, and note which there are."""
    ids: Sequence[str] = column(part, "id")
    record = Record([], [], [])
    squares = track(reader.read(range(len(part))), f"Decoding {split}", total=len(part))
    for row, square in enumerate(squares):
        if square.pixels is None:
            record.bad.append((ids[row], square.reason))
        else:
            record.rows.append(row)
            record.aspect.append(square.aspect)
            keep(square.pixels)
    return record


def _checker(part: datasets.Dataset, max_bad_share: float, name: str) -> Callable[[Record], None]:
    def check(record: Record) -> None:
        bad = [BadImage(*bad) for bad in record.bad]
        check_bad_share(bad, len(part), max_bad_share, name)
        if not record.rows:
            raise UserError(f"No image of {name} can be decoded; the first: {bad[0].id}: {bad[0].reason}.")

    return check
