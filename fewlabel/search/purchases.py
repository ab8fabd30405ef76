"""What depth, width and resolution each bought for the compute that was put into them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewlabel.search.table import DIMENSIONS, TrialRow, multipliers

__all__ = ["Purchase", "alone", "mixed", "per_doubling"]

_LEAST_SPARE = 3
"""Finished trials beyond the coefficients of a line, before an interval is drawn from their scatter."""
_LEAST_COST = 0.1
"""Doublings of the cost by a doubling of a dimension; below, rounding has kept it from changing the network."""


@dataclass(frozen=True)
class Purchase:
    """What one way of growing the base led to, with its 95 % interval."""

    name: str
    mean: float
    low: float
    high: float
    ratio: float | None = None
    """What it cost, in operations of the base."""


def alone(rows: Sequence[TrialRow]) -> list[Purchase]:
    """Depth, width and resolution each grown alone, the best first; those whose trials have finished."""
    found = [(name, row) for name in DIMENSIONS for row in rows if row.slot == name and row.finished and row.value]
    return sorted((_purchase(name, row) for name, row in found), key=lambda one: -one.mean)


def mixed(rows: Sequence[TrialRow]) -> list[Purchase]:
    """Several dimensions grown together, at the cost of one alone, the best first; those that have finished."""
    found = [row for row in rows if row.slot.startswith("grid/") and row.finished and row.value]
    return sorted((_purchase(multipliers(row.candidate), row) for row in found), key=lambda one: -one.mean)


def _purchase(name: str, row: TrialRow) -> Purchase:
    value = row.value or {}
    return Purchase(name, value["mean"], value["low"], value["high"], row.ratio)


def per_doubling(rows: Sequence[TrialRow]) -> list[Purchase]:
    """What the quality gains where the cost is doubled through one dimension alone, the best first.

    The least-squares plane of the quality over the binary logarithms of the multipliers, with Student's intervals of
    its slopes, each divided by the slope of the logarithm of the counted cost. It is a plane through trials that a
    sampler has chosen: a direction to go, no law.

    Returns:
        One for each dimension that was varied and costs something; none while there are too few finished trials.
    """
    from scipy import stats

    finished = [row for row in rows if row.finished and row.value and row.ratio]
    varied = [name for name in DIMENSIONS if len({getattr(row.candidate, name) for row in finished}) > 1]
    spare = len(finished) - len(varied) - 1
    if not varied or spare < _LEAST_SPARE:
        return []
    logarithms = np.log2([[getattr(row.candidate, name) for name in varied] for row in finished])
    table = np.column_stack([np.ones(len(finished)), logarithms])
    if np.linalg.matrix_rank(table) < table.shape[1]:
        return []
    quality = np.array([(row.value or {})["mean"] for row in finished])
    inverse = np.linalg.inv(table.T @ table)
    slopes = inverse @ table.T @ quality
    costs = inverse @ table.T @ np.log2([row.ratio or 1.0 for row in finished])
    scatter = float(np.sum((quality - table @ slopes) ** 2)) / spare
    half = stats.t.ppf(0.975, spare) * np.sqrt(scatter * np.diag(inverse))
    gains = [
        Purchase(name, *((slopes[place] + side * half[place]) / costs[place] for side in (0.0, -1.0, 1.0)))
        for place, name in enumerate(varied, start=1)
        if costs[place] >= _LEAST_COST
    ]
    return sorted(gains, key=lambda one: -one.mean)
