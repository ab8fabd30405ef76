"""The file that holds a split's squares once decoded, and the record of what is in it."""

import hashlib
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fewlabel.data.decode import Pixels
from fewlabel.errors import UserError
from fewlabel.files import atomic_path, locked, read_json, write_json

__all__ = ["CacheEntry", "Record"]

_DECODE_VERSION: Final = 1
"""Raised when the same image would give other pixels than before, so that older files are not used."""

_CHECKED_ROWS: Final = 256


@dataclass(frozen=True)
class Record:
    """What decoding a split showed."""

    rows: list[int]
    """Rows of the split that could be decoded, in order."""
    aspect: list[float]
    """Original width by height of each of them."""
    bad: list[tuple[str, str]]
    """Id and reason of the others."""


class CacheEntry:
    """The place in `folder` for the squares of one split of one source.

    The name is a hash of the source's fingerprint, the split, the squares' shape and type and the version of
    the decoding, so a changed source never meets an old file. The squares lie in a plain file of one array,
    written first; the record, written last, holds the checksums of some rows. Each is renamed into place
    complete.
    """

    def __init__(
        self, folder: Path, fingerprint: str, split: str, shape: tuple[int, int, int], dtype: np.dtype[Any]
    ) -> None:
        key = repr((fingerprint, split, shape, dtype.name, _DECODE_VERSION))
        stem = f"{split}-{shape[0]}px-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}"
        self._shape, self._dtype = shape, dtype
        self.squares_path = folder / f"{stem}.bin"
        self._record_path = folder / f"{stem}.json"
        self._lock_path = folder / f"{stem}.lock"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time decode; the others wait, then find the file.

        Raises:
            UserError: the folder can't be written.
        """
        with locked(self._lock_path):
            yield

    def read_record(self) -> Record | None:
        """The record, or None where there is none, or one that is damaged."""
        try:
            stored = read_json(self._record_path)
            return Record(stored["rows"], stored["aspect"], [(name, reason) for name, reason in stored["bad"]])
        except (UserError, KeyError, TypeError, ValueError):
            return None

    def read_squares(self, record: Record) -> Pixels | None:
        """The memory-mapped squares (N, side, side, C) of `record`; None where they are missing, short or
        damaged.

        The checksums of up to 256 rows are compared, spread over the file with its first and last.
        """
        count = len(record.rows)
        shape = (count, *self._shape)
        try:
            if self.squares_path.stat().st_size != math.prod(shape) * self._dtype.itemsize:
                return None
            checksums = read_json(self._record_path)["checksums"]
            squares: Pixels = np.memmap(self.squares_path, self._dtype, "r", shape=shape)
        except (OSError, UserError, KeyError, TypeError, ValueError):
            return None
        checked = _spread(count)
        if checksums != [zlib.crc32(squares[row].tobytes()) for row in checked]:
            return None
        return squares

    def write_record(self, record: Record, checksums: Sequence[int] = ()) -> None:
        """Write the record; `checksums` are those that `write_squares` gave."""
        write_json(self._record_path, asdict(record) | {"checksums": list(checksums)})

    @contextmanager
    def writing_squares(self) -> Iterator["SquareWriter"]:
        """Give a writer for squares in order; the file takes its place when the block ends well.

        Raises:
            UserError: the disk is full.
        """
        # Through a memory map a full disk would kill the process with a bus error; a plain write raises.
        with atomic_path(self.squares_path) as temporary, temporary.open("wb") as file:
            yield SquareWriter(file)


class SquareWriter:
    """Appends squares to a file and remembers their checksums."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._checksums: list[int] = []

    def append(self, square: Pixels) -> None:
        """Write one square."""
        content = square.tobytes()
        self._checksums.append(zlib.crc32(content))
        self._file.write(content)

    @property
    def checksums(self) -> list[int]:
        """Checksums of the rows that opening the file compares."""
        return [self._checksums[row] for row in _spread(len(self._checksums))]


def _spread(count: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, min(count, _CHECKED_ROWS)).astype(int)).tolist() if count else []
