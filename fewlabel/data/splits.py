"""Splits made from a seed: in the classes' proportions, and never across groups."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["divide", "strata_of"]


@dataclass(frozen=True)
class _Unit:
    """Images that stay together: a group's, or a single one."""

    key: bytes
    members: list[int]
    stratum: int


def divide(
    ids: Sequence[str],
    labels: Sequence[int] | None,
    groups: Sequence[str | None] | None,
    shares: dict[str, float],
    seed: int,
) -> dict[str, list[int]]:
    """Divide images into the splits of `shares`, and "train" for the rest.

    Each group (or image without one) gets a key from a hash of the seed and its name, so the outcome depends
    on neither the order of the images nor the machine. Class by class, the groups are handed out in the order
    of their keys as long as each brings a split nearer to its share of the images seen so far; rounding
    errors carry over from class to class, so that many tiny classes together give the share that is due. A
    class keeps one group for training at least, and a group of several classes counts as its most frequent
    one. A split that would stay empty gets the smallest group of the class with most images left.

    Args:
        ids: unique names.
        labels: class numbers, or None; images of the number -1 form a class of their own here.
        groups: names, None for an image that is its own group, or None for all.
        shares: at least 0, with a sum below 1.

    Returns:
        The sorted indices of each split with a share, and of "train", which is never empty; another split is
        empty where there are fewer groups than splits.
    """
    strata: dict[int, list[_Unit]] = defaultdict(list)
    for unit in _units(ids, labels, groups, seed):
        strata[unit.stratum].append(unit)
    wanted = {name: share for name, share in shares.items() if share > 0}
    taken: dict[str, list[int]] = {name: [] for name in wanted}
    seen = 0
    for stratum in sorted(strata):
        units = strata[stratum]
        if len(units) < 2:
            continue
        seen += sum(len(unit.members) for unit in units)
        for name, share in wanted.items():
            left = [units[-1]]
            for unit in units[:-1]:
                if len(taken[name]) + len(unit.members) / 2 <= share * seen:
                    taken[name] += unit.members
                else:
                    left.insert(-1, unit)
            units[:] = left
    for members in taken.values():
        if not members and sum(map(len, strata.values())) > 1:
            units = max(strata.values(), key=lambda rest: sum(len(unit.members) for unit in rest))
            smallest = min(units, key=lambda unit: (len(unit.members), unit.key))
            members += smallest.members
            units.remove(smallest)
    train = [index for units in strata.values() for unit in units for index in unit.members]
    return {name: sorted(members) for name, members in (taken | {"train": train}).items()}


def strata_of(labels: npt.NDArray[np.int64], groups: Sequence[str | None] | None = None) -> npt.NDArray[np.int64]:
    """One number for each image of several labels, to divide by: its rarest label, for that has the least to spare.

    Args:
        labels: (N, K) of 1, 0 and -1 (unknown).
        groups: as for `divide`; an image has the labels of all images of its group here.

    Returns:
        (N,): 0 to K - 1, K for an image of which no label is known to be yes, -1 where none is known at all.
    """
    if groups is not None:
        names = [("image", str(place)) if group is None else ("group", group) for place, group in enumerate(groups)]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        group_of = np.array([numbers[name] for name in names])
        united = np.full((len(numbers), labels.shape[1]), -1)
        np.maximum.at(united, group_of, labels)
        labels = united[group_of]
    positive, count = labels == 1, labels.shape[1]
    ranks = np.argsort(np.argsort(positive.sum(axis=0), kind="stable"))
    rarest = np.where(positive, ranks, count).argmin(axis=1)
    return np.where(positive.any(axis=1), rarest, np.where((labels >= 0).any(axis=1), count, -1))


def _units(
    ids: Sequence[str], labels: Sequence[int] | None, groups: Sequence[str | None] | None, seed: int
) -> list[_Unit]:
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, identity in enumerate(ids):
        group = groups[index] if groups is not None else None
        members[("image", identity) if group is None else ("group", group)].append(index)
    units = []
    for (kind, name), indices in members.items():
        key = hashlib.blake2b(f"{seed}\n{kind}\n{name}".encode(), digest_size=16).digest()
        counts = Counter(labels[index] for index in indices) if labels is not None else Counter([0])
        stratum = min(counts, key=lambda label: (-counts[label], label))
        units.append(_Unit(key, indices, stratum))
    return sorted(units, key=lambda unit: unit.key)
