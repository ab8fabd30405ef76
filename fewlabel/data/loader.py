"""Batches in an order that follows from the seed and the step alone."""

from collections.abc import Generator
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

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

    Raises:
        UserError: a step would take more images than the store has.
    """

    def __init__(
        self, store: ImageStore, batch_size: int, seed: int, rank: int = 0, world: int = 1, prefetch: int = 2
    ) -> None:
        """`batch_size` is per process; `prefetch` threads prepare as many batches ahead."""
        self._step_size = batch_size * world
        if self._step_size > len(store):
            processes = f" ({batch_size} on each of {world} processes)" if world > 1 else ""
            raise UserError(
                f"A batch of {self._step_size}{processes} is larger than the set of {len(store)} images. "
                f"Set --batch-size to {len(store)} or less."
            )
        self._store, self.batch_size, self._seed = store, batch_size, seed
        self._rank, self._prefetch = rank, prefetch
        # An instance's own cache: on the method it would keep the store alive.
        self._order = lru_cache(maxsize=2)(self._draw_order)

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see each image once at most."""
        return len(self._store) // self._step_size

    def batch_at(self, step: int) -> ImageBatch:
        """The batch of this process at `step`, counted from 0 over all epochs."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self._step_size + self._rank * self.batch_size
        return self._store.batch(torch.from_numpy(self._order(epoch)[start : start + self.batch_size]))

    def iterate(self, start_step: int, stop_step: int) -> Generator[ImageBatch, None, None]:
        """The batches of `start_step` up to and without `stop_step`, in order, prepared in threads."""
        return ordered_map(self.batch_at, range(start_step, stop_step), self._prefetch, ahead=self._prefetch)

    def _draw_order(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng((self._seed, epoch)).permutation(len(self._store))
