"""Vectors by key in a FAISS index: nearest neighbours, adding, removing, and one file."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from faiss.contrib.exhaustive_search import knn_ground_truth
from numpy.typing import NDArray

from fewlabel.errors import UserError
from fewlabel.retrieval.building import FAISS_METRICS, fill, metric_of, prepared
from fewlabel.retrieval.choice import FLAT_BYTES, choose
from fewlabel.retrieval.layers import create, knobs, lists_of, reason, remove_positions, selecting
from fewlabel.retrieval.plan import Metric, Plan

__all__ = ["VectorIndex", "check_factory"]

BLOCK = 65536
"""Vectors that are handled at a time."""

Floats = NDArray[np.float32]
Keys = NDArray[np.int64]


def check_factory(factory: str, width: int, metric: Metric) -> None:
    """Whether FAISS makes an index of that factory at all, which needs no vector.

    Raises:
        UserError: it doesn't.
    """
    if factory != "auto":
        create(factory, width, metric_of(factory, metric))


class VectorIndex:
    """FAISS behind one face: vectors of one width, each under a key of the caller's.

    Searching is safe from several threads at once; adding and removing exclude everything else. For the cosine,
    vectors are brought to unit length. One that is all zeros has no direction: "Flat" takes it as at right angles to
    all others, every other factory as at 60 degrees.

    Attributes:
        plan: what it is made of and why.
    """

    def __init__(self, numbered: Any, plan: Plan) -> None:
        """`numbered` is a `faiss.IndexIDMap`, whose inner index knows vectors by position; use `build` or `read`."""
        self._numbered = numbered
        self._inner = faiss.downcast_index(numbered.index)
        self.plan = plan
        self._set_keys(faiss.vector_to_array(numbered.id_map))

    @classmethod
    def build(
        cls,
        vectors: Floats,
        keys: Keys,
        *,
        factory: str = "auto",
        metric: Metric = "cosine",
        recall: float = 0.99,
        memory: int | None = None,
        seed: int = 0,
    ) -> Self:
        """An index of `vectors` (N, D) float32 under `keys` (N,) int64, which differ from each other.

        Args:
            vectors: of any length.
            keys: theirs.
            factory: as `faiss.index_factory` takes it, or "auto": by count, width and `memory`.
            metric: what near means.
            recall: share of the true ten nearest that a search shall find; search parameters are tuned to it.
            memory: bytes that the index may take, for "auto"; none: as many as it needs.
            seed: of the training sample and of the queries that the recall is measured with.

        Raises:
            UserError: FAISS can't make such an index of these vectors.
        """
        count, width = vectors.shape
        name, why = choose(count, width, memory) if factory == "auto" else (factory, "asked for")
        numbered, order, parameters, found = fill(vectors, name, metric, recall, seed)
        faiss.copy_array_to_vector(keys[order].astype(np.int64), numbered.id_map)
        numbered.ntotal = count
        plan = Plan(
            asked=factory,
            factory=name,
            why=why,
            metric=metric,
            count=count,
            width=width,
            parameters=parameters,
            recall=found,
            bytes_per_vector=0.0,
            seed=seed,
        )
        index = cls(numbered, plan)
        index.plan = replace(plan, bytes_per_vector=_file_bytes(numbered) / max(count, 1))
        return index

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def width(self) -> int:
        """Components of a vector."""
        return int(self._numbered.d)

    @property
    def keys(self) -> Keys:
        """Of all vectors, in the order of the file."""
        return self._keys

    def search(self, queries: Floats, k: int, keys: Keys | None = None) -> tuple[Floats, Keys]:
        """The `k` nearest vectors of each of `queries` (Q, D) float32, best first, of `keys` alone where given.

        Returns similarities (Q, K) float32 and keys (Q, K) int64 with K the smaller of `k` and the index's length;
        where fewer are found, -inf and -1 fill the row. The similarity is the cosine or the negative Euclidean
        distance. Of few `keys` the search is exact, for graphs and lists made for all vectors miss the few.
        """
        columns = min(k, len(self))
        rows = prepared(queries, self.plan.metric)
        if keys is not None:
            return self._search_among(rows, columns, np.unique(self._positions(keys)))
        if not columns or not len(rows):
            return self._nothing(len(rows), columns)
        scores, positions = self._inner.search(rows, columns)
        return self._named(rows, scores, positions, self._inner.metric_type)

    def add(self, vectors: Floats, keys: Keys) -> None:
        """Take in `vectors` (n, D) float32 under `keys` (n,) int64 that are new.

        Raises:
            ValueError: a key isn't new.
        """
        if len(np.unique(np.concatenate([self._keys, keys]))) < len(self) + len(keys):
            raise ValueError("a key is twice in the index")
        for start in range(0, len(vectors), BLOCK):
            self._inner.add(prepared(vectors[start : start + BLOCK], self.plan.metric))
        self._set_keys(np.concatenate([self._keys, keys.astype(np.int64)]))

    def remove(self, keys: Keys) -> None:
        """Drop the vectors of `keys` (n,) int64. A graph (HNSW) is built again from the vectors that stay.

        Raises:
            KeyError: one of them isn't there.
        """
        positions = np.unique(self._positions(keys))
        if len(positions):
            remove_positions(self._inner, positions)
            self._set_keys(np.delete(self._keys, positions))

    def vectors(self, keys: Keys) -> Floats:
        """The vectors (n, D) float32 of `keys` (n,) int64 as the index holds them: of unit length for the cosine.

        Raises:
            KeyError: one of them isn't there.
        """
        return self._rows(self._positions(keys))

    def write(self, path: Path) -> None:
        """Write the index to `path`.

        Raises:
            OSError: it can't be written.
        """
        try:
            faiss.write_index(self._numbered, str(path))
        except RuntimeError as error:
            raise OSError(f"FAISS could not write {path}: {reason(error)}") from error

    @classmethod
    def read(cls, path: Path, plan: Plan, *, mapped: bool = False) -> Self:
        """The index that `write` left at `path`, with the search parameters of `plan`.

        Args:
            path: the file.
            plan: what was said of it.
            mapped: leave in the file what FAISS can (full vectors and graphs), for searching alone. Such a file may be
                unlinked meanwhile, but must not be written to, and its size must be known to be right: FAISS reads
                what a shorter one lacks from unmapped memory.

        Raises:
            UserError: the file is missing, damaged or not such an index.
        """
        try:
            numbered = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
        except (RuntimeError, MemoryError) as error:
            raise UserError(f"{path} is no readable FAISS index ({reason(error)}): build the index again.") from None
        if not isinstance(numbered, faiss.IndexIDMap):
            raise UserError(f"{path} holds {type(numbered).__name__}, not vectors by key: build the index again.")
        found = {knob.name: knob for knob in knobs(numbered.index)}
        expected = (plan.width, metric_of(plan.factory, plan.metric), numbered.id_map.size(), set(plan.parameters))
        if expected != (numbered.d, numbered.index.metric_type, numbered.index.ntotal, set(found)):
            raise UserError(
                f"{path} is not the {plan.factory} of width {plan.width} that its plan says: build it again."
            )
        for name, value in plan.parameters.items():
            found[name].turn(value)
        return cls(numbered, plan)

    def _search_among(self, queries: Floats, columns: int, positions: Keys) -> tuple[Floats, Keys]:
        similarities, found = self._nothing(len(queries), columns)
        if not columns or not len(positions):
            return similarities, found
        lacking = np.ones(len(queries), bool)
        if 4 * len(positions) * self.width > FLAT_BYTES:
            mask = np.zeros(len(self), np.uint8)
            mask[positions] = 1
            selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
            parameters = selecting(self._inner, selector, len(self) / len(positions))
            scores, places = self._inner.search(queries, columns, params=parameters)
            similarities, found = self._named(queries, scores, places, self._inner.metric_type)
            lacking = (found >= 0).sum(axis=1) < min(columns, len(positions))
        if lacking.any():
            metric = FAISS_METRICS[self.plan.metric]
            taken = min(columns, len(positions))
            scores, places = knn_ground_truth(queries[lacking], self._blocks(positions), taken, metric, ngpu=0)
            results = self._named(queries[lacking], scores, positions[places], metric)
            similarities[lacking, :taken], found[lacking, :taken] = results
        return similarities, found

    def _named(self, queries: Floats, scores: Floats, positions: Keys, metric: int) -> tuple[Floats, Keys]:
        """Similarities and keys from FAISS's scores and positions."""
        found = positions >= 0
        if self.plan.metric == "euclidean":
            scores = -np.sqrt(np.maximum(scores, 0))
        elif metric == faiss.METRIC_L2:
            # |q - v|^2 = |q|^2 + 1 - 2 q v
            scores = ((queries**2).sum(axis=1, keepdims=True) + 1 - scores) / 2
        return np.where(found, scores, np.float32(-np.inf)), np.where(found, self._keys[positions], -1)

    def _nothing(self, count: int, columns: int) -> tuple[Floats, Keys]:
        return np.full((count, columns), -np.inf, np.float32), np.full((count, columns), -1, np.int64)

    def _rows(self, positions: Keys) -> Floats:
        if not len(positions):
            return np.empty((0, self.width), np.float32)
        rows: Floats = self._inner.reconstruct_batch(positions)
        return rows

    def _blocks(self, positions: Keys) -> Iterator[Floats]:
        for start in range(0, len(positions), BLOCK):
            yield self._rows(positions[start : start + BLOCK])

    def _positions(self, keys: Keys) -> Keys:
        if not len(keys):
            return np.empty(0, np.int64)
        places = np.searchsorted(self._keys, keys, sorter=self._order)
        places = self._order[np.minimum(places, len(self) - 1)] if len(self) else np.empty(0, np.int64)
        missing = keys[self._keys[places] != keys] if len(self) else keys
        if len(missing):
            raise KeyError(int(missing[0]))
        return places

    def _set_keys(self, keys: Keys) -> None:
        self._keys, self._order = keys, np.argsort(keys)
        faiss.copy_array_to_vector(keys, self._numbered.id_map)
        self._numbered.ntotal = len(keys)
        lists = lists_of(self._inner)
        if lists is not None and not isinstance(self._inner, faiss.IndexRefine):
            # Lists find a vector by its position only with a map; where results are re-ranked, it is elsewhere too.
            lists.make_direct_map()


def _file_bytes(numbered: Any) -> int:
    written = 0

    def count(block: bytes) -> int:
        nonlocal written
        written += len(block)
        return len(block)

    faiss.write_index(numbered, faiss.PyCallbackIOWriter(count))
    return written
