"""How long the trainings of a search are, at full length and as trials, and what sizes of images they open."""

from types import SimpleNamespace

import pytest
import torch

from fewlabel.data.config import SourceConfig
from fewlabel.data.loading import load
from fewlabel.data.store import open_store
from fewlabel.errors import UserError
from fewlabel.search import images
from fewlabel.search.config import ProxyConfig
from fewlabel.search.cost import Model
from fewlabel.search.images import Splits, some_of
from fewlabel.search.lengths import finetuning_lengths, labelled_of, pretraining_lengths
from fewlabel.search.memory import OutOfMemory, giving_memory_back
from fewlabel.training.config import TrainingConfig
from fewlabel.training.processes import make_accelerator

MODEL = Model("timm/test_efficientnet", image_size=32, in_chans=1)


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """1,258 images of ten classes."""
    options = {"cache_dir": tmp_path_factory.mktemp("cache"), "workers": 1, "max_bad_share": 0.0}
    return open_store(load(SourceConfig()), "train", 8, **options)


@pytest.mark.parametrize(
    ("training", "proxy", "full", "short"),
    [
        # Batch, steps an epoch and steps in all. 64 is the power of two below a sixteenth of 1,258.
        ({}, {}, (64, 19, 100 * 19), (64, 19, 10 * 19)),
        ({"epochs": 30}, {}, (64, 19, 30 * 19), (64, 19, 3 * 19)),
        ({"epochs": 3}, {}, (64, 19, 3 * 19), (64, 19, 19)),
        ({"max_steps": 77}, {}, (64, 19, 77), (64, 19, 7)),
        ({"max_steps": 77}, {"proxy_epochs": 2}, (64, 19, 77), (64, 19, 2 * 19)),
        ({"epochs": 30}, {"proxy_images": 300}, (64, 19, 30 * 19), (16, 18, 3 * 18)),
        ({"epochs": 30, "batch_size": 100}, {"proxy_images": 300}, (100, 12, 30 * 12), (100, 3, 3 * 3)),
        ({"epochs": 30}, {"proxy_images": 5000}, (64, 19, 30 * 19), (64, 19, 3 * 19)),
    ],
)
def test_pretraining(train, training, proxy, full, short):
    found = pretraining_lengths(train, MODEL, TrainingConfig(**training), ProxyConfig(**proxy), None)
    for length, (batch, epoch, steps) in zip(found, (full, short), strict=True):
        assert (length.training.batch_size, length.plan.steps_per_epoch, length.plan.total_steps) == (
            batch,
            epoch,
            steps,
        )
        assert length.training.evaluate_steps == length.plan.evaluate_steps
    assert len(found[0].images) == len(train)
    assert len(found[1].images) == min(len(train), proxy.get("proxy_images", len(train)))


def test_a_source_suggests_the_full_length(train):
    full, short = pretraining_lengths(train, MODEL, TrainingConfig(), ProxyConfig(), 250)
    assert (full.training.epochs, short.training.epochs) == (250, 25)


def test_a_warm_up_that_was_given_is_the_full_lengths(train):
    full, short = pretraining_lengths(train, MODEL, TrainingConfig(epochs=40, warmup_epochs=20), ProxyConfig(), None)
    assert full.plan.warmup_steps == 20 * 19
    assert short.plan.warmup_steps == 4 * 19 // 10


def test_learning_from_labels(train):
    training, proxy = TrainingConfig(seed=2), ProxyConfig(proxy_images=200, proxy_image_size=24)
    full, short = finetuning_lengths(train, MODEL, training, proxy, 0.5)
    assert len(full.images) == pytest.approx(629, abs=1)
    assert len(short.images) == pytest.approx(200, abs=1)
    assert set(short.images.tolist()) < set(full.images.tolist())
    # A quarter of the images rounded down to a power of two, from 16 to 64; and what makes 300 steps at full length.
    assert (full.training.batch_size, full.training.epochs, full.plan.total_steps) == (64, 34, 34 * 9)
    assert (short.training.batch_size, short.training.epochs, short.plan.total_steps) == (32, 3, 3 * 6)
    assert (full.model.image_size, short.model.image_size) == (32, 24)
    # Rates are those of the network that is trained.
    assert full.training.lr is None


def test_a_share_of_the_labels_has_every_class(train):
    counts = torch.bincount(train.labels[labelled_of(train, 0.1, 0)], minlength=10)
    assert counts.sum() == 126
    assert counts.min() >= 12


def test_a_part_is_drawn_once_for_a_seed():
    places = torch.arange(0, 100, 2)
    drawn = some_of(places, 10, 0)
    assert len(set(drawn.tolist()) & set(places.tolist())) == 10
    assert torch.equal(drawn, drawn.sort().values)
    assert torch.equal(drawn, some_of(places, 10, 0))
    assert not torch.equal(drawn, some_of(places, 10, 1))
    assert torch.equal(some_of(places, 50, 0), places)


def test_a_batch_must_fit_and_divide(train):
    with pytest.raises(UserError, match="--batch-size to 30 or less"):
        pretraining_lengths(train, MODEL, TrainingConfig(batch_size=64), ProxyConfig(proxy_images=30), None)
    with pytest.raises(UserError, match="does not divide by 2 processes"):
        pretraining_lengths(train, MODEL, TrainingConfig(batch_size=63, processes=2), ProxyConfig(), None)


def test_images_are_kept_at_few_sides(monkeypatch):
    """As pretraining keeps them at scale 1: at half as much again as the views, and never enlarged."""
    opened = []
    monkeypatch.setattr(images, "open_split", lambda source, split, side, config: opened.append(side))
    accelerator = make_accelerator(TrainingConfig(), "fp32")
    splits = Splits(SimpleNamespace(median_side=500), SourceConfig(), accelerator)
    for size in (100, 60, 101, 150, 149, 151, 225, 226, 1000):
        splits.at("train", size, 100)
    assert opened == [150, 225, 337, 500]
    for size in (32, 48, 64, 200):
        Splits(SimpleNamespace(median_side=32), SourceConfig(), accelerator).at("train", size, 32)
    assert opened[4:] == [32] * 4


def test_memory_that_ran_out_is_told_from_other_errors():
    accelerator = make_accelerator(TrainingConfig(), "fp32")
    with pytest.raises(OutOfMemory, match="out of memory"), giving_memory_back(accelerator):
        torch.empty(2**55)
    with pytest.raises(OutOfMemory, match="CUDA out of memory"), giving_memory_back(accelerator):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
    with pytest.raises(OutOfMemory, match="MemoryError"), giving_memory_back(accelerator):
        raise MemoryError
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), giving_memory_back(accelerator):
        torch.ones(2, 3) @ torch.ones(2, 3)


def test_what_took_the_memory_is_given_back():
    class Large:
        alive = 0

        def __init__(self):
            Large.alive += 1

        def __del__(self):
            Large.alive -= 1

    def training():
        held = Large()
        assert held.alive == 1
        torch.empty(2**55)

    accelerator = make_accelerator(TrainingConfig(), "fp32")
    network = accelerator.prepare(torch.nn.Linear(2, 2))
    assert accelerator._models == [network]
    with pytest.raises(OutOfMemory) as caught, giving_memory_back(accelerator):
        training()
    assert caught.value is not None
    assert Large.alive == 0
    assert not accelerator._models
