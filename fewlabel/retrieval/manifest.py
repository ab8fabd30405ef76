"""The manifest: which images an index holds, a row for each place where one stands."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from numpy.typing import NDArray

from fewlabel.data.frames import split_frame
from fewlabel.errors import UserError

__all__ = ["Entry", "Filter", "Manifest"]

_SCHEMA = pyarrow.schema(
    [
        pyarrow.field("id", pyarrow.string(), nullable=False),
        pyarrow.field("path", pyarrow.string()),
        pyarrow.field("labels", pyarrow.list_(pyarrow.string()), nullable=False),
        pyarrow.field("split", pyarrow.string(), nullable=False),
        pyarrow.field("group", pyarrow.string()),
        pyarrow.field("content", pyarrow.string(), nullable=False),
        pyarrow.field("key", pyarrow.int64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Entry:
    """One place where an image stands."""

    id: str
    """As its source names it, made unique among all sources of the index."""
    path: str | None
    """Absolute, with the number of the image in a file of several (see `split_frame`); None for an image whose bytes
    lie in a table."""
    labels: tuple[str, ...]
    """Its class, or those of several labels that are yes; empty where nothing is known."""
    split: str
    """"train", "val" or "test"."""
    group: str | None
    """What it belongs to, such as a patient."""
    content: str
    """Hash of the encoded image, in hexadecimal: equal for exact copies."""
    key: int
    """Of its vector; exact copies share one."""

    @property
    def moved(self) -> bool:
        """Whether its file is no longer where it was when it came into the index."""
        return self.path is not None and not Path(split_frame(self.path)[0]).exists()


@dataclass(frozen=True)
class Filter:
    """Which images count; empty fields let all through."""

    labels: tuple[str, ...] = ()
    """At least one of these."""
    splits: tuple[str, ...] = ()


class Manifest:
    """The rows of an index, in the order in which they came."""

    def __init__(self, table: pyarrow.Table) -> None:
        """`table` has the columns of `Entry`."""
        self._table = table.combine_chunks()
        self.keys: NDArray[np.int64] = self._table["key"].to_numpy()
        """Of each row (N,) int64."""
        self._order = np.argsort(self.keys, kind="stable")
        self._sorted = self.keys[self._order]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Self:
        """The manifest with these rows."""
        rows = list(entries)
        arrays = [pyarrow.array([getattr(row, field.name) for row in rows], field.type) for field in _SCHEMA]
        return cls(pyarrow.Table.from_arrays(arrays, schema=_SCHEMA))

    @classmethod
    def read(cls, path: Path) -> Self:
        """The manifest that `write` left at `path`.

        Raises:
            UserError: it is damaged or something else.
            FileNotFoundError: it is missing.
        """
        try:
            with path.open("rb") as file:
                table = pyarrow.parquet.read_table(file)
            if table.schema.remove_metadata() != _SCHEMA:
                raise ValueError(f"its columns are {', '.join(table.column_names)}")
        except FileNotFoundError:
            raise
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise UserError(f"{path} is no readable manifest ({error}): build the index again.") from None
        return cls(table)

    def write(self, path: Path) -> None:
        """Write it to `path` as parquet."""
        pyarrow.parquet.write_table(self._table, path)

    def __len__(self) -> int:
        """Rows."""
        return len(self._table)

    @cached_property
    def entries(self) -> list[Entry]:
        """All rows."""
        return self.at(range(len(self)))

    def at(self, rows: Sequence[int]) -> list[Entry]:
        """The entries in `rows`."""
        taken = self._table.take(pyarrow.array(rows, pyarrow.int64())).to_pydict()
        columns = [map(tuple, taken[field.name]) if field.name == "labels" else taken[field.name] for field in _FIELDS]
        return [Entry(*values) for values in zip(*columns, strict=True)]

    def rows_of(self, key: int) -> list[int]:
        """The rows of the images with this key, the oldest first."""
        first, last = np.searchsorted(self._sorted, [key, key + 1])
        return [int(row) for row in self._order[first:last]]

    def rows_named(self, words: str) -> NDArray[np.int64]:
        """The rows (n,) int64 whose id, path or labels hold `words`, in capitals or not."""
        labels = pyarrow.compute.binary_join(self._table["labels"], "\n")
        mask = np.zeros(len(self), dtype=np.bool_)
        for column in (self._table["id"], self._table["path"], labels):
            found = pyarrow.compute.match_substring(column, words, ignore_case=True)
            mask |= pyarrow.compute.fill_null(found, False).to_numpy(zero_copy_only=False)
        return np.flatnonzero(mask)

    def rows_where(self, where: Filter) -> NDArray[np.bool_]:
        """(N,) bool: which rows pass.

        Raises:
            UserError: no image has such a label or split.
        """
        mask = np.ones(len(self), dtype=np.bool_)
        if where.splits:
            self._require("split", where.splits, self.splits)
            mask &= self._is_in(self._table["split"], where.splits)
        if where.labels:
            self._require("label", where.labels, self.labels)
            column = self._table["labels"]
            parents = pyarrow.compute.list_parent_indices(column).to_numpy()
            labelled = np.zeros(len(self), dtype=np.bool_)
            labelled[parents[self._is_in(pyarrow.compute.list_flatten(column), where.labels)]] = True
            mask &= labelled
        return mask

    @cached_property
    def labels(self) -> list[str]:
        """The labels that occur, sorted."""
        return sorted(pyarrow.compute.unique(pyarrow.compute.list_flatten(self._table["labels"])).to_pylist())

    @cached_property
    def splits(self) -> list[str]:
        """The splits that occur, in the order train, val, test."""
        found = set(pyarrow.compute.unique(self._table["split"]).to_pylist())
        return [split for split in ("train", "val", "test") if split in found]

    def _is_in(self, column: Any, values: Sequence[str]) -> NDArray[np.bool_]:
        found = pyarrow.compute.is_in(column, value_set=pyarrow.array(values, pyarrow.string()))
        mask: NDArray[np.bool_] = found.to_numpy(zero_copy_only=False) if len(found) else np.zeros(0, np.bool_)
        return mask

    def _require(self, what: str, asked: Sequence[str], known: Sequence[str]) -> None:
        for value in asked:
            if value not in known:
                near = get_close_matches(value, known, n=1)
                raise UserError(
                    f"No image of the index has the {what} {value!r}"
                    + (f"; did you mean {near[0]!r}? " if near else ". ")
                    + (f"There are {', '.join(map(repr, known[:20]))}." if known else f"None has a {what}.")
                )


_FIELDS = fields(Entry)
