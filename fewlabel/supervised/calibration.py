"""How far a classifier's confidence is from its accuracy."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["EDGES", "Calibration", "bins_of"]

EDGES: Final = np.linspace(0, 1, 16)
"""Of 15 bins of equal width."""


def bins_of(confidence: NDArray[np.float64]) -> NDArray[np.intp]:
    """The bin of each `confidence`, 0 to 14; one on an edge belongs to the lower bin."""
    return np.digitize(confidence, EDGES[1:-1], right=True)


class Calibration:
    """N decisions with the confidence of each, prepared so that the error of a resample costs little.

    Args:
        confidence: `(N,)` float, the probability of what was decided.
        correct: `(N,)` float, 1 where that was right, else 0.
    """

    def __init__(self, confidence: NDArray[np.float64], correct: NDArray[np.float64]) -> None:
        self._bins = bins_of(confidence)
        self._overconfidence = confidence - correct

    def error(self, counts: NDArray[np.float64]) -> float:
        """The expected calibration error in 15 bins of equal width (Guo et al. 2017, section 2).

        Args:
            counts: `(N,)`, how often each decision counts.
        """
        gaps = np.bincount(self._bins, counts * self._overconfidence)
        return float(np.abs(gaps).sum() / counts.sum())
