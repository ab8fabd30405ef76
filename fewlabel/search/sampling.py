"""How free mode chooses candidates: the space, and a sampler that repeats itself."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fewlabel.errors import UserError
from fewlabel.search.candidate import Candidate
from fewlabel.search.config import SearchConfig
from fewlabel.search.cost import Cost, Model, count

if TYPE_CHECKING:
    import optuna
    import torch
    from optuna.trial import FrozenTrial

__all__ = ["Range", "compared_at_one_rung", "make_sampler", "smallest", "space_of", "suggest"]

TUNED = {"lr": (0.1, 10.0), "temperature": (0.5, 5.0), "weight_decay": (0.01, 10.0), "view_strength": (0.25, 2.0)}
"""The least and the greatest of each setting, as multiples of what training would take by itself."""

STARTUP_TRIALS = 10
"""Candidates drawn evenly before the sampler goes by their values."""


@dataclass(frozen=True)
class Range:
    """Numbers from `least` to `greatest`, evenly over their logarithm."""

    least: float
    greatest: float


Space = Mapping[str, Range]
"""Fields of `Candidate` to what they may be."""


def space_of(config: SearchConfig, defaults: Mapping[str, float]) -> Space:
    """What free mode chooses from.

    Args:
        config: the ranges of the scale, and what is tuned beside it.
        defaults: of each tuned setting what training would take by itself.

    Raises:
        UserError: a setting whose default is 0 is tuned: nothing says how large it may be.
    """
    space = {
        name: Range(*limits)
        for name, limits in (
            ("depth", config.depth_range),
            ("width", config.width_range),
            ("resolution", config.resolution_range),
        )
    }
    for name in config.tune:
        least, greatest = (factor * defaults[name] for factor in TUNED[name])
        if not least > 0:
            flag = "strength" if name == "view_strength" else name.replace("_", "-")
            raise UserError(
                f"--tune {name} tries multiples of --{flag}, which is {defaults[name]:g}: give it a value above 0."
            )
        space[name] = Range(least, greatest)
    return space


def suggest(trial: "optuna.Trial", space: Space) -> Candidate:
    """The candidate that `trial` is to try: as it was enqueued, else as its study's sampler chooses.

    Every dimension is asked for in every trial, also in one whose values are fixed: the sampler models jointly only
    what all finished trials of a study have.
    """
    chosen = {name: trial.suggest_float(name, one.least, one.greatest, log=True) for name, one in space.items()}
    return Candidate(**chosen)


def make_sampler(seed: int, number: int, rungs: Sequence[int] = ()) -> "optuna.samplers.BaseSampler":
    """The sampler of one trial, which depends on nothing but the study's trials and the arguments.

    A sampler that lived on would draw other numbers after a resume than without the interruption.

    Args:
        seed: of the study.
        number: of the trial in its study.
        rungs: the steps where trials of one objective stop early, in order.

    Returns:
        A tree-structured Parzen estimator (Bergstra et al. 2011) over all dimensions together, for one objective or
        several (Ozaki et al. 2022, JAIR 73); it keeps away from what other workers try at the
        moment and prefers candidates whose constraints (`trial.set_constraint`) hold. Where trials stop early it goes
        by `compared_at_one_rung`.
    """
    import numpy as np
    import optuna
    from optuna.samplers import BaseSampler, TPESampler

    state = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    estimator = TPESampler(seed=state, multivariate=True, constant_liar=True, n_startup_trials=STARTUP_TRIALS)
    if not rungs:
        return estimator

    class AtOneRung(BaseSampler):
        """The estimator on the study as `compared_at_one_rung` shows it."""

        def infer_relative_search_space(self, study: "optuna.Study", trial: "FrozenTrial") -> dict[str, Any]:
            # The estimator looks at one study alone, the one that it is shown.
            joint = optuna.search_space.intersection_search_space(study.get_trials(deepcopy=False), True)
            return {name: distribution for name, distribution in joint.items() if not distribution.single()}

        def sample_relative(
            self, study: "optuna.Study", trial: "FrozenTrial", search_space: dict[str, Any]
        ) -> dict[str, Any]:
            if not search_space:
                return {}
            shown = optuna.create_study(direction=study.direction, sampler=estimator)
            others = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
            shown.add_trials(compared_at_one_rung(others, rungs))
            return shown.ask(search_space).params

        def sample_independent(
            self, study: "optuna.Study", trial: "FrozenTrial", param_name: str, param_distribution: Any
        ) -> Any:
            return estimator.sample_independent(study, trial, param_name, param_distribution)

    return AtOneRung()


def compared_at_one_rung(trials: Sequence["FrozenTrial"], rungs: Sequence[int]) -> "list[FrozenTrial]":
    """What a sampler is to know of `trials`, of which most stopped early: finished trials with values of one rung.

    The first trials have nobody to lose against and are trained to their end, however bad. A sampler that takes every
    trial with a final value for better than any that was stopped would go on to try what is like them. So, as in BOHB
    (Falkner et al. 2018, arXiv:1807.01774, section 4.1), the values are those at the furthest rung that enough trials
    have reached, the end being the last: two more than there are dimensions, and three times as many as the estimator
    takes for good ones, a tenth of all. Trials that came less far stay stopped, which ranks them below, by how far
    they came.

    Args:
        trials: of one objective, in any state.
        rungs: steps, in order.

    Returns:
        Those that run, are finished or were stopped, in their order; copies where something is changed.
    """
    from optuna.trial import TrialState

    known = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)]
    ended = [trial for trial in known if trial.state != TrialState.RUNNING]

    def values_at(rung: int | None) -> "dict[int, float]":
        found = {}
        for trial in ended:
            if rung is None:
                if trial.state == TrialState.COMPLETE:
                    found[trial.number] = trial.values[0]
            elif reached := [step for step in trial.intermediate_values if step >= rung]:
                found[trial.number] = trial.intermediate_values[min(reached)]
        # What diverged is no value to compare with.
        return {number: value for number, value in found.items() if not math.isnan(value)}

    dimensions = max((len(trial.params) for trial in known), default=0)
    enough = max(dimensions + 2, 3 * math.ceil(len(ended) / 10))
    by_rung = [values_at(rung) for rung in (*rungs, None)]
    values = next((found for found in reversed(by_rung) if len(found) >= enough), by_rung[0])

    def shown(trial: "FrozenTrial") -> "FrozenTrial":
        if trial.number not in values:
            return trial
        changed = copy.copy(trial)
        changed.state, changed.values = TrialState.COMPLETE, [values[trial.number]]
        return changed

    return [shown(trial) for trial in known]


def smallest(model: Model, space: Space, *, latency_on: "torch.device | None" = None) -> Cost:
    """The cost of the smallest candidate in `space` that the family can take, with its latency on a device if given.

    Raises:
        UserError: it can take none between the smallest and the largest.
    """
    refused: UserError | None = None
    for share in range(11):
        corner = Candidate(
            **{
                name: space[name].least * (space[name].greatest / space[name].least) ** (share / 10)
                for name in ("depth", "width", "resolution")
            }
        )
        try:
            return count(model, corner.scale, latency_on=latency_on)
        except UserError as error:
            refused = error
    assert refused is not None
    raise UserError(f"{model.name} takes no scale from the smallest to the largest of the ranges: {refused}")
