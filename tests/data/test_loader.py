"""The loader: a pure function of seed and step, disjoint over processes."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fewlabel.data import ImageBatch, Loader, load, open_store
from fewlabel.errors import UserError


class Numbers:
    """Stands for a store whose images are their own positions."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: torch.Tensor) -> ImageBatch:
        return ImageBatch(indices.view(-1, 1, 1, 1), torch.ones(len(indices)), indices)


def loader(count: int = 23, batch_size: int = 4, seed: int = 7, **options: Any) -> Loader:
    return Loader(Numbers(count), batch_size, seed, **options)  # type: ignore[arg-type]


def indices(loader: Loader, start: int, stop: int) -> list[list[int]]:
    return [batch.index.tolist() for batch in loader.iterate(start, stop)]


def test_each_epoch_sees_each_image_once_at_most_and_in_a_new_order() -> None:
    one = loader()
    assert one.steps_per_epoch == 5
    epochs = [[i for batch in indices(one, 5 * e, 5 * e + 5) for i in batch] for e in range(3)]
    assert all(len(set(epoch)) == 20 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    whole = indices(loader(), 0, 17)
    assert indices(loader(), 8, 17) == whole[8:]
    assert indices(loader(prefetch=5), 0, 17) == whole
    late = loader()
    assert [late.batch_at(step).index.tolist() for step in reversed(range(17))] == whole[::-1]
    assert indices(loader(seed=8), 0, 17) != whole
    # Neighbouring seeds must not share the orders of neighbouring epochs.
    assert not {tuple(b) for b in indices(loader(seed=8), 0, 20)} & {tuple(b) for b in whole}


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_out_the_batch_of_one(world: int) -> None:
    size = 12 // world
    single = indices(loader(50, 12), 0, 9)
    ranks = [indices(loader(50, size, rank=rank, world=world), 0, 9) for rank in range(world)]
    assert [[i for rank in ranks for i in rank[step]] for step in range(9)] == single


def test_a_batch_larger_than_the_set() -> None:
    with pytest.raises(UserError, match="A batch of 24 is larger than the set of 23 images"):
        loader(23, 24)
    with pytest.raises(UserError, match=r"A batch of 24 \(8 on each of 3 processes\)"):
        loader(23, 8, world=3)
    assert loader(24, 8, world=3).steps_per_epoch == 1


def test_stopping_early_leaves_no_thread() -> None:
    for batch in loader().iterate(0, 1000):
        assert len(batch.index) == 4
        break
    del batch
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fewlabel-data")]


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    broken = SimpleNamespace(batch=lambda _: 1 / 0)
    one = loader()
    one._store.batch = broken.batch  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        next(iter(one.iterate(0, 3)))


def test_real_images_come_with_their_own_pixels(tmp_path: Path) -> None:
    store = open_store(load("digits"), "val", 8, cache_dir=tmp_path, workers=1, max_bad_share=0)
    for batch in Loader(store, 32, seed=0).iterate(3, 7):
        assert torch.equal(batch.pixels, store.batch(batch.index).pixels)
        assert batch.pixels.shape == (32, 1, 8, 8)
