"""Figures of a classifier on labelled images: how often it is right, how well it ranks, how far to trust it."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fewlabel.errors import UserError

__all__ = ["Predictions", "best_threshold", "figures"]

_CALIBRATION_BINS: Final = 15


class Predictions:
    """What a classifier says of N labelled images, prepared so that the figures of a resample cost little.

    The figures are scikit-learn's, to the last digits. They are computed from how often each image counts,
    after one sort, because a bootstrap asks for them a thousand times.

    Args:
        probabilities: `(N, K)` float, a row for each image, K at least 2.
        labels: `(N,)` int, 0 to K - 1.
        threshold: with two classes, the probability from which an image counts as class 1 for sensitivity and
            specificity, which are left out if it is None; chosen on other images, by `best_threshold`.
        ordinal: whether the order of the classes means something.

    Raises:
        UserError: a probability is NaN or infinite.
        ValueError: shapes or labels are not as above, or there is a threshold with more than two classes.
    """

    def __init__(
        self, probabilities: NDArray[Any], labels: NDArray[Any], *, threshold: float | None, ordinal: bool
    ) -> None:
        probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.int64)
        number, classes = probabilities.shape
        if labels.shape != (number,) or classes < 2 or not np.isin(labels, np.arange(classes)).all():
            raise ValueError(f"expected {number} labels within 0 to {classes - 1}, and two classes at least")
        if threshold is not None and classes != 2:
            raise ValueError(f"a threshold is for two classes, not {classes}")
        bad = number - int(np.isfinite(probabilities).all(axis=1).sum())
        if bad:
            raise UserError(
                f"The classifier gives {bad} of {number} images a probability that is NaN or infinite. "
                "Its weights are spoilt: train it again with a lower learning rate."
            )
        self.labels = labels
        self._ordinal, self._classes = ordinal, classes
        self._predicted = probabilities.argmax(axis=1)
        self._correct = (self._predicted == labels).astype(np.float64)
        top = probabilities.max(axis=1)
        self._bins = np.digitize(top, np.linspace(0, 1, _CALIBRATION_BINS + 1)[1:-1], right=True)
        self._overconfidence = top - self._correct
        self._decided = None if threshold is None else ((probabilities[:, 1] >= threshold) == labels).astype(np.float64)
        ranked = [1] if classes == 2 else range(classes)
        self._rankings = {k: _ranking(probabilities, labels, k) for k in ranked}

    def figures(self, counts: NDArray[np.float64] | None = None) -> dict[str, float]:
        """The figures where image i counts `counts[i]` times, a whole number; once each without `counts`.

        Returns:
            accuracy: the share of images whose most probable class is right.
            balanced_accuracy: the mean of the classes' recalls, over the classes with images.
            auroc: of class 1 where there are two classes; else the mean over one class against the rest.
            auprc: average precision, of the same classes.
            f1: the mean of the classes' F1, over the classes with images or predictions.
            ece: expected calibration error in 15 bins of equal width (Guo et al. 2017, section 2).
            kappa_quadratic: Cohen's kappa with quadratic weights; where the classes are ordinal.
            sensitivity, specificity: the recalls of class 1 and 0 at the threshold; where there is one.

            A class without images is left out of `auroc` and `auprc`. None is ever NaN.

        Raises:
            UserError: the images are of fewer than two classes.
        """
        if counts is None:
            counts = np.ones(len(self.labels))
        support = np.bincount(self.labels, counts, self._classes)
        present = support > 0
        if present.sum() < 2:
            raise UserError(
                f"The {counts.sum():.0f} images to evaluate on are all of one class; figures need two classes at "
                "least. Add images of another class, or give the split a larger share."
            )
        total = support.sum()
        correct = np.bincount(self.labels, counts * self._correct, self._classes)
        predicted = np.bincount(self._predicted, counts, self._classes)
        known = support + predicted > 0
        gaps = np.bincount(self._bins, counts * self._overconfidence)
        areas = [_areas(ranking, counts) for k, ranking in self._rankings.items() if present[k]]
        found = {
            "accuracy": correct.sum() / total,
            "balanced_accuracy": (correct[present] / support[present]).mean(),
            "auroc": np.mean([auroc for auroc, _ in areas]),
            "auprc": np.mean([auprc for _, auprc in areas]),
            "f1": (2 * correct[known] / (support + predicted)[known]).mean(),
            "ece": np.abs(gaps).sum() / total,
        }
        if self._ordinal:
            found["kappa_quadratic"] = self._kappa(counts, support / total, predicted / total)
        if self._decided is not None:
            specificity, sensitivity = np.bincount(self.labels, counts * self._decided, 2) / support
            found |= {"sensitivity": sensitivity, "specificity": specificity}
        return {name: float(value) for name, value in found.items()}

    def _kappa(self, counts: NDArray[np.float64], labelled: NDArray[np.float64], predicted: NDArray[np.float64]) -> Any:
        grades = np.arange(self._classes)
        observed = counts @ (self.labels - self._predicted) ** 2 / counts.sum()
        expected = labelled @ np.subtract.outer(grades, grades) ** 2 @ predicted
        return 1 - observed / expected


def figures(
    probabilities: NDArray[Any], labels: NDArray[Any], *, threshold: float | None, ordinal: bool
) -> dict[str, float]:
    """The figures of a classifier on labelled images, by name; see `Predictions` and `Predictions.figures`."""
    return Predictions(probabilities, labels, threshold=threshold, ordinal=ordinal).figures()


def best_threshold(probabilities: NDArray[Any], labels: NDArray[Any]) -> float:
    """The threshold with the largest sensitivity + specificity - 1 (Youden 1950), the highest of equals.

    To be chosen on validation images and used on test images: chosen on the test images, it flatters.

    Args:
        probabilities: `(N,)` float, of class 1.
        labels: `(N,)` int, 0 or 1.

    Returns:
        One of `probabilities`; images with at least as much are class 1.

    Raises:
        UserError: the images are of one class.
    """
    from sklearn.metrics import roc_curve

    if len(np.unique(labels)) != 2:
        raise UserError(
            f"The {len(labels)} images to choose a threshold on are all of one class. Give the validation split "
            "images of both classes, for instance by a larger --val-share."
        )
    false, true, thresholds = roc_curve(labels, probabilities, pos_label=1)
    # The curve starts with a threshold of infinity; rounding makes equals equal.
    return float(thresholds[1:][np.argmax(np.round(true - false, 12)[1:])])


def _ranking(probabilities: NDArray[np.float64], labels: NDArray[np.int64], k: int) -> tuple[NDArray[np.intp], int]:
    """Each image's rank by its probability of class k, 0 for the highest, ties alike, in two runs of one numbering.

    The images of other classes have the numbers 0 to M - 1, those of class k the numbers M to 2M - 1, where M is
    the number of ranks, so that one `bincount` counts both at each rank.
    """
    values, ranks = np.unique(-probabilities[:, k], return_inverse=True)
    return ranks + len(values) * (labels == k), len(values)


def _areas(ranking: tuple[NDArray[np.intp], int], counts: NDArray[np.float64]) -> tuple[float, float]:
    """The areas under the ROC curve and under the precision-recall curve (average precision) of a class."""
    ranks, number = ranking
    negatives, positives = np.bincount(ranks, counts, 2 * number).reshape(2, number)
    found = positives.cumsum()
    seen = found + negatives.cumsum()
    above = found - positives / 2
    precision = found / np.maximum(seen, 1)
    return float(negatives @ above / (found[-1] * (seen[-1] - found[-1]))), float(positives @ precision / found[-1])
