"""Subsets of a split's labels: nested, stratified, never across groups, and several random draws of each."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabel.errors import UserError

__all__ = ["LEAST_VALIDATION", "Subset", "fractions_of", "shots_of", "validation_subset"]

LEAST_VALIDATION: Final = 20
"""Validation labels from which training may be stopped by them: the loss on fewer says little."""

_CHOICES: Final = 5
"""Groups that a class chooses from. More come nearer to what is asked for, and make the draws more alike."""


@dataclass(frozen=True, eq=False)
class Subset:
    """The images whose labels may be used."""

    fraction: float | None
    """The share of the labelled images that was asked for; None where it was images per class."""
    shots: int | None
    """The images per class that were asked for; None where it was a share."""
    draw: int
    """0 to draws - 1. Within a draw, a smaller subset is part of each larger one."""
    indices: Tensor
    """(n,) int64: sorted positions in the store. Their number may differ from what was asked for."""


def fractions_of(
    ids: Sequence[str],
    labels: Tensor | None,
    groups: Sequence[str] | None,
    fractions: Sequence[float],
    draws: int,
    seed: int,
) -> list[Subset]:
    """Subsets with a share of the labelled images, the same share of each class.

    The share, in whole images, is divided among the classes by the method of Webster and Sainte-Laguë after each
    has got one; so a small share of many classes holds more than asked for. Each class then takes groups as long
    as they bring it nearer to its part: of the next five in a random order the one that suits all classes best,
    for a patient's images may be many, and of several classes. An image of several labels likewise counts for each
    of them, and images that have none of the labels are a class of their own. The order is that of a hash of seed,
    draw and name: a subset depends on neither the order of the images nor the machine, nor on which other fractions
    are asked for.

    Args:
        ids: unique names.
        labels: (N,) int64 class numbers, -1 for an image without label, which is never drawn; or of several labels
            an image, (N, K) of 1 (yes), 0 (no) and -1 (unknown), where one of which none is known is never drawn.
        groups: a name for each image, or None where each is its own group. The labelled images of a group are
            drawn together or not at all.
        fractions: above 0, at most 1.
        draws: of each fraction.
        seed: of all draws.

    Returns:
        By fraction, then by draw. A draw with the same images as an earlier one of its fraction is left out, for
        an interval over identical draws would be a lie; so the fraction 1.0 comes once, as draw 0.

    Raises:
        UserError: fewer than two classes have labels, or a value is out of range.
    """
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise UserError(f"The fraction of labels is {fraction}; it must be above 0 and at most 1 (0.1 is 10 %).")
    pool = _Pool(ids, labels, groups)
    due = np.where(pool.place > 0, (pool.place + 0.5) / pool.size, 0)
    orders = pool.orders(due, draws, seed)
    return [
        Subset(fraction, None, draw, indices)
        for fraction in sorted(set(fractions))
        for draw, indices in _distinct(orders, max(len(pool.sizes), round(fraction * len(due))))
    ]


def shots_of(
    ids: Sequence[str],
    labels: Tensor | None,
    groups: Sequence[str] | None,
    shots: Sequence[int],
    draws: int,
    seed: int,
) -> list[Subset]:
    """Subsets with the same number of images of each class, and all images of a class with fewer.

    `shots` are 1 or more, and the result is ordered by them; everything else is as in `fractions_of`.
    """
    for number in shots:
        if number < 1:
            raise UserError(f"The number of labels per class is {number}; it must be 1 or more.")
    pool = _Pool(ids, labels, groups)
    orders = pool.orders(pool.place.astype(np.float64), draws, seed)
    return [
        Subset(None, number, draw, indices)
        for number in sorted(set(shots))
        for draw, indices in _distinct(orders, int(np.count_nonzero(pool.place < number)))
    ]


def validation_subset(
    ids: Sequence[str], labels: Tensor | None, groups: Sequence[str] | None, share: float, seed: int
) -> Tensor | None:
    """The validation images whose labels may be used where only a `share` of the training labels is.

    Whoever has few labels to learn from has few to stop by. All arguments are as for `fractions_of`.

    Returns:
        (n,) int64 positions; None where they would be fewer than `LEAST_VALIDATION`, or all of one class.
    """
    try:
        found = fractions_of(ids, labels, groups, [share], 1, seed)[0].indices
    except UserError:
        return None
    return found if len(found) >= LEAST_VALIDATION else None


@dataclass(frozen=True)
class _Group:
    """Labelled images that stay together: a group's, or a single one."""

    name: str
    members: list[int]
    counts: dict[int, int]
    """Members of each class."""


@dataclass(frozen=True)
class _Order:
    """The images in the order in which one draw takes them."""

    images: NDArray[np.int64]
    reached: NDArray[np.int64]
    """How many of them are taken by the end of each turn."""


class _Pool:
    """The labelled images, and for each of them a turn at which its class is due one image more."""

    sizes: dict[int, int]
    """Images of each class."""
    label: NDArray[np.int64]
    """The class of each turn."""
    size: NDArray[np.int64]
    """The images of that class."""
    place: NDArray[np.int64]
    """The turns that the class has before."""

    def __init__(self, ids: Sequence[str], labels: Tensor | None, groups: Sequence[str] | None) -> None:
        known = _classes_of(labels) if labels is not None else {}
        self.sizes = Counter(chain.from_iterable(known.values()))
        if len(self.sizes) < 2:
            raise UserError(
                f"{len(known)} of {len(ids)} images have a label, and they are of {len(self.sizes)} classes; at least "
                "two are needed. Sort the images into a folder for each class, or name the column of the classes "
                "with --label-column."
            )
        classes, sizes = np.array(sorted(self.sizes.items())).T
        self.label, self.size = np.repeat(classes, sizes), np.repeat(sizes, sizes)
        self.place = np.concatenate([np.arange(size) for size in sizes])
        members: dict[str, list[int]] = defaultdict(list)
        for index in known:
            members[ids[index] if groups is None else groups[index]].append(index)
        self._groups = [
            _Group(name, indices, dict(Counter(chain.from_iterable(known[index] for index in indices))))
            for name, indices in members.items()
        ]
        alike = all(sum(group.counts.values()) == 1 for group in self._groups)
        self._choices = 1 if alike else _CHOICES

    def orders(self, due: NDArray[np.float64], draws: int, seed: int) -> list[_Order]:
        """The order of each draw; a turn comes the earlier, the lower its `due`."""
        if draws < 1:
            raise UserError(f"The number of draws is {draws}; it must be 1 or more.")
        return [self._order(due, f"{seed}\n{draw}") for draw in range(draws)]

    def _order(self, due: NDArray[np.float64], salt: str) -> _Order:
        ranks = {label: rank for rank, label in enumerate(sorted(self.sizes, key=lambda label: _key(salt, str(label))))}
        # Of classes due together the rarest comes first, for its groups may well hold images of the others.
        turns = np.lexsort((np.array([ranks[label] for label in self.label.tolist()]), self.size, due))
        queues: dict[int, list[_Group]] = defaultdict(list)
        for group in sorted(self._groups, key=lambda group: _key(salt, group.name), reverse=True):
            for label in group.counts:
                queues[label].append(group)
        # At most half of a class's groups, lest its first one be the same in every draw.
        widths = {label: min(self._choices, (len(queue) + 1) // 2) for label, queue in queues.items()}
        heads: dict[int, list[_Group]] = defaultdict(list)
        chosen: set[str] = set()
        lacking = dict.fromkeys(self.sizes, 0)
        images: list[int] = []
        reached: list[int] = []

        def excess(group: _Group) -> int:
            return sum(abs(lacking[label] - count) - abs(lacking[label]) for label, count in group.counts.items())

        for label, place in zip(self.label[turns].tolist(), self.place[turns].tolist(), strict=True):
            lacking[label] += 1
            while lacking[label] > 0:
                heads[label] = [group for group in heads[label] if group.name not in chosen]
                while queues[label] and len(heads[label]) < widths[label]:
                    group = queues[label].pop()
                    if group.name not in chosen:
                        heads[label].append(group)
                best = min(heads[label], key=excess)
                has_none = lacking[label] == place + 1
                if lacking[label] < best.counts[label] / 2 and not has_none:
                    break
                chosen.add(best.name)
                for other, count in best.counts.items():
                    lacking[other] -= count
                images += best.members
            reached.append(len(images))
        return _Order(np.array(images), np.array(reached))


def _classes_of(labels: Tensor) -> dict[int, list[int]]:
    """The classes that each labelled image counts for: its own; or each label that it has, K where it has none."""
    rows = enumerate(labels.tolist())
    if labels.ndim == 1:
        return {index: [label] for index, label in rows if label >= 0}
    none = labels.shape[1]
    return {
        index: [label for label, value in enumerate(row) if value == 1] or [none]
        for index, row in rows
        if max(row) >= 0
    }


def _key(salt: str, name: str) -> bytes:
    return hashlib.blake2b(f"{salt}\n{name}".encode(), digest_size=16).digest()


def _distinct(orders: list[_Order], turns: int) -> Iterator[tuple[int, Tensor]]:
    """The number and the sorted images of each draw after `turns`, less those that repeat an earlier draw."""
    seen: set[bytes] = set()
    for draw, order in enumerate(orders):
        indices = np.sort(order.images[: order.reached[turns - 1]])
        if indices.tobytes() not in seen:
            seen.add(indices.tobytes())
            yield draw, torch.from_numpy(indices)
