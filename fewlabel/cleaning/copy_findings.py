"""What is said of images that have copies."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabel.cleaning.collection import Collection
from fewlabel.cleaning.duplicates import SPLITS, Copies, DuplicateGroup, Partners
from fewlabel.cleaning.finding import Finding

__all__ = ["copy_findings"]


def copy_findings(
    collection: Collection,
    copies: Copies,
    groups: Sequence[DuplicateGroup],
    semantic: NDArray[np.int64] | None,
) -> Iterator[Finding]:
    """The findings of every image in one of the `groups`; the other arguments are those of `findings.find`."""
    labels, other_groups = _Firsts(collection.labels, copies.sets), _Firsts(collection.groups, copies.sets)
    splits = _Firsts(collection.splits, copies.sets)
    for group in groups:
        for row in group.rows:
            about = _About(collection, copies, row, group.number)
            yield from about.equal()
            yield from about.near()
            yield from about.conflict(labels)
            yield from about.across_splits(splits)
            yield from about.across_groups(other_groups)
    if semantic is not None:
        yield from _semantic(collection, copies, groups, semantic)


class _Firsts:
    """The first image of a set with each value of some kind."""

    def __init__(self, values: Sequence[Any], sets: Sequence[Sequence[int]]) -> None:
        self.values = values
        self._sets = sets
        self._known: dict[int, dict[Any, int]] = {}

    def of(self, number: int) -> dict[Any, int]:
        """Rows by the values of a set that are known; none of the set -1."""
        if number not in self._known:
            rows = reversed(self._sets[number]) if number >= 0 else ()
            self._known[number] = {self.values[row]: row for row in rows if self.values[row] not in (None, "")}
        return self._known[number]

    def other(self, row: int, number: int) -> int | None:
        """A row of a set with another value; None where there is none, or nothing is known of `row`."""
        if self.values[row] is None:
            return None
        rows = [other for value, other in self.of(number).items() if value != self.values[row]]
        return min(rows, default=None)


class _About:
    """An image with copies."""

    def __init__(self, collection: Collection, copies: Copies, row: int, number: int) -> None:
        self._ids, self._contents, self._copies = collection.ids, collection.contents, copies
        self._row, self._number = row, number
        self._set = int(copies.set_of[row])
        self._equals = copies.sets[self._set]
        self._first = self._equals[0] == row

    def equal(self) -> Iterator[Finding]:
        """Same content, or same pixels."""
        if len(self._equals) > 1:
            other = self._equals[1 if self._first else 0]
            same = "content" if self._contents[other] == self._contents[self._row] else "pixels"
            more = f" and {len(self._equals) - 2} more" if len(self._equals) > 2 else ""
            detail = f"same {same} as {self._ids[other]}{more}"
            yield Finding("exact_duplicate", self._row, detail, 1.0, None, self._number, self._first)

    def near(self) -> Iterator[Finding]:
        """The most similar other picture."""
        other = self._partner(self._copies.near)
        if other >= 0:
            similarity = min(1.0, float(self._copies.near.similarity[self._set]))
            detail = f"similar to {self._ids[self._copies.sets[other][0]]} ({similarity:.3f})"
            stays = self._first and bool(self._copies.stays[self._set])
            threshold = self._copies.threshold
            yield Finding("near_duplicate", self._row, detail, similarity, threshold, self._number, stays)

    def conflict(self, labels: _Firsts) -> Iterator[Finding]:
        """A copy with another label."""
        other = labels.other(self._row, self._partner(self._copies.other_labels))
        if other is not None:
            here, there = _words(labels.values[self._row]), _words(labels.values[other])
            detail = f"{here} here, {there} at {self._ids[other]}"
            yield Finding("label_conflict", self._row, detail, duplicate_group=self._number)

    def across_groups(self, groups: _Firsts) -> Iterator[Finding]:
        """A copy in another group."""
        other = groups.other(self._row, self._partner(self._copies.other_groups))
        if other is not None:
            detail = f"{groups.values[self._row]} here, {groups.values[other]} at {self._ids[other]}"
            yield Finding("across_groups", self._row, detail, duplicate_group=self._number)

    def across_splits(self, splits: _Firsts) -> Iterator[Finding]:
        """A copy in another split; the one in the first of `SPLITS` stays."""
        own = splits.values[self._row]
        for split, partners in zip(SPLITS, self._copies.in_split, strict=True):
            other = splits.of(self._partner(partners)).get(split)
            if own and split != own and other is not None:
                stays = SPLITS.index(own) < SPLITS.index(split)
                detail = f"also in {split}: {self._ids[other]}"
                yield Finding("across_splits", self._row, detail, duplicate_group=self._number, stays=stays)
                return

    def _partner(self, partners: Partners) -> int:
        return int(partners.partner[self._set])


def _words(labels: tuple[str, ...]) -> str:
    return ", ".join(labels) or "none of the labels"


def _semantic(
    collection: Collection, copies: Copies, groups: Sequence[DuplicateGroup], semantic: NDArray[np.int64]
) -> Iterator[Finding]:
    """What the encoder links and the pictures don't."""
    for group in groups:
        members: dict[int, list[int]] = {}
        for row in group.rows:
            if semantic[row] >= 0:
                members.setdefault(int(semantic[row]), []).append(row)
        for rows in members.values():
            if len(set(copies.components[copies.set_of[rows]])) < 2:
                continue
            for row in rows:
                other = rows[0] if row != rows[0] else rows[1]
                more = f" and {len(rows) - 2} more" if len(rows) > 2 else ""
                detail = f"to the encoder the same as {collection.ids[other]}{more}"
                yield Finding("semantic_duplicate", row, detail, duplicate_group=group.number, stays=row == rows[0])
