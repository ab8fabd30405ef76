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


def test_indices_are_all_that_is_drawn_from() -> None:
    chosen = torch.tensor([3, 5, 8, 13, 21])
    drawn = indices(loader(indices=chosen, batch_size=2), 0, 10)
    assert {place for batch in drawn for place in batch} == set(chosen.tolist())
    assert all(len(set(first + second)) == 4 for first, second in zip(drawn[::2], drawn[1::2], strict=True))
    with pytest.raises(UserError, match="A batch of 6 is larger than the set of 5 images"):
        loader(indices=chosen, batch_size=6)


def test_a_partner_is_another_image_of_the_group_or_the_image_itself_where_it_is_alone() -> None:
    store = Numbers(23)
    store.groups = [f"patient {place % 5 if place < 20 else place}" for place in range(23)]  # type: ignore[attr-defined]
    pairs = Loader(store, 4, seed=1, partners=True)  # type: ignore[arg-type]
    alone = Loader(store, 4, seed=1)  # type: ignore[arg-type]
    met: dict[int, set[int]] = {}
    for step in range(200):
        batch = pairs.batch_at(step).index
        assert torch.equal(batch[:4], alone.batch_at(step).index)
        for image, partner in zip(batch[:4].tolist(), batch[4:].tolist(), strict=True):
            met.setdefault(image, set()).add(partner)
    for image, partners in met.items():
        expected = {other for other in range(23) if store.groups[other] == store.groups[image]}  # type: ignore[attr-defined]
        assert partners == (expected - {image} or {image})


def test_partners_are_the_same_for_one_process_and_for_two() -> None:
    store = Numbers(16)
    store.groups = ["one", "other"] * 8  # type: ignore[attr-defined]
    whole = Loader(store, 4, seed=1, partners=True).batch_at(9).index  # type: ignore[arg-type]
    halves = [Loader(store, 2, seed=1, rank=rank, world=2, partners=True).batch_at(9).index for rank in (0, 1)]  # type: ignore[arg-type]
    assert torch.equal(whole, torch.cat([halves[0][:2], halves[1][:2], halves[0][2:], halves[1][2:]]))


def test_partners_need_groups() -> None:
    store = Numbers(8)
    store.groups = None  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"--positives group .* --group-column"):
        Loader(store, 4, seed=1, partners=True)  # type: ignore[arg-type]
