"""Figures of several labels an image: scikit-learn's label by label, unknown labels and repeated images included."""

import time
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from fewlabel.errors import UserError
from fewlabel.supervised.bootstrap import difference, figures_with_intervals, replicates, resamples
from fewlabel.supervised.metrics import Predictions

Array = np.ndarray[Any, Any]
rows = st.lists(
    st.tuples(
        st.lists(st.integers(0, 8), min_size=3, max_size=3), st.lists(st.integers(-1, 1), min_size=3, max_size=3)
    ),
    min_size=2,
    max_size=30,
)


def reference(probabilities: Array, labels: Array) -> dict[str, float] | None:
    """By scikit-learn on the known images of each label; None where no label is both yes and no."""
    found: dict[str, list[float]] = {name: [] for name in ("accuracy", "auroc", "auprc", "f1")}
    decisions = []
    for scores, values in zip(probabilities.T, labels.T, strict=True):
        known = values >= 0
        score, value = scores[known], values[known]
        decided = (score > 0.5).astype(int)
        decisions += list(zip(np.maximum(score, 1 - score), decided == value, strict=True))
        if known.any():
            found["accuracy"].append(metrics.accuracy_score(value, decided))
        if len(set(value)) == 2:
            found["auroc"].append(metrics.roc_auc_score(value, score))
            found["auprc"].append(metrics.average_precision_score(value, score))
            found["f1"].append(metrics.f1_score(value, decided))
    if not found["auroc"]:
        return None
    exact = [
        all((score > 0.5) == value for score, value in zip(scores, values, strict=True) if value >= 0)
        for scores, values in zip(probabilities, labels, strict=True)
        if max(values) >= 0
    ]
    error = 0.0
    for place in range(15):
        inside = [(c, right) for c, right in decisions if place / 15 < c <= (place + 1) / 15]
        error += abs(sum(c - right for c, right in inside)) / len(decisions)
    return {name: float(np.mean(values)) for name, values in found.items()} | {
        "exact_match": float(np.mean(exact)),
        "ece": error,
    }


@settings(max_examples=60, deadline=None)
@given(rows, st.randoms(use_true_random=False))
def test_figures_are_those_of_scikit_learn_on_the_images_and_on_a_resample(
    cases: list[tuple[list[int], list[int]]], random: Any
) -> None:
    # Eighths are exact, so that no two ways to sum fall on two sides of a bin's edge.
    probabilities = np.array([scores for scores, _ in cases]) / 8
    labels = np.array([values for _, values in cases])
    prepared = Predictions(probabilities, labels, threshold=None, ordinal=False)
    drawn = np.array(random.choices(range(len(labels)), k=len(labels)))
    resample = np.bincount(drawn, minlength=len(labels)).astype(np.float64)
    for counts, chosen in ((None, np.arange(len(labels))), (resample, drawn)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            expected = reference(probabilities[chosen], labels[chosen])
            if expected is None:
                with pytest.raises(UserError, match="always yes, always no or unknown"):
                    prepared.figures(counts)
            else:
                assert prepared.figures(counts) == pytest.approx(expected, abs=1e-12)


def test_where_all_is_known_they_are_scikit_learns_own_macro_figures() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((400, 5)) < [0.5, 0.3, 0.2, 0.1, 0.05]).astype(int)
    probabilities = 1 / (1 + np.exp(-rng.normal(size=labels.shape) - 2 * labels + 1))
    found = Predictions(probabilities, labels, threshold=None, ordinal=False).figures()
    decided = probabilities > 0.5
    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(labels, probabilities))
    assert found["auprc"] == pytest.approx(metrics.average_precision_score(labels, probabilities))
    assert found["f1"] == pytest.approx(metrics.f1_score(labels, decided, average="macro"))
    assert found["exact_match"] == pytest.approx(metrics.accuracy_score(labels, decided))
    assert found["accuracy"] == pytest.approx(1 - metrics.hamming_loss(labels, decided))


def test_a_label_that_never_varies_has_no_auroc_and_counts_in_the_accuracy_alone() -> None:
    labels = np.array([[0, 0, -1], [1, 0, -1], [0, 0, -1], [1, 0, -1]])
    probabilities = np.array([[0.1, 0.9, 0.5], [0.8, 0.9, 0.5], [0.3, 0.1, 0.5], [0.2, 0.1, 0.5]])
    predictions = Predictions(probabilities, labels, threshold=None, ordinal=False)
    assert predictions.multi_label
    assert predictions.auroc_of_labels() == [0.75, None, None]
    found = predictions.figures()
    assert found["auroc"] == 0.75
    assert found["accuracy"] == (0.75 + 0.5) / 2
    assert found["exact_match"] == 0.25
    with pytest.raises(ValueError, match="one class an image"):
        Predictions(np.eye(2), np.arange(2), threshold=None, ordinal=False).auroc_of_labels()


def test_attributes_are_what_was_given() -> None:
    labels = np.array([[0, 1], [1, -1]])
    given = Predictions(np.full((2, 2), 0.25, dtype=np.float32), labels, threshold=None, ordinal=False)
    assert given.probabilities.dtype == np.float64
    assert given.probabilities.tolist() == [[0.25, 0.25]] * 2
    assert given.labels.tolist() == labels.tolist()
    classes = Predictions(np.eye(2), np.arange(2), threshold=0.3, ordinal=True)
    assert (classes.threshold, classes.ordinal, classes.multi_label) == (0.3, True, False)


def test_what_can_not_be_evaluated_is_refused() -> None:
    probabilities, labels = np.full((2, 3), 0.5), np.array([[0, 1, -1], [1, 0, 0]])
    with pytest.raises(ValueError, match="of 1, 0 and -1"):
        Predictions(probabilities, labels * 2, threshold=None, ordinal=False).figures()
    with pytest.raises(ValueError, match="of 1, 0 and -1"):
        Predictions(probabilities, labels[:, :2], threshold=None, ordinal=False).figures()
    with pytest.raises(ValueError, match="not 2 labels"):
        Predictions(probabilities[:, :2], labels[:, :2], threshold=0.5, ordinal=False).figures()
    with pytest.raises(ValueError, match="order"):
        Predictions(probabilities, labels, threshold=None, ordinal=True).figures()
    with pytest.raises(UserError, match="1 of 2 images"):
        Predictions(np.array([[0.1, np.nan, 0.1], [0.1, 0.1, 0.1]]), labels, threshold=None, ordinal=False).figures()


def test_a_resample_holds_a_yes_and_a_no_of_each_label() -> None:
    labels = np.zeros((40, 3), dtype=int)
    labels[:5, 0] = 1
    labels[5:, 1] = 1
    labels[:, 2] = np.where(np.arange(40) < 4, [1, 0, 1, 0] * 10, -1)
    for indices in resamples(40, None, labels, count=200):
        drawn = labels[indices]
        assert [set(column) - {-1} for column in drawn.T] == [{0, 1}] * 3


def test_intervals_and_differences_of_several_labels() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 4)) < 0.3).astype(int)
    good, bad = (
        Predictions(
            1 / (1 + np.exp(-rng.normal(size=labels.shape) - gain * labels)), labels, threshold=None, ordinal=False
        )
        for gain in (3, 0.5)
    )
    found = figures_with_intervals([good], None, count=100)
    assert {name: figure.mean for name, figure in found.items()} == good.figures()
    assert all(figure.low < figure.mean < figure.high or name == "ece" for name, figure in found.items())
    of_good, of_bad = (replicates([said], None, count=100)["auroc"] for said in (good, bad))
    assert difference(of_good, of_bad).low > 0


def test_a_thousand_resamples_take_seconds() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((2000, 14)) < 0.1).astype(int)
    predictions = Predictions(rng.random(labels.shape), labels, threshold=None, ordinal=False)
    counts = [np.bincount(rng.integers(2000, size=2000), minlength=2000).astype(np.float64) for _ in range(20)]
    start = time.process_time()
    for resample in counts:
        predictions.figures(resample)
    # scikit-learn takes some 40 ms a resample for the areas alone.
    assert (time.process_time() - start) / 20 < 0.02
