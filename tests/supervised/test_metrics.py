"""Figures: scikit-learn's own, ties, repeated images and missing classes included."""

import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from torchmetrics.functional.classification import multiclass_calibration_error

from fewlabel.errors import UserError
from fewlabel.supervised.metrics import Predictions, best_threshold

Case = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


@st.composite
def cases(draw: st.DrawFn, most_classes: int = 4) -> Case:
    """Few distinct probabilities, so that ties abound, and labels of two classes at least."""
    classes = draw(st.integers(2, most_classes))
    weights = st.lists(st.integers(0, 3), min_size=classes, max_size=classes).filter(any)
    rows = draw(st.lists(st.tuples(weights, st.integers(0, classes - 1)), min_size=2, max_size=30))
    probabilities = np.array([np.array(row) / sum(row) for row, _ in rows])
    labels = np.array([label for _, label in rows])
    if len(set(labels)) < 2:
        labels[0] = (labels[0] + 1) % classes
    return probabilities, labels


def calibration_error(probabilities: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """Guo et al. 2017, equations 2, 3 and 5, by a loop; bin m is ((m - 1) / M, m / M]."""
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    edges = np.linspace(0, 1, 16)
    error = 0.0
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            accuracy = (predicted == labels)[inside].mean()
            error += inside.mean() * abs(accuracy - confidence[inside].mean())
    return error


def reference(
    probabilities: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], threshold: float | None
) -> dict[str, float]:
    classes, predicted = probabilities.shape[1], probabilities.argmax(axis=1)
    ranked = [k for k in ([1] if classes == 2 else range(classes)) if k in labels]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of predicted classes without images
        found = {
            "accuracy": metrics.accuracy_score(labels, predicted),
            "balanced_accuracy": metrics.balanced_accuracy_score(labels, predicted),
            "auroc": np.mean([metrics.roc_auc_score(labels == k, probabilities[:, k]) for k in ranked]),
            "auprc": np.mean([metrics.average_precision_score(labels == k, probabilities[:, k]) for k in ranked]),
            "f1": metrics.f1_score(labels, predicted, average="macro"),
            "ece": calibration_error(probabilities, labels),
            "kappa_quadratic": metrics.cohen_kappa_score(
                labels, predicted, weights="quadratic", labels=np.arange(classes)
            ),
        }
    if threshold is not None:
        decided = probabilities[:, 1] >= threshold
        found["sensitivity"] = metrics.recall_score(labels, decided)
        found["specificity"] = metrics.recall_score(labels, decided, pos_label=0)
    return found


@settings(max_examples=40, deadline=None)
@given(cases(), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.randoms(use_true_random=False))
def test_figures_are_those_of_scikit_learn_on_the_images_and_on_a_resample(
    case: Case, threshold: float, random: Any
) -> None:
    probabilities, labels = case
    decision = threshold if probabilities.shape[1] == 2 else None
    prepared = Predictions(probabilities, labels, threshold=decision, ordinal=True)
    assert prepared.figures() == pytest.approx(reference(probabilities, labels, decision), abs=1e-12)

    drawn = np.array(random.choices(range(len(labels)), k=len(labels)))
    counts = np.bincount(drawn, minlength=len(labels)).astype(np.float64)
    if len(set(labels[drawn])) < 2:
        with pytest.raises(UserError, match="one class"):
            prepared.figures(counts)
    else:
        expected = reference(probabilities[drawn], labels[drawn], decision)
        assert prepared.figures(counts) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 9])
def test_figures_of_continuous_probabilities(classes: int) -> None:
    generator = np.random.default_rng(classes)
    labels = generator.integers(classes, size=500)
    logits = generator.normal(size=(500, classes)) + 2 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = Predictions(probabilities, labels, threshold=None, ordinal=True).figures()
    assert found == pytest.approx(reference(probabilities, labels, None), abs=1e-12)
    # One class against the rest, as scikit-learn and torchmetrics do it in one call.
    scores = probabilities[:, 1] if classes == 2 else probabilities
    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(labels, scores, multi_class="ovr"), abs=1e-12)
    error = multiclass_calibration_error(torch.tensor(probabilities), torch.tensor(labels), classes, n_bins=15)
    assert found["ece"] == pytest.approx(float(error), abs=1e-6)


def test_a_class_without_images_is_left_out_of_the_areas() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.3, 0.1, 0.6], [0.5, 0.4, 0.1]])
    labels = np.array([0, 2, 2, 0])
    found = Predictions(probabilities, labels, threshold=None, ordinal=False).figures()
    assert np.isfinite(list(found.values())).all()
    assert found["auroc"] == found["auprc"] == found["balanced_accuracy"] == 1


def test_names_depend_on_the_task() -> None:
    two, three = np.full((4, 2), 0.5), np.full((3, 3), 1 / 3)
    common = {"accuracy", "balanced_accuracy", "auroc", "auprc", "f1", "ece"}
    binary, ternary = np.array([0, 1, 0, 1]), np.arange(3)
    assert set(Predictions(two, binary, threshold=None, ordinal=False).figures()) == common
    assert set(Predictions(two, binary, threshold=0.5, ordinal=False).figures()) == common | {
        "sensitivity",
        "specificity",
    }
    assert set(Predictions(three, ternary, threshold=None, ordinal=True).figures()) == common | {"kappa_quadratic"}


def test_quadratic_kappa_keeps_the_distance_over_grades_that_do_not_occur() -> None:
    labels = np.array([0, 0, 1, 4])
    near, far = np.eye(5)[[0, 1, 1, 4]], np.eye(5)[[0, 4, 1, 4]]
    found = [
        Predictions(guess, labels, threshold=None, ordinal=True).figures()["kappa_quadratic"] for guess in (near, far)
    ]
    assert found[0] > 0.9 > 0.5 > found[1]


def test_what_can_not_be_evaluated_is_refused() -> None:
    probabilities = np.array([[0.6, 0.4], [0.5, 0.5]])
    with pytest.raises(UserError, match="2 images to evaluate on are all of one class"):
        Predictions(probabilities, np.array([1, 1]), threshold=None, ordinal=False).figures()
    with pytest.raises(UserError, match="1 of 2 images"):
        Predictions(np.array([[0.6, 0.4], [np.nan, 0.5]]), np.array([0, 1]), threshold=None, ordinal=False).figures()
    with pytest.raises(ValueError, match="within 0 to 1"):
        Predictions(probabilities, np.array([0, -1]), threshold=None, ordinal=False).figures()
    with pytest.raises(ValueError, match="two classes, not 3"):
        Predictions(np.full((3, 3), 1 / 3), np.arange(3), threshold=0.5, ordinal=False).figures()


@settings(max_examples=40, deadline=None)
@given(cases(most_classes=2))
def test_the_threshold_is_the_highest_of_those_with_the_largest_youden_index(case: Case) -> None:
    probabilities, labels = case
    scores = probabilities[:, 1]
    chosen = best_threshold(scores, labels)
    youden = {t: round(metrics.balanced_accuracy_score(labels, scores >= t), 12) for t in scores}
    assert chosen == max(t for t in youden if youden[t] == max(youden.values()))


def test_equal_youden_indices_stay_equal_when_rounded() -> None:
    # 2/3 - 1/3 at 0.7 and 1 - 2/3 at 0.3, which differ in floating point.
    assert best_threshold(np.array([0.9, 0.8, 0.7, 0.5, 0.3, 0.1]), np.array([0, 1, 1, 0, 1, 0])) == 0.7


def test_a_threshold_needs_both_classes() -> None:
    with pytest.raises(UserError, match="all of one class"):
        best_threshold(np.array([0.2, 0.7]), np.array([1, 1]))
