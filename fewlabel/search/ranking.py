"""Which trials of a study go on: the coefficients to scale, the few for the full length, and whether they held."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fewlabel.search.candidate import Candidate
from fewlabel.search.compound import ALONE, BASE

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

__all__ = ["Agreement", "agreement", "best", "chosen", "proxy_agreement"]

UNLIKELY = 0.05
"""An agreement that chance reaches more rarely says something."""


def chosen(trials: "Sequence[FrozenTrial]") -> Candidate | None:
    """The coefficients to scale by phi: those of the best trial of stage 1 but the base, of equals the cheaper.

    One dimension alone may win: then nothing else is scaled.

    Returns:
        alpha, beta and gamma as multipliers; None if no such trial was trained to its end.
    """
    there = [
        trial
        for trial in trials
        if trial.state.name == "COMPLETE"
        and (trial.user_attrs["slot"] in ALONE or trial.user_attrs["slot"].startswith("grid/"))
    ]
    return _candidate(min(there, key=_order)) if there else None


def best(study: "optuna.Study", count: int) -> "list[FrozenTrial]":
    """The `count` best trials that keep the budget, the base apart, the best first.

    With several objectives only those on the Pareto front count, by their quality. Of several that are the same
    network with the same settings the first counts.

    Args:
        study: the trials; the first objective is the quality.
        count: how many at most.
    """
    several = len(study.directions) > 1
    trials = study.best_trials if several else study.get_trials(deepcopy=False)
    found: dict[Any, FrozenTrial] = {}
    for trial in sorted((one for one in trials if one.state.name == "COMPLETE"), key=_order):
        if trial.user_attrs["slot"] != BASE and all(excess <= 0 for excess in trial.constraints.values()):
            found.setdefault(_network(trial), trial)
    return list(found.values())[:count]


def _order(trial: "FrozenTrial") -> tuple[float, float, int]:
    return -trial.values[0], trial.user_attrs["cost_ratio"], trial.number


def _candidate(trial: "FrozenTrial") -> Candidate:
    return Candidate.from_json(trial.user_attrs["candidate"])


def _network(trial: "FrozenTrial") -> tuple[Any, ...]:
    cost, settings = trial.user_attrs["cost"], dict(trial.user_attrs["candidate"])
    for name in ALONE:
        del settings[name]
    counted = (cost["parameters"], cost["flops"], cost["image_size"])
    return (*counted, *sorted(settings.items()))


@dataclass(frozen=True)
class Agreement:
    """How far short trials ranked models as trainings at full length do."""

    tau: float | None
    """Kendall's tau-b, from -1 (reversed) over 0 (by chance) to 1 (the same); None where there is no ranking."""
    count: int
    """Models with both values."""
    sentence: str
    """What that means, for the report."""

    def as_json(self) -> dict[str, Any]:
        """Names to plain values."""
        return {"tau": self.tau, "count": self.count, "sentence": self.sentence}


def proxy_agreement(proxy: "optuna.Study", full: "optuna.Study") -> Agreement:
    """Whether the ranking of the short trials held at full length.

    The models at full length are the best of the short trials and the base: they are closer together than any models,
    so their ranking is the harder to hold.

    Args:
        proxy: the short trials.
        full: those of them that were trained at full length; models are matched by their candidate.
    """
    short, long = _values(proxy), _values(full)
    return agreement([(short[one], value) for one, value in long.items() if one in short])


def _values(study: "optuna.Study") -> Mapping[Candidate, float]:
    trials = [one for one in study.get_trials(deepcopy=False) if one.state.name == "COMPLETE"]
    # Of several trials of one candidate the first, as everywhere.
    return {_candidate(trial): trial.values[0] for trial in reversed(trials)}


def agreement(pairs: Sequence[tuple[float, float]]) -> Agreement:
    """The rank correlation of (value of the short trial, value at full length), a pair for each model.

    Its probability by chance is one-sided, exact up to ties (Kendall 1938; scipy's `kendalltau`).
    """
    from scipy.stats import kendalltau

    count = len(pairs)
    short, long = zip(*pairs, strict=True) if pairs else ((), ())
    if count < 3 or len(set(short)) == 1 or len(set(long)) == 1:
        why = "their values are the same" if count >= 3 else "at least 3 are needed (--confirm)"
        return Agreement(
            None, count, f"Whether short trials rank models as the full length does can't be said from {count}: {why}."
        )
    result = kendalltau(short, long, alternative="greater")
    tau, chance = float(result.statistic), float(result.pvalue)
    couples = list(itertools.combinations(pairs, 2))
    same = sum((a[0] - b[0]) * (a[1] - b[1]) > 0 for a, b in couples)
    said = (
        f"The short trials ranked {same} of {len(couples)} pairs of models as the full length did (Kendall's tau "
        f"{tau:.2f}, {count} models)"
    )
    if tau <= 0:
        advice = "they did not predict it: give trials more --proxy-epochs or --proxy-images"
    elif chance > UNLIKELY:
        advice = f"chance alone agrees as well in {100 * chance:.0f} % of cases, so these few models don't prove it"
    else:
        share = f"{100 * chance:.0f} %" if chance >= 0.01 else "less than 1 %"
        advice = f"chance alone agrees as well in {share} of cases, so the short trials can be trusted to rank"
    return Agreement(tau, count, f"{said}; {advice}.")
