"""Figures of a classifier that says yes or no to each of several labels of an image."""

import numpy as np
from numpy.typing import NDArray

from fewlabel.errors import UserError
from fewlabel.supervised.calibration import Calibration
from fewlabel.supervised.ranking import Ranking

__all__ = ["LabelFigures"]


class LabelFigures:
    """The work of `Predictions` where an image has several labels; the arguments are checked there."""

    def __init__(self, probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
        known, yes, said_yes = labels >= 0, labels == 1, probabilities > 0.5
        right = known & (said_yes == yes)
        self._known, self._yes, self._right, self._said_yes, self._both_yes = (
            part.astype(np.float64) for part in (known, yes, right, known & said_yes, yes & said_yes)
        )
        self._labelled = known.any(axis=1)
        self._all_right = self._labelled & (right | ~known).all(axis=1)
        self._decided = known.nonzero()[0]
        confidence = np.maximum(probabilities, 1 - probabilities)
        self._calibration = Calibration(confidence[known], self._right[known])
        self._rows = [column.nonzero()[0] for column in known.T]
        self._rankings = [
            Ranking(probabilities[rows, k], yes[rows, k]) if len(rows) else None for k, rows in enumerate(self._rows)
        ]

    def figures(self, counts: NDArray[np.float64]) -> dict[str, float]:
        """As `Predictions.figures` has it."""
        number, positives = counts @ self._known, counts @ self._yes
        areas = [area for area in self.areas(counts) if area is not None]
        if not areas:
            raise UserError(
                f"On the {counts.sum():.0f} images to evaluate on, each label is always yes, always no or unknown; "
                "figures need one label at least that is both. Give the split a larger share."
            )
        judged, asked = (positives > 0) & (positives < number), number > 0
        said_yes, both_yes = counts @ self._said_yes, counts @ self._both_yes
        return {
            "accuracy": float(((counts @ self._right)[asked] / number[asked]).mean()),
            "exact_match": float(counts @ self._all_right / (counts @ self._labelled)),
            "auroc": float(np.mean([auroc for auroc, _ in areas])),
            "auprc": float(np.mean([auprc for _, auprc in areas])),
            "f1": float((2 * both_yes[judged] / (positives + said_yes)[judged]).mean()),
            "ece": self._calibration.error(counts[self._decided]),
        }

    def areas(self, counts: NDArray[np.float64]) -> list[tuple[float, float] | None]:
        """AUROC and average precision of each label; None for one that is always yes, always no or unknown."""
        number, positives = counts @ self._known, counts @ self._yes
        return [
            ranking.areas(counts[rows]) if ranking is not None and 0 < positives[k] < number[k] else None
            for k, (ranking, rows) in enumerate(zip(self._rankings, self._rows, strict=True))
        ]
