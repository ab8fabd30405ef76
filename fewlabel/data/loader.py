"""Batches in an order that follows from the seed and the step alone."""

from collections.abc import Generator
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fewlabel.data.parallel import ordered_map
from fewlabel.data.store import ImageBatch, ImageStore
from fewlabel.errors import UserError

__all__ = ["Loader"]


class Loader:
    """Shuffled batches of a store, for one of several processes.

    An epoch is a permutation drawn from `seed` and the epoch's number. Each step takes the next
    `batch_size` x `world` images, of which process `rank` gets its own `batch_size`; what is left at the end
    of an epoch, less than one such step, is dropped. Nothing is remembered from step to step, so a run may
    resume anywhere.

    Args:
        store: where the images are.
        batch_size: images a step of this process.
        seed: of the orders, and of the partners.
        rank: of this process, 0 to `world` - 1.
        world: processes.
        indices: `(n,)` int64 positions in the store to draw from; all of them by default.
        partners: whether each batch gets a second half as long, which holds for each image of the first
            another image of its group, or the image itself where it is the only one.
        prefetch: threads that prepare as many batches ahead.

    Raises:
        UserError: a step would take more images than there are, or partners are wanted and the store has no groups.
    """

    def __init__(
        self,
        store: ImageStore,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        *,
        indices: Tensor | None = None,
        partners: bool = False,
        prefetch: int = 2,
    ) -> None:
        self._indices = np.arange(len(store)) if indices is None else indices.numpy()
        self._step_size = batch_size * world
        if self._step_size > len(self._indices):
            processes = f" ({batch_size} on each of {world} processes)" if world > 1 else ""
            raise UserError(
                f"A batch of {self._step_size}{processes} is larger than the set of {len(self._indices)} images. "
                f"Set --batch-size to {len(self._indices)} or less."
            )
        self._partners = _Partners(_groups_of(store), seed) if partners else None
        self._store, self.batch_size, self._seed = store, batch_size, seed
        self._rank, self._prefetch = rank, prefetch
        # An instance's own cache: on the method it would keep the store alive.
        self._order = lru_cache(maxsize=2)(self._draw_order)

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see each image once at most."""
        return len(self._indices) // self._step_size

    def batch_at(self, step: int) -> ImageBatch:
        """The batch of this process at `step`, counted from 0 over all epochs."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self._step_size + self._rank * self.batch_size
        chosen = self._indices[self._order(epoch)[start : start + self.batch_size]]
        if self._partners is not None:
            chosen = np.concatenate([chosen, self._partners.of(chosen, epoch)])
        return self._store.batch(torch.from_numpy(chosen))

    def iterate(self, start_step: int, stop_step: int) -> Generator[ImageBatch, None, None]:
        """The batches of `start_step` up to and without `stop_step`, in order, prepared in threads."""
        return ordered_map(self.batch_at, range(start_step, stop_step), self._prefetch, ahead=self._prefetch)

    def _draw_order(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng((self._seed, epoch)).permutation(len(self._indices))


class _Partners:
    """For each image another one of its group, drawn anew in each epoch."""

    def __init__(self, groups: list[str], seed: int) -> None:
        group_of = np.unique(groups, return_inverse=True)[1]
        self._by_group = np.argsort(group_of, kind="stable")
        self._place = np.argsort(self._by_group)
        sizes = np.bincount(group_of)
        self._size, self._start = sizes[group_of], (np.cumsum(sizes) - sizes)[group_of]
        self._seed = seed

    def of(self, chosen: npt.NDArray[np.int64], epoch: int) -> npt.NDArray[np.int64]:
        """The partners of the images at `chosen`, (B,)."""
        drawn = np.random.default_rng((self._seed, epoch, 1)).random(len(self._size))[chosen]
        size, start = self._size[chosen], self._start[chosen]
        # From 1 to the others' number on from the image itself, round and round.
        onward = (1 + drawn * (size - 1)).astype(np.int64)
        partners: npt.NDArray[np.int64] = self._by_group[start + (self._place[chosen] - start + onward) % size]
        return partners


def _groups_of(store: ImageStore) -> list[str]:
    if store.groups is None:
        raise UserError(
            "--positives group pairs images of one group, and the source names no groups. Say how to tell them: "
            "--group-column, or --group-pattern over file names."
        )
    return store.groups
