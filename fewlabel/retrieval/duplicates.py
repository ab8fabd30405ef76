"""Groups of near-identical images: connected components of all pairs whose cosine reaches a threshold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fewlabel.console import track
from fewlabel.retrieval.manifest import Entry

if TYPE_CHECKING:
    from fewlabel.retrieval.vectors import VectorIndex

__all__ = ["DuplicateGroup", "Member", "find_duplicates", "link_vectors"]

Kind = Literal["first", "exact", "near"]
Floats = NDArray[np.float32]
Keys = NDArray[np.int64]

_NEIGHBOURS: Final = 32
_ROWS: Final = 1024
_COLUMNS: Final = 16384
"""Vectors that are compared at once: `_ROWS` with `_COLUMNS`."""

_ROUNDING: Final = 1e-6
"""A cosine of float32 vectors may lie so far below that of the same vectors without rounding."""


@dataclass(frozen=True)
class Member:
    """An image in a group of duplicates."""

    entry: Entry
    similarity: float
    """Cosine to the group's first image."""
    kind: Kind
    """"first" of its group; "exact": its file has the content of an image further up in the group; else "near"."""


@dataclass(frozen=True)
class DuplicateGroup:
    """Two or more images, each with another of them that is near enough."""

    members: tuple[Member, ...]
    """The first in the manifest's order, then the others, the most similar to it first."""

    @property
    def across_splits(self) -> bool:
        """Whether images of more than one split are in it."""
        return len({member.entry.split for member in self.members}) > 1

    @property
    def labels_differ(self) -> bool:
        """Whether two of its labelled images have other labels."""
        return len({frozenset(member.entry.labels) for member in self.members if member.entry.labels}) > 1

    @property
    def lowest(self) -> float:
        """The lowest similarity to its first image: below the threshold where images are linked in a chain."""
        return min(member.similarity for member in self.members)


def link_vectors(vectors: "VectorIndex", keys: Keys, threshold: float, *, exhaustive: bool) -> Keys:
    """Number the connected components of the pairs with a cosine of `threshold` or more.

    Every pair counts by its own cosine, computed from the vectors. `exhaustive` compares all pairs, in N^2 time.
    Otherwise the index names candidates, the 32 nearest of each vector, and only a vector whose 32nd is still near
    enough is compared with all others: of an approximate index, a pair is overlooked if neither finds the other.

    Args:
        vectors: of unit length or not.
        keys: (N,) of all that are compared; all are in `vectors`.
        threshold: above 0, at most 1; cosines are taken as exact to 1e-6.
        exhaustive: see above; needed where the index orders by something else than the cosine.

    Returns:
        (N,) the number of each key's component: the position of its first key.
    """
    component = np.arange(len(keys))
    crowded = component
    if not exhaustive and len(keys) > _NEIGHBOURS:
        component, crowded = _link_neighbours(vectors, keys, threshold)
    blocks = _blocks(len(crowded), _ROWS)
    for rows in track(blocks, "Comparing with all", total=len(blocks)):
        queries, own = _units(vectors.vectors(keys[crowded[rows]])), crowded[rows]
        # Where all are compared with all, each pair is met from its first side.
        start = rows.start if len(crowded) == len(keys) else 0
        for columns in _blocks(len(keys), _COLUMNS, start):
            near = queries @ _units(vectors.vectors(keys[columns])).T >= threshold - _ROUNDING
            left, right = np.nonzero(near & (component[own][:, None] != component[columns]))
            component = _joined(component, own[left], right + columns.start)
    return component


def find_duplicates(
    entries: Sequence[Entry], vectors: "VectorIndex", threshold: float, *, exhaustive: bool
) -> list[DuplicateGroup]:
    """The groups of near-identical images among `entries`; the other arguments are those of `link_vectors`.

    Groups across splits come first, then those whose labels differ, then the larger ones.
    """
    keys = np.unique(np.array([entry.key for entry in entries], dtype=np.int64))
    component = link_vectors(vectors, keys, threshold, exhaustive=exhaustive)
    number = dict(zip(keys.tolist(), component.tolist(), strict=True))
    together: dict[int, list[Entry]] = {}
    for entry in entries:
        together.setdefault(number[entry.key], []).append(entry)
    groups = [_ordered(found, vectors) for found in together.values() if len(found) > 1]
    return sorted(groups, key=lambda group: (not group.across_splits, not group.labels_differ, -len(group.members)))


def _ordered(entries: list[Entry], vectors: "VectorIndex") -> DuplicateGroup:
    keys = np.unique(np.array([entry.key for entry in entries], dtype=np.int64))
    units = _units(vectors.vectors(keys))
    first = entries[0].key
    cosines = (units @ units[np.searchsorted(keys, first)]).clip(-1, 1)
    similarity = dict(zip(keys.tolist(), cosines.tolist(), strict=True)) | {first: 1.0}
    # The sort is stable: the first stays before its copies, which are as similar.
    ordered = sorted(entries, key=lambda entry: -similarity[entry.key])
    ordered.remove(entries[0])
    members, seen = [Member(entries[0], 1.0, "first")], {first}
    for entry in ordered:
        members.append(Member(entry, similarity[entry.key], "exact" if entry.key in seen else "near"))
        seen.add(entry.key)
    return DuplicateGroup(tuple(members))


def _link_neighbours(vectors: "VectorIndex", keys: Keys, threshold: float) -> tuple[Keys, Keys]:
    """Components by the pairs that the index names, and the positions of the keys that may have further ones."""
    component, crowded = np.arange(len(keys)), []
    blocks = _blocks(len(keys), _ROWS)
    for rows in track(blocks, "Searching neighbours", total=len(blocks)):
        queries = vectors.vectors(keys[rows])
        _, found = vectors.search(queries, _NEIGHBOURS)
        left, place = np.nonzero(found >= 0)
        right = np.searchsorted(keys, found[left, place])
        units = _units(vectors.vectors(found[left, place]))
        near = np.einsum("nd,nd->n", _units(queries)[left], units) >= threshold - _ROUNDING
        component = _joined(component, left[near] + rows.start, right[near])
        full = np.bincount(left[near], minlength=len(queries)) == _NEIGHBOURS
        crowded.append(np.flatnonzero(full) + rows.start)
    return component, np.concatenate(crowded)


def _joined(component: Keys, left: Keys, right: Keys) -> Keys:
    """`component` with those of each pair made one, whose number is the smallest of theirs."""
    if not len(left):
        return component
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = (np.ones(len(left), dtype=bool), (component[left], component[right]))
    _, number = connected_components(coo_array(pairs, shape=(len(component),) * 2), directed=False)
    firsts = np.unique(number, return_index=True)[1]
    joined: Keys = firsts[number][component]
    return joined


def _blocks(count: int, size: int, start: int = 0) -> list[slice]:
    return [slice(begin, min(begin + size, count)) for begin in range(start, count, size)]


def _units(vectors: Floats) -> Floats:
    """Of length 1; a vector of zeros is similar to none and stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)
