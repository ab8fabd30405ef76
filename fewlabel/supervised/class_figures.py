"""Figures of a classifier that gives each image one of several classes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabel.errors import UserError
from fewlabel.supervised.calibration import Calibration
from fewlabel.supervised.ranking import Ranking

__all__ = ["ClassFigures"]


class ClassFigures:
    """The work of `Predictions` where an image has one class; the arguments are checked there."""

    def __init__(
        self,
        probabilities: NDArray[np.float64],
        labels: NDArray[np.int64],
        threshold: float | None,
        ordinal: bool,
    ) -> None:
        self._labels, self._ordinal, self._classes = labels, ordinal, probabilities.shape[1]
        self._predicted = probabilities.argmax(axis=1)
        self._correct = (self._predicted == labels).astype(np.float64)
        self._calibration = Calibration(probabilities.max(axis=1), self._correct)
        self._decided = None if threshold is None else ((probabilities[:, 1] >= threshold) == labels).astype(np.float64)
        ranked = [1] if self._classes == 2 else range(self._classes)
        self._rankings = {k: Ranking(probabilities[:, k], labels == k) for k in ranked}

    def figures(self, counts: NDArray[np.float64]) -> dict[str, float]:
        """As `Predictions.figures` has it."""
        support = np.bincount(self._labels, counts, self._classes)
        present = support > 0
        if present.sum() < 2:
            raise UserError(
                f"The {counts.sum():.0f} images to evaluate on are all of one class; figures need two classes at "
                "least. Add images of another class, or give the split a larger share."
            )
        total = support.sum()
        correct = np.bincount(self._labels, counts * self._correct, self._classes)
        predicted = np.bincount(self._predicted, counts, self._classes)
        known = support + predicted > 0
        areas = [ranking.areas(counts) for k, ranking in self._rankings.items() if present[k]]
        found = {
            "accuracy": correct.sum() / total,
            "balanced_accuracy": (correct[present] / support[present]).mean(),
            "auroc": np.mean([auroc for auroc, _ in areas]),
            "auprc": np.mean([auprc for _, auprc in areas]),
            "f1": (2 * correct[known] / (support + predicted)[known]).mean(),
            "ece": self._calibration.error(counts),
        }
        if self._ordinal:
            found["kappa_quadratic"] = self._kappa(counts, support / total, predicted / total)
        if self._decided is not None:
            specificity, sensitivity = np.bincount(self._labels, counts * self._decided, 2) / support
            found |= {"sensitivity": sensitivity, "specificity": specificity}
        return {name: float(value) for name, value in found.items()}

    def _kappa(self, counts: NDArray[np.float64], labelled: NDArray[np.float64], predicted: NDArray[np.float64]) -> Any:
        grades = np.arange(self._classes)
        observed = counts @ (self._labels - self._predicted) ** 2 / counts.sum()
        expected = labelled @ np.subtract.outer(grades, grades) ** 2 @ predicted
        return 1 - observed / expected
