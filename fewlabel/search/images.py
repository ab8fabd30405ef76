"""The images of a search: opened once for all its trainings, and the parts of them that are judged by."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fewlabel.data.config import SourceConfig
from fewlabel.data.sizes import stored_side
from fewlabel.data.source import Source
from fewlabel.data.store import ImageStore, open_split
from fewlabel.errors import UserError
from fewlabel.supervised.bootstrap import resamples
from fewlabel.supervised.linear_probe import targets_of

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Images", "Splits", "some_of"]


def some_of(places: Tensor, most: int, seed: int) -> Tensor:
    """`most` of `places` (N,) drawn from `seed`, in their order; all where there are no more."""
    drawn = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))[:most]
    return places[drawn.sort().values]


@dataclass(frozen=True, eq=False)
class Images:
    """Some images of a store."""

    store: ImageStore
    places: Tensor
    """(N,) int64 positions in it."""

    def __len__(self) -> int:
        """How many."""
        return len(self.places)

    @property
    def labels(self) -> Tensor:
        """As the store has them, of these images."""
        assert self.store.labels is not None
        return self.store.labels[self.places]

    @property
    def groups(self) -> list[str] | None:
        """Their groups, where the store has any."""
        groups = self.store.groups
        return None if groups is None else [groups[place] for place in self.places.tolist()]

    def fit_to_judge(self, *, labelled: bool) -> bool:
        """Whether figures and their intervals can be computed on them, `labelled` or not: they are of two groups at
        least, and of two classes if labelled, and three or more.
        """
        if len(self) < 3 or (labelled and targets_of(self.labels, "none") is None):
            return False
        try:
            next(resamples(len(self), self.groups, np.zeros(len(self), np.int64)))
        except UserError:
            return False
        return True


class Splits:
    """The splits of a source at the sides that trainings ask for.

    Args:
        source: the images.
        config: how the source was loaded.
        accelerator: its processes open a split one after the other, so that one decodes for all.
    """

    def __init__(self, source: Source, config: SourceConfig, accelerator: "Accelerator") -> None:
        self._source, self._config, self._accelerator = source, config, accelerator
        self._stores: dict[tuple[str, int], ImageStore] = {}

    def at(self, split: str, image_size: int, base: int) -> ImageStore:
        """The images of `split` for views of `image_size` pixels, of a model that has `base` at scale 1.

        At scale 1 they are kept at the side that pretraining keeps; for larger views at that of half as much again, and
        so on: so that a search of many sizes fills neither memory nor disk with copies.

        Raises:
            UserError: there is no such split, or it can't be decoded.
        """
        size = base
        while size < image_size:
            size += (size + 1) // 2
        key = split, stored_side(size, self._source.median_side)
        if key not in self._stores:
            with self._accelerator.main_process_first():
                self._stores[key] = open_split(self._source, *key, self._config)
        return self._stores[key]
