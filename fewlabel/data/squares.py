"""Undecoded rows of a split as squares of one size, channels and depth."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import datasets
import numpy as np

from fewlabel.data.decode import DecodeError, Pixels
from fewlabel.data.parallel import ordered_map
from fewlabel.data.resize import resize
from fewlabel.data.scan import read_cell
from fewlabel.data.window import AUTO

__all__ = ["Square", "SquareReader"]

_CHUNK: Final = 64


class Square(NamedTuple):
    """A decoded image, or the reason why there is none."""

    pixels: Pixels | None
    """(side, side, C)."""
    aspect: float
    """Original width by height."""
    reason: str


class SquareReader:
    """Decodes rows of `part`, in threads, to (side, side, channels) of `bits` bits.

    Images are squashed, not cropped. In a colour source greyscale becomes three equal channels; in a 16-bit
    source 8-bit values are multiplied by 257, which maps white to white. Medical files are shown by `window`.
    """

    def __init__(
        self, part: datasets.Dataset, side: int, channels: int, bits: int, workers: int, window: str = AUTO
    ) -> None:
        self._undecoded = part.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))
        self.shape = (side, side, channels)
        self.dtype: np.dtype[np.unsignedinteger[Any]] = np.dtype(np.uint16 if bits == 16 else np.uint8)
        self._workers, self._window = workers, window

    def __len__(self) -> int:
        """Rows in all."""
        return len(self._undecoded)

    @property
    def nbytes(self) -> int:
        """Bytes of all squares."""
        return len(self) * int(np.prod(self.shape)) * self.dtype.itemsize

    def read(self, rows: Sequence[int]) -> Iterator[Square]:
        """The squares of `rows`, in order."""
        return ordered_map(self._square, self._cells(rows), self._workers)

    def _cells(self, rows: Sequence[int]) -> Iterator[dict[str, bytes | str | None]]:
        for start in range(0, len(rows), _CHUNK):
            yield from self._undecoded[rows[start : start + _CHUNK]]["image"]

    def _square(self, image: dict[str, bytes | str | None]) -> Square:
        side = self.shape[0]
        try:
            pixels = read_cell(image, side, self._window)
        except DecodeError as error:
            return Square(None, 1.0, str(error))
        height, width, _ = pixels.shape
        square = resize(pixels, side, side)
        if square.dtype != self.dtype:
            square = square.astype(np.uint16) * np.uint16(257)
        return Square(np.broadcast_to(square, self.shape), width / height, "")
