import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from fewlabel.training.features import knn_accuracy, knn_probabilities, wilson_interval


def test_knn_agrees_with_scikit_learn():
    torch.manual_seed(0)
    centres = torch.randn(5, 16)
    labels, bank_labels = torch.randint(5, (200,)), torch.randint(5, (300,))
    queries, bank = centres[labels] + torch.randn(200, 16), centres[bank_labels] + torch.randn(300, 16)
    reference = KNeighborsClassifier(
        20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.1)
    ).fit(bank.numpy(), bank_labels.numpy())
    expected = reference.score(queries.numpy(), labels.numpy())
    found = knn_accuracy(bank, bank_labels, queries, labels)
    assert 0.5 < expected < 1.0
    assert found.mean == pytest.approx(expected, abs=1e-12)
    assert found.low < found.mean < found.high


def test_knn_takes_what_a_small_bank_has():
    bank = nn.functional.one_hot(torch.arange(3)).float()
    assert knn_accuracy(bank, torch.arange(3), bank, torch.arange(3)).mean == 1.0


def test_wilson_interval_against_published_values():
    """Newcombe 1998, table I, method 3."""
    for successes, trials, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
    ):
        interval = wilson_interval(successes, trials)
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-4)


def test_neighbours_vote_on_each_label_that_they_know():
    torch.manual_seed(0)
    bank, queries = torch.randn(80, 6), torch.randn(30, 6)
    labels = torch.randint(-1, 2, (80, 3))
    labels[:, 2] = -1
    found = knn_probabilities(bank, labels, queries, 3, k=20)
    normal = nn.functional.normalize(bank)
    for query, shares in zip(nn.functional.normalize(queries), found, strict=True):
        similarities, nearest = (normal @ query).double().topk(20)
        for label in (0, 1):
            said = labels[nearest, label]
            weights = (similarities / 0.1).exp() * (said >= 0)
            assert float(shares[label]) == pytest.approx(float((weights * (said == 1)).sum() / weights.sum()), abs=1e-5)
    assert (found[:, 2] == 0.5).all()


def test_where_no_neighbour_knows_a_label_the_bank_does():
    bank = torch.eye(4)
    labels = torch.tensor([[-1], [1], [1], [0]])
    found = knn_probabilities(bank, labels, bank[:2], 1, k=1)
    assert found.flatten().tolist() == pytest.approx([2 / 3, 1])
