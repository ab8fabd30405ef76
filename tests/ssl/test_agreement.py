"""Mutual nearest neighbours: against a loop over images, and where the answer is known beforehand."""

import pytest
import torch
from torch import nn

from fewlabel.backbones.backbone import Backbone
from fewlabel.backbones.featurizer import Featurizer
from fewlabel.backbones.scale import Scale
from fewlabel.data.config import SourceConfig
from fewlabel.data.loading import load
from fewlabel.data.store import open_store
from fewlabel.data.views import TwoViews
from fewlabel.errors import Diverged
from fewlabel.ssl import agreement
from fewlabel.ssl.agreement import agreement_on, mutual_neighbours
from fewlabel.training.config import TrainingConfig
from fewlabel.training.processes import make_accelerator


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def neighbours(features, image, k):
    """The k images other than `image` with the greatest cosine to it, one comparison at a time."""
    similar = []
    for other in range(len(features)):
        if other != image:
            one, two = features[image].double(), features[other].double()
            similar.append((float(one @ two / (one.norm() * two.norm())), other))
    return {other for _, other in sorted(similar, reverse=True)[:k]}


@pytest.mark.parametrize("rows", [7, 1024])
@pytest.mark.parametrize(("count", "k"), [(2, 1), (5, 10), (40, 1), (40, 6)])
def test_a_loop_over_images_says_the_same(monkeypatch, rows, count, k):
    monkeypatch.setattr(agreement, "_ROWS", rows)
    first = random(count, 5)
    second = torch.cat([first * 3, random(count, 2, seed=1)], dim=1)
    taken = min(k, count - 1)
    expected = [len(neighbours(first, i, taken) & neighbours(second, i, taken)) / taken for i in range(count)]
    assert mutual_neighbours(first, second, k).tolist() == pytest.approx(expected)
    assert count < 40 or 0 < sum(expected) < count


def test_what_does_not_change_the_angles_does_not_change_the_neighbours():
    features = random(300, 8)
    turn, _ = torch.linalg.qr(random(8, 8, seed=1))
    lengths = random(300, 1, seed=2).abs() + 0.1
    assert mutual_neighbours(features, lengths * (features @ turn)).eq(1).all()


def test_it_is_the_same_both_ways_and_in_any_order_of_the_images():
    first = random(200, 6)
    second = first + 0.5 * random(200, 6, seed=1)
    found = mutual_neighbours(first, second)
    assert 0.1 < found.mean() < 0.9
    assert torch.equal(found, mutual_neighbours(second, first, seed=3))
    order = torch.randperm(200, generator=torch.Generator().manual_seed(4))
    assert torch.equal(found[order], mutual_neighbours(first[order], second[order]))


@pytest.mark.parametrize("kind", ["unrelated", "a point", "two points"])
def test_features_that_say_nothing_get_what_chance_gives(kind):
    """Collapsed ones too: to which point an image goes must be worth something, and where all are equal nothing is."""
    count, k = 1000, 10
    first, second, chance = random(count, 16), random(count, 16, seed=1), k / (count - 1)
    if kind != "unrelated":
        points = random(2, 16)
        first = points[:1].expand(count, -1) if kind == "a point" else points[torch.arange(count) % 2]
        second = 2 * first
    if kind == "two points":
        chance = k / (count / 2 - 1)
    # As many standard deviations as make a failure of 1 in 10,000 seeds.
    deviation = (chance / k / count) ** 0.5
    assert mutual_neighbours(first, second, k).mean() == pytest.approx(chance, abs=4 * deviation)


def test_the_nearer_the_views_the_higher():
    first = random(400, 12)
    means = [mutual_neighbours(first, first + noise * random(400, 12, seed=1)).mean() for noise in (0.1, 0.4, 1.6)]
    assert 1 > means[0] > means[1] + 0.1 > means[2] + 0.2


def test_shapes_that_do_not_fit_are_refused():
    for first, second in ((random(3, 2), random(4, 2)), (random(1, 2), random(1, 2)), (random(3), random(3))):
        with pytest.raises(ValueError, match="expected"):
            mutual_neighbours(first, second)


class Mean(nn.Module):
    """Means of a grid of patches: features that need no training."""

    head_hidden_size = 16

    def __init__(self):
        super().__init__()
        self.dropped = nn.Dropout(0.9)

    def forward(self, images):
        return self.dropped(nn.functional.adaptive_avg_pool2d(images, 4).flatten(1))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    options = {"cache_dir": tmp_path_factory.mktemp("cache"), "workers": 1, "max_bad_share": 0.0}
    return open_store(load(SourceConfig()), "val", 8, **options)


def featurizer_of(body):
    backbone = Backbone(
        body, name="mean", options={}, image_size=8, in_chans=1, scale=Scale(), timm_call=None, convolutional=True
    )
    return Featurizer(backbone, (0.3,), (0.4,))


def test_views_of_images_are_compared_in_evaluation_mode(digits):
    featurizer, places = featurizer_of(Mean()), torch.arange(0, len(digits), 2)
    accelerator = make_accelerator(TrainingConfig(), "fp32")
    views = TwoViews("digits", 8, (0.0,), (1.0,))
    found = agreement_on(featurizer, views, digits, places, accelerator, seed=5, batch_size=32)
    assert featurizer.training
    assert featurizer.backbone.body.dropped.training
    assert torch.equal(found, agreement_on(featurizer, views, digits, places, accelerator, seed=5, batch_size=32))
    assert found.mean() > 1.5 * agreement.NEIGHBOURS / (len(places) - 1)
    # In one batch there is one draw, done here by hand.
    whole = agreement_on(featurizer, views, digits, places, accelerator, seed=5)
    batch = digits.batch(places)
    drawn = views(batch.pixels, batch.aspect, torch.Generator().manual_seed(5))
    by_hand = [nn.functional.adaptive_avg_pool2d((view - 0.3) / 0.4, 4).flatten(1) for view in drawn]
    assert torch.equal(whole, mutual_neighbours(*by_hand, seed=5))


def test_spoilt_weights_are_told(digits):
    class Spoilt(Mean):
        def forward(self, images):
            return super().forward(images) / 0

    views = TwoViews("digits", 8, (0.0,), (1.0,))
    with pytest.raises(Diverged, match="finite"):
        agreement_on(
            featurizer_of(Spoilt()),
            views,
            digits,
            torch.arange(20),
            make_accelerator(TrainingConfig(), "fp32"),
            seed=0,
        )
