"""How much of exact search an index finds, and the least effort at which it finds as much as asked for."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from faiss.contrib.exhaustive_search import knn_ground_truth
from numpy.typing import NDArray

from fewlabel.retrieval.layers import Knob

__all__ = ["NEIGHBOURS", "Truth", "exact_neighbours", "tune"]

NEIGHBOURS = 10
"""What recall is measured at."""
SURE = 1.645
"""Standard errors below the mean that are still to reach what was asked for: it holds then with a certainty of 95 %."""
SHORT = 1e-3
"""Where what was asked for is out of reach: this much less than the highest recall is as good, for less effort."""
TIE = 1e-5
"""Squared distances that differ by less than this share are equal, as single precision has them."""

Floats = NDArray[np.float32]
Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Truth:
    """Queries, and how near their true neighbours are.

    Attributes:
        queries: (Q, D).
        limits: (Q,) squared distance of the last true neighbour.
        rows: gives the vectors (n, D) at positions (n,) of the index.
    """

    queries: Floats
    limits: Floats
    rows: Callable[[Positions], Floats]

    def recalls(self, index: Any) -> Floats:
        """The recall of each query (Q,): the share of the vectors found that are as near as the last true neighbour.

        An equally near vector is as good as a true neighbour, as in ann-benchmarks
        (Aumüller et al., 2018, section 2.2).
        """
        _, found = index.search(self.queries, NEIGHBOURS)
        distances = squared_distances(self.queries, self.rows(np.maximum(found, 0).ravel()))
        right = (distances <= self.limits[:, None] * (1 + TIE) + np.finfo(np.float32).tiny) & (found >= 0)
        shares: Floats = right.mean(axis=1, dtype=np.float32)
        return shares


def exact_neighbours(queries: Floats, blocks: Iterable[Floats], rows: Callable[[Positions], Floats]) -> Truth:
    """Search all `blocks` of the vectors, which are numbered in their order, for the `NEIGHBOURS` nearest."""
    _, positions = knn_ground_truth(queries, blocks, NEIGHBOURS, faiss.METRIC_L2, ngpu=0)
    return Truth(queries, squared_distances(queries, rows(positions.ravel())).max(axis=1), rows)


def squared_distances(queries: Floats, vectors: Floats) -> Floats:
    """Between each of (Q, D) and its own of (Q * n, D), as (Q, n); by differences, so that near ones are exact."""
    differences = vectors.reshape(len(queries), -1, queries.shape[1]) - queries[:, None]
    squares: Floats = np.einsum("qnd,qnd->qn", differences, differences)
    return squares


def tune(index: Any, knobs: Sequence[Knob], truth: Truth, asked: float) -> dict[str, int]:
    """Set the search parameters so that the recall is `asked` with certainty and the fewest bytes are read.

    They are the effort (lists or graph nodes read) and, where results are re-ranked, how many times as many candidates
    are taken. More candidates need less effort, so for each number of candidates, from the highest, the least effort
    is searched for that costs less than the best pair so far. The costs are counted, not timed: a seed gives the same
    again. Out of reach, the highest recall less `SHORT` takes the place of what was asked for.
    """
    if not knobs:
        return {}
    efforts = next((knob for knob in knobs if knob.name != "k_factor"), None)
    factors = next((knob for knob in knobs if knob.name == "k_factor"), None)
    steps = _ladder(efforts.highest) if efforts else [1]

    def recall(effort: int, factor: int) -> float:
        """What it is at least."""
        if efforts:
            efforts.turn(effort)
        if factors:
            factors.turn(factor)
        found = truth.recalls(index).astype(np.float64)
        return float(found.mean() - SURE * found.std() / np.sqrt(len(found)))

    def cost(effort: int, factor: int) -> float:
        read = effort * efforts.bytes_per_unit if efforts else 0.0
        return read + (factor * NEIGHBOURS * factors.bytes_per_unit if factors else 0.0)

    candidates = [2**power for power in range(factors.highest.bit_length() - 1, -1, -1)] if factors else [1]

    def least_effort(steps: Sequence[int], factor: int, wanted: float) -> int | None:
        return _least(steps, lambda step: recall(step, factor) >= wanted)

    wanted, most = asked, candidates[0]
    effort = least_effort(steps, most, wanted)
    if effort is None:
        wanted = recall(steps[-1], most) - SHORT
        effort = least_effort(steps, most, wanted) or steps[-1]
    best = (effort, most)
    for factor in candidates[1:]:
        cheaper = [step for step in steps if step >= best[0] and cost(step, factor) < cost(*best)]
        effort = least_effort(cheaper, factor, wanted)
        if effort is None:
            break
        best = (effort, factor)
    recall(*best)
    chosen = {efforts.name: best[0]} if efforts else {}
    return {**chosen, factors.name: best[1]} if factors else chosen


def _least(steps: Sequence[int], enough: Callable[[int], bool]) -> int | None:
    """The first of ascending `steps` that is enough, by bisection; none where the last isn't."""
    low, high = 0, len(steps)
    while low < high:
        middle = (low + high) // 2
        if enough(steps[middle]):
            high = middle
        else:
            low = middle + 1
    return steps[low] if low < len(steps) else None


def _ladder(highest: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12 and so on to `highest`."""
    values = {value for power in range(highest.bit_length()) for value in (2**power, 3 * 2**power // 2)}
    return sorted({value for value in values if 1 <= value < highest} | {highest})
