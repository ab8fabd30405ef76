"""Copies within a collection: which images are the same, which of them stays, and where a copy does harm."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from fewlabel.cleaning.collection import Collection
from fewlabel.cleaning.config import ThresholdsConfig
from fewlabel.cleaning.near import near_pairs
from fewlabel.data.likeness import Scale, copy_threshold

__all__ = ["SPLITS", "Copies", "DuplicateGroup", "Partners", "find_copies"]

Rows = NDArray[np.int64]

SPLITS: Final = ("test", "val", "train")
"""Of copies in several splits the one in the first of these stays: what is measured on must not shrink."""

_MANY: Final = 2**22
"""Pairs that are held at once."""

_EARLIEST: Final = 32

_UNKNOWN: Final = -1
_MIXED: Final = -2


@dataclass(frozen=True)
class DuplicateGroup:
    """Images that are linked by pairs of duplicates."""

    number: int
    """From 1, the largest first."""
    rows: tuple[int, ...]
    """The one that stays first: of the earliest split of test, val, train, and there the first id."""
    similarity: tuple[float, ...]
    """Of each picture to the first one's, at most 1; a chain of pairs may lead far below the threshold."""


class Partners:
    """For each set of equal images the most similar other set of some kind."""

    def __init__(self, count: int) -> None:
        self.partner = np.full(count, -1, np.int64)
        """(S,) -1 where there is none."""
        self.similarity = np.full(count, -1, np.float32)
        """(S,)."""

    def offer(self, own: Rows, other: Rows, similarity: NDArray[np.float32]) -> None:
        """Take each of `other` as the partner of its `own` set, if it is more similar than the one known."""
        better = np.flatnonzero(similarity > self.similarity[own])
        # Of several values for one place NumPy keeps the last.
        better = better[np.argsort(similarity[better], kind="stable")]
        self.partner[own[better]], self.similarity[own[better]] = other[better], similarity[better]


@dataclass(frozen=True)
class Copies:
    """The duplicates of a collection. A set is the images of equal pixels, in the order in which they would stay."""

    sets: Sequence[Sequence[int]]
    """Rows of each set; those of one image too."""
    set_of: Rows
    """(N,) -1 for an image that can't be decoded."""
    near: Partners
    """The most similar set."""
    stays: NDArray[np.bool_]
    """(S,) whether no set that comes earlier and stays is similar: those that stay stand for all."""
    other_labels: Partners
    """The most similar set with other labels; itself, where its own images have several."""
    other_groups: Partners
    """The most similar set of another group; itself, where its own images are of several."""
    in_split: Sequence[Partners]
    """For each of `SPLITS` the most similar set with an image in it, which may be itself."""
    components: Rows
    """(S,) sets linked by similar pairs have one number."""
    threshold: float
    """Similarity from which two pictures are near duplicates."""
    units: NDArray[np.float32]
    """(S, 63), whose inner products are the similarities."""

    def group(self, semantic: Rows | None) -> list[DuplicateGroup]:
        """The groups of two images and more, also linked by `semantic` (N,) component numbers, -1 for none."""
        component = np.full(len(self.set_of), -1, np.int64)
        decoded = self.set_of >= 0
        component[decoded] = self.components[self.set_of[decoded]]
        if semantic is not None:
            component = _united(component, semantic)
        order = sorted(np.flatnonzero(component >= 0).tolist(), key=lambda row: (int(self.set_of[row]), row))
        members: dict[int, list[int]] = {}
        for row in order:
            members.setdefault(int(component[row]), []).append(row)
        place = {row: place for rows in self.sets for place, row in enumerate(rows)}
        found = [
            sorted(rows, key=lambda row: (self.set_of[row], place[row])) for rows in members.values() if len(rows) > 1
        ]
        found.sort(key=len, reverse=True)
        return [
            DuplicateGroup(number, tuple(rows), tuple(self._similarity(rows))) for number, rows in enumerate(found, 1)
        ]

    def _similarity(self, rows: Sequence[int]) -> list[float]:
        sets = self.set_of[list(rows)]
        similarity = (self.units[sets] @ self.units[sets[0]]).clip(-1, 1)
        return [1.0 if own == sets[0] else float(value) for own, value in zip(sets, similarity, strict=True)]


def find_copies(collection: Collection, config: ThresholdsConfig) -> Copies:
    """Find the exact duplicates of a collection by their pixels, and the near ones by hash and likeness.

    Near duplicates have perceptual hashes that differ in few bits and a similarity (see `likeness.Scale.units`) that is
    that of copies in this collection; a picture of one grey has none.
    """
    sets, set_of = _equal_sets(collection)
    first = np.array([rows[0] for rows in sets], dtype=np.int64)
    signatures = torch.from_numpy(collection.signatures[first])
    units, threshold = signatures, config.similarity or 1.0
    if len(sets):
        units = Scale.of(signatures).units(signatures)
        threshold = config.similarity if config.similarity is not None else copy_threshold(units)
    count = len(sets)
    labels = _codes([_known(collection.labels, rows) for rows in sets])
    groups = _codes([_known(collection.groups, rows) for rows in sets])
    bits = np.array(
        [[any(collection.splits[row] == split for row in rows) for split in SPLITS] for rows in sets], bool
    ).reshape(-1, len(SPLITS))
    near, other_labels, other_groups = Partners(count), Partners(count), Partners(count)
    in_split = tuple(Partners(count) for _ in SPLITS)
    equal = np.ones(count, np.float32)
    everything = np.arange(count)
    for partners, own in (
        (other_labels, everything[labels == _MIXED]),
        (other_groups, everything[groups == _MIXED]),
        *((partners, everything[bits[:, place]]) for place, partners in enumerate(in_split)),
    ):
        partners.offer(own, own, equal[own])
    edges = _Edges(count)
    patterned = np.flatnonzero(units.numpy().any(axis=1)) if count else np.empty(0, np.int64)
    hashes, known_units = collection.hashes[first[patterned]], np.ascontiguousarray(units.numpy()[patterned])
    for pairs in near_pairs(hashes, known_units, config.hash_bits, threshold):
        left, right = patterned[pairs.left], patterned[pairs.right]
        edges.add(left, right)
        for own, other in ((left, right), (right, left)):
            near.offer(own, other, pairs.similarity)
            for partners, codes in ((other_labels, labels), (other_groups, groups)):
                differ = _differ(codes[own], codes[other])
                partners.offer(own[differ], other[differ], pairs.similarity[differ])
            for place, partners in enumerate(in_split):
                there = bits[other, place]
                partners.offer(own[there], other[there], pairs.similarity[there])
    return Copies(
        sets,
        set_of,
        near,
        edges.stays(),
        other_labels,
        other_groups,
        in_split,
        edges.components(),
        threshold,
        units.numpy(),
    )


class _Edges:
    """Which sets are similar, in bounded memory."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pairs = self._links = np.empty((2, 0), np.int64)
        self._new: list[Rows] = []

    def add(self, left: Rows, right: Rows) -> None:
        """Pairs of sets, the one that comes earlier on the left."""
        self._new.append(np.stack([left, right]))
        if sum(part.shape[1] for part in self._new) > _MANY:
            self._settle()

    def components(self) -> Rows:
        """(S,) one number for sets that are linked."""
        self._settle()
        return _components(self._links, self._count)

    def stays(self) -> NDArray[np.bool_]:
        """(S,) whether no earlier set that stays is similar."""
        self._settle()
        stays = np.ones(self._count, bool)
        left, right = self._pairs
        rights, starts, counts = np.unique(right, return_index=True, return_counts=True)
        for own, start, size in zip(rights.tolist(), starts.tolist(), counts.tolist(), strict=True):
            stays[own] = not stays[left[start : start + size]].any()
        return stays

    def _settle(self) -> None:
        """Keep of the new pairs what links the sets, and of each set its pairs with the earliest others: most of the
        sets that stay are among these."""
        pairs = np.concatenate([self._pairs, *self._new], axis=1)
        components = _components(np.concatenate([self._links, *self._new], axis=1), self._count)
        firsts = np.unique(components, return_index=True)[1][components]
        linked = np.flatnonzero(firsts != np.arange(self._count))
        self._links = np.stack([firsts[linked], linked])
        pairs = pairs[:, np.lexsort(pairs)]
        _, starts, counts = np.unique(pairs[1], return_index=True, return_counts=True)
        rank = np.arange(pairs.shape[1]) - np.repeat(starts, counts)
        self._pairs, self._new = pairs[:, rank < _EARLIEST], []


def _equal_sets(collection: Collection) -> tuple[list[list[int]], Rows]:
    rank = {split: place for place, split in enumerate(SPLITS)}
    rows = sorted(
        np.flatnonzero(collection.decoded).tolist(),
        key=lambda row: (rank.get(collection.splits[row], len(SPLITS)), collection.ids[row]),
    )
    sets: dict[bytes, list[int]] = {}
    for row in rows:
        sets.setdefault(collection.pixels[row], []).append(row)
    set_of = np.full(len(collection), -1, np.int64)
    for number, members in enumerate(sets.values()):
        set_of[members] = number
    return list(sets.values()), set_of


def _known(values: Sequence[Any], rows: Sequence[int]) -> set[Any]:
    return {values[row] for row in rows} - {None}


def _codes(values: Sequence[set[Any]]) -> Rows:
    """A number for the one value of each set; -1 where there is none, -2 where there are several."""
    numbers: dict[Any, int] = {}
    return np.array(
        [
            _UNKNOWN if not found else _MIXED if len(found) > 1 else numbers.setdefault(next(iter(found)), len(numbers))
            for found in values
        ],
        dtype=np.int64,
    )


def _differ(left: Rows, right: Rows) -> NDArray[np.bool_]:
    differ: NDArray[np.bool_] = (left != _UNKNOWN) & (right != _UNKNOWN) & ((left != right) | (left == _MIXED))
    return differ


def _components(edges: Rows, count: int) -> Rows:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(edges.shape[1], bool), (edges[0], edges[1])), shape=(count, count))
    numbers: Rows = connected_components(graph, directed=False)[1].astype(np.int64)
    return numbers


def _united(component: Rows, semantic: Rows) -> Rows:
    """Component numbers (N,) of what either of two divisions puts together; -1 where the first has none."""
    count = len(component)
    rows = np.arange(count)
    kept = component >= 0
    by_picture = np.stack([rows[kept], count + component[kept]])
    linked = kept & (semantic >= 0)
    offset = 2 * count + 1
    by_meaning = np.stack([rows[linked], offset + semantic[linked]])
    size = offset + int(semantic.max(initial=0)) + 1
    united = _components(np.concatenate([by_picture, by_meaning], axis=1), size)[:count]
    return np.where(kept, united, -1)
