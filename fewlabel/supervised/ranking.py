"""Areas under curves of a ranking, prepared so that those of a resample cost little."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ranking"]


class Ranking:
    """N images in the order of a score, against whether each is positive.

    Args:
        scores: `(N,)` float, higher for what is held to be positive.
        positive: `(N,)` bool.
    """

    def __init__(self, scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> None:
        # Negatives have the ranks 0 to M - 1, ties alike, positives M to 2M - 1: one `bincount` counts both.
        values, ranks = np.unique(-scores, return_inverse=True)
        self._number = len(values)
        self._ranks = ranks + self._number * positive

    def areas(self, counts: NDArray[np.float64]) -> tuple[float, float]:
        """The areas under the ROC curve and under the precision-recall curve (average precision).

        Args:
            counts: `(N,)`, how often each image counts; some positive and some negative one must.
        """
        negatives, positives = np.bincount(self._ranks, counts, 2 * self._number).reshape(2, self._number)
        found = positives.cumsum()
        seen = found + negatives.cumsum()
        above = found - positives / 2
        precision = found / np.maximum(seen, 1)
        return float(negatives @ above / (found[-1] * (seen[-1] - found[-1]))), float(positives @ precision / found[-1])
