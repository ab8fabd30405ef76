"""What trials of a search spent, and what stopping them early would have saved."""

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.search_studies import BATCH_SIZE

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

__all__ = ["best_of", "ends_of", "foretold", "replayed", "spent"]

ORDERS = 300
"""In which the trials are replayed."""


def spent(trials: "Sequence[FrozenTrial]", target: float = float("inf")) -> dict[str, float]:
    """Operations and seconds of `trials`, in their order, up to the first that ends with `target` or more.

    Operations are those of training, three times the forward pass of each image; judging is in the seconds alone.
    """
    flops = seconds = 0.0
    for trial in trials:
        flops += _flops(trial, max(trial.intermediate_values, default=0))
        if trial.duration is not None:
            seconds += trial.duration.total_seconds()
        if trial.state.name == "COMPLETE" and trial.values[0] >= target:
            break
    return {"petaflop": flops / 1e15, "seconds": seconds}


def replayed(trials: "Sequence[FrozenTrial]", seed: int) -> dict[str, float]:
    """What halving would have saved on the curves of a study without it, over random orders of its trials.

    The candidates stay the same, so that nothing but the rule differs; one order of few trials is much chance.

    Returns:
        orders: how many. share: of the whole study's operations, the median. to_target: operations up to the first
        trial that ends with the lower of the two best values, the sum over all orders with halving over that without.
        best_found: share of the orders that keep the best. shortfall: how much lower than the best the best that is
        kept is, the mean.
    """
    from fewlabel.search.pruning import Arm, MultiObjectiveHalving, first_rung

    curves = [trial for trial in trials if trial.state.name == "COMPLETE"]
    steps = sorted(curves[0].intermediate_values)
    rule = MultiObjectiveHalving(first_rung(steps[0], steps[-1]))
    generator = np.random.default_rng(seed)
    best = best_of(curves)
    shares, found = [], 0
    to_target = np.zeros(2)
    shortfall = 0.0
    for _ in range(ORDERS):
        spending: list[tuple[float, float]] = []
        arms: list[Arm] = []
        ends: list[float] = []
        full_ends: list[float] = []
        for place in generator.permutation(len(curves)):
            values = curves[place].intermediate_values
            steps = sorted(values)
            reached: dict[int, float] = {}
            for step in steps:
                reached[step] = values[step]
                arm = Arm(dict(reached))
                # The base is trained to its end, and so is what has come that far.
                if step < steps[-1] and curves[place].user_attrs["slot"] != "base" and rule.stops(arm, arms):
                    break
            arms.append(arm)
            spending.append((_flops(curves[place], max(reached)), _flops(curves[place], steps[-1])))
            ends.append(curves[place].values[0] if max(reached) == steps[-1] else 0.0)
            full_ends.append(curves[place].values[0])
        part, whole = np.cumsum(spending, axis=0).T
        shares.append(float(part[-1] / whole[-1]))
        target = max(ends)
        to_target += part[_first(ends, target)], whole[_first(full_ends, target)]
        found += target == best
        shortfall += (best - target) / ORDERS
    return {
        "orders": ORDERS,
        "share": median(shares),
        "to_target": float(to_target[0] / to_target[1]),
        "best_found": found / ORDERS,
        "shortfall": shortfall,
    }


def _first(values: Sequence[float], target: float) -> int:
    return next(place for place, value in enumerate(values) if value >= target)


def foretold(trials: "Sequence[FrozenTrial]") -> list[dict[str, float]]:
    """How well the values on the way rank those at the end, in a study without early stopping.

    Returns:
        For each step with values {share: of the way, all: Spearman's rank correlation with the values at the end, over
        all trials, better_half: over those whose end is not below the median}.
    """
    from scipy.stats import spearmanr

    ended = [trial for trial in trials if trial.state.name == "COMPLETE"]
    steps = sorted(ended[0].intermediate_values)
    curves = np.array([[trial.intermediate_values[step] for step in steps] for trial in ended])
    better = curves[:, -1] >= np.median(curves[:, -1])
    return [
        {
            "share": step / steps[-1],
            "all": float(spearmanr(values, curves[:, -1]).statistic),
            "better_half": float(spearmanr(values[better], curves[better, -1]).statistic),
        }
        for step, values in zip(steps, curves.T, strict=True)
    ]


def best_of(trials: "Sequence[FrozenTrial]") -> float:
    """The best value of a trial that was trained to its end."""
    return max(ends_of(trials))


def ends_of(trials: "Sequence[FrozenTrial]") -> list[float]:
    """The values of those trials that were trained to their end."""
    return [trial.values[0] for trial in trials if trial.state.name == "COMPLETE"]


def _flops(trial: "FrozenTrial", steps: int) -> float:
    return 3.0 * trial.user_attrs["cost"]["flops"] * BATCH_SIZE * steps if steps else 0.0
