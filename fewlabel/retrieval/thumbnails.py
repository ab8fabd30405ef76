"""Small pictures of an index's images, kept in it: they are there when the images have moved."""

import io
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from fewlabel.data.decode import DecodeError, Pixels
from fewlabel.data.parallel import ordered_map
from fewlabel.data.window import AUTO
from fewlabel.errors import UserError

if TYPE_CHECKING:
    import datasets

__all__ = ["SIDE", "Thumbnails", "thumbnail_of", "thumbnails_of", "write_thumbnails"]

SIDE: Final = 128
"""Longest side in pixels; smaller images keep their size."""

_PNG_SIDE: Final = 64
"""Up to this longest side a picture is kept without loss."""

_ROWS: Final = 64
"""Of a row group: what is read to give out one picture."""

_CHUNK: Final = 64
_SCHEMA: Final = pyarrow.schema([("key", pyarrow.int64()), ("thumbnail", pyarrow.binary())])


def thumbnail_of(pixels: Pixels, side: int = SIDE) -> bytes:
    """`pixels` (H, W, 1 or 3) uint8 or uint16 as a PNG or JPEG of 8 bits whose longest side is at most `side`.

    Of 16 bits, the range between the 0.5th and the 99.5th percentile is shown: scanners rarely use it all.
    """
    from fewlabel.data.resize import resize

    height, width, channels = pixels.shape
    scale = min(1.0, side / max(height, width))
    small = resize(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
    if small.dtype == np.uint16:
        low, high = np.percentile(small, (0.5, 99.5))
        small = (np.clip((small - low) / max(high - low, 1.0), 0, 1) * 255).round().astype(np.uint8)
    stream = io.BytesIO()
    picture = Image.fromarray(small[:, :, 0] if channels == 1 else small)
    picture.save(stream, "PNG" if max(small.shape[:2]) <= _PNG_SIDE else "JPEG", quality=85)
    return stream.getvalue()


def thumbnails_of(part: "datasets.Dataset", rows: Sequence[int], workers: int, window: str = AUTO) -> Iterator[bytes]:
    """The thumbnails of `rows` of a source's split, in order, made by `workers` threads; `window` is the source's.

    Raises:
        UserError: an image can't be decoded.
    """
    import datasets

    from fewlabel.data.scan import read_cell

    undecoded = part.select_columns(["image", "id"]).cast_column("image", datasets.Image(decode=False))

    def cells() -> Iterator[tuple[str, dict[str, Any]]]:
        for start in range(0, len(rows), _CHUNK):
            chunk = undecoded[rows[start : start + _CHUNK]]
            yield from zip(chunk["id"], chunk["image"], strict=True)

    def make(cell: tuple[str, dict[str, Any]]) -> bytes:
        identity, image = cell
        try:
            return thumbnail_of(read_cell(image, SIDE, window))
        except DecodeError as error:
            raise UserError(f"{identity} was readable when this began and is not now: {error}.") from error

    return ordered_map(make, cells(), workers)


def write_thumbnails(path: Path, pictures: Iterable[tuple[int, bytes]]) -> None:
    """Write `pictures` (key and encoded picture, keys ascending) to `path`, a few at a time."""
    remaining = iter(pictures)
    with pyarrow.parquet.ParquetWriter(path, _SCHEMA, compression="none", use_dictionary=False) as writer:
        while group := list(islice(remaining, _ROWS)):
            keys, encoded = zip(*group, strict=True)
            writer.write_table(pyarrow.table([keys, encoded], schema=_SCHEMA))


class Thumbnails:
    """The thumbnails in one file, which stays readable after another process has deleted it.

    Safe to read from several threads.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()
        self._stream: BinaryIO = path.open("rb")
        self._file: pyarrow.parquet.ParquetFile | None = None
        self._keys: list[int] = []
        self._group = lru_cache(maxsize=8)(self._read_group)

    def __del__(self) -> None:
        if hasattr(self, "_stream"):
            self._stream.close()

    @property
    def keys(self) -> list[int]:
        """Of all pictures, ascending.

        Raises:
            UserError: the file is damaged.
        """
        with self._lock:
            if self._file is None:
                try:
                    file = pyarrow.parquet.ParquetFile(self._stream)
                    self._keys = file.read(columns=["key"])["key"].to_pylist()
                    self._file = file
                except (OSError, KeyError, pyarrow.ArrowException) as error:
                    raise UserError(
                        f"{self._path} holds no readable thumbnails ({error}): build the index again."
                    ) from None
            return self._keys

    def __contains__(self, key: int) -> bool:
        """Whether there is a picture of `key`."""
        place = bisect_left(self.keys, key)
        return place < len(self._keys) and self._keys[place] == key

    def get(self, key: int) -> bytes:
        """The encoded picture of `key`.

        Raises:
            KeyError: it is not in this file.
            UserError: the file is damaged.
        """
        if key not in self:
            raise KeyError(key)
        place = bisect_left(self._keys, key)
        with self._lock:
            return self._group(place // _ROWS)[place % _ROWS]

    def _read_group(self, number: int) -> list[bytes]:
        assert self._file is not None
        try:
            pictures: list[bytes] = self._file.read_row_group(number, columns=["thumbnail"])["thumbnail"].to_pylist()
        except (OSError, pyarrow.ArrowException) as error:
            raise UserError(f"{self._path} is damaged ({error}): build the index again.") from None
        return pictures
