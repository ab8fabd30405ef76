"""Judgements: their intervals against those of the rest of the package, with groups and several labels an image."""

from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fewlabel.search.images import Images
from fewlabel.search.judging import by_agreement, by_labels, compare
from fewlabel.supervised.bootstrap import difference, figures_with_intervals, replicates
from fewlabel.supervised.metrics import Predictions

COUNT = 60


def images_of(labels, groups=None):
    """Every second image of a store."""
    places = torch.arange(0, 2 * len(labels), 2)
    every = torch.full((2 * len(labels), *labels.shape[1:]), -1)
    every[places] = labels
    names = None if groups is None else [name for group in groups for name in (group, "other")]
    return Images(SimpleNamespace(labels=every, groups=names), places)


def said_of(labels, sure, seed):
    """Probabilities that lean towards the labels."""
    generator = np.random.default_rng(seed)
    if labels.ndim == 2:
        return torch.from_numpy(
            np.clip(0.5 + sure * (labels.numpy() - 0.5) + generator.normal(0, 0.6, labels.shape), 0, 1)
        )
    logits = generator.normal(size=(len(labels), 3))
    logits[np.arange(len(labels)), labels.numpy()] += sure
    return torch.from_numpy(logits).softmax(dim=1)


ONE = torch.arange(COUNT) % 3
SEVERAL = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (COUNT, 2)))
GROUPS = [f"patient {number // 4}" for number in range(COUNT)]


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["images", "groups"])
@pytest.mark.parametrize(("labels", "figure"), [(ONE, "accuracy"), (SEVERAL, "auroc")], ids=["classes", "labels"])
def test_by_labels_they_are_those_of_the_other_commands(labels, figure, groups):
    better, worse = said_of(labels, 1.5, 1), said_of(labels, 0.2, 2)
    judged = [by_labels(said, images_of(labels, groups), seed=5) for said in (better, worse)]
    expected = [Predictions(said.numpy(), labels.numpy(), threshold=None, ordinal=False) for said in (better, worse)]
    for one, other in zip(judged, expected, strict=True):
        assert one.figures == pytest.approx(other.figures())
        assert one.value == pytest.approx(other.figures()[figure])
        known = figures_with_intervals([other], groups, seed=5)[figure]
        assert asdict(one.interval()) == pytest.approx(asdict(known))
    found = compare(figure, *judged, COUNT)
    paired = difference(*(replicates([other], groups, seed=5)[figure] for other in expected))
    assert asdict(found.difference) == pytest.approx(asdict(paired))
    assert found.difference.low > 0
    assert found.winner.low < found.winner.mean < found.winner.high


def test_by_agreement_whole_groups_widen_the_interval():
    shares = torch.tensor([0.1, 0.9]).repeat_interleave(4).repeat(COUNT // 8 + 1)[:COUNT]
    alone, grouped = (by_agreement(shares, images_of(ONE, groups), seed=0) for groups in (None, GROUPS))
    assert alone.value == grouped.value == pytest.approx(float(shares.mean()))
    widths = [one.interval().high - one.interval().low for one in (alone, grouped)]
    # Four alike in each group are worth a quarter of the images.
    assert widths[1] / widths[0] == pytest.approx(2, abs=0.25)


def test_equal_models_differ_by_nothing():
    judged = by_agreement(torch.rand(COUNT, generator=torch.Generator().manual_seed(0)), images_of(ONE), seed=0)
    found = compare("agreement", judged, judged, COUNT)
    assert asdict(found.difference) == {"mean": 0, "low": 0, "high": 0}
    assert found.winner == found.base


@pytest.mark.parametrize(
    ("labels", "groups", "by_labels", "fit"),
    [
        (ONE, None, True, True),
        (torch.zeros(COUNT, dtype=torch.int64), None, True, False),
        (torch.zeros(COUNT, dtype=torch.int64), None, False, True),
        (ONE, ["one"] * COUNT, True, False),
        (ONE, GROUPS, True, True),
        (ONE[:2], None, False, False),
        (SEVERAL, None, True, True),
        (torch.ones(COUNT, 3, dtype=torch.int64), None, True, False),
    ],
)
def test_whether_images_can_judge(labels, groups, by_labels, fit):
    assert images_of(labels, groups).fit_to_judge(labelled=by_labels) is fit
