"""Trials that look bad stop early."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from fewlabel.errors import UserError
from fewlabel.search.cost import Cost

if TYPE_CHECKING:
    import optuna

__all__ = ["Arm", "MultiObjectiveHalving", "Pruning", "first_rung", "make_pruner"]

ETA = 3
"""Of the trials at a rung one in so many goes on, and the next rung is so many times as far: one of the two values that
Hyperband's authors suggest (Li et al. 2018, arXiv:1603.06560)."""

FIRST_RUNG = Fraction(2, 9)
"""Of the way; the next is at two thirds. Successive halving counts its rungs backwards from the end, which would put
them at a third and a ninth (Jamieson and Talwalkar 2016, arXiv:1502.07943). But at a ninth the learning rate has only
just warmed up: on CIFAR-10 the order there told nothing of how the better half of trials would end."""


def first_rung(first_step: int, last_step: int) -> int:
    """The step of the first rung, in a training with its first intermediate value at `first_step`."""
    return max(first_step, math.ceil(last_step * FIRST_RUNG))


@dataclass(frozen=True)
class Arm:
    """A trial as the rule sees it."""

    values: Mapping[int, float]
    """Steps to the intermediate values there, the greater the better."""
    costs: tuple[float, ...] = ()
    """What it costs, the less the better: one number for each cost that is an objective."""


@dataclass(frozen=True)
class MultiObjectiveHalving:
    """Asynchronous successive halving for accuracy against costs that are known from the start.

    A trial reaches rung k with its first value at or after step `first` * `eta`^k. There it is compared with those
    that reached the rung and cost no more in every cost: of these n, itself included, the best n // `eta` go on, at
    least one, and ties with them. So a trial is stopped only by trials that are better and no dearer: one that no
    such trial beats, as every member of the rung's Pareto front, goes on, however many cheaper or more accurate ones
    there are. Where all cost the same, and where there are no costs, it is ASHA (Li et al. 2018, arXiv:1810.05934,
    algorithm 2) in the form that never pauses a trial, as in Optuna. Halving for several objectives at once is from
    MO-ASHA (Schmucker et al. 2021, arXiv:2106.12639), which ranks a rung by non-dominated sorting and keeps its best
    1 / `eta`: where more trials than that are on the front, it stops some of them, and this rule none.
    """

    first: int
    """The step of the first rung."""
    eta: int = ETA

    def stops(self, arm: Arm, others: Sequence[Arm]) -> bool:
        """Whether `arm` ends with its last value.

        Args:
            arm: the trial that has just got its last value; decided is what that value reaches, nothing earlier.
            others: all other trials of the study, finished, stopped or running.
        """
        last = max(arm.values)
        rung = 0
        while (value := self._at(arm, rung)) is not None:
            earlier = {step: old for step, old in arm.values.items() if step != last}
            if self._at(Arm(earlier), rung) is None and self._loses(value, arm, others, rung):
                return True
            rung += 1
        return False

    def _at(self, arm: Arm, rung: int) -> float | None:
        """The value with which `arm` reached `rung`; None if it hasn't."""
        reached = [step for step in arm.values if step >= self.first * self.eta**rung]
        return arm.values[min(reached)] if reached else None

    def _loses(self, value: float, arm: Arm, others: Sequence[Arm], rung: int) -> bool:
        if math.isnan(value):
            return True
        there = [
            other_value
            for other in others
            if (other_value := self._at(other, rung)) is not None
            and all(theirs <= own for theirs, own in zip(other.costs, arm.costs, strict=True))
        ]
        better = sum(other_value > value for other_value in there)
        return better >= max(1, (len(there) + 1) // self.eta)


def make_pruner(name: str, *, objectives: int, first_step: int, last_step: int) -> "optuna.pruners.BasePruner":
    """What Optuna is to stop trials by.

    Args:
        name: auto, halving, hyperband or none, as --pruner has it.
        objectives: of the study; with several Optuna prunes nothing, and `Pruning` decides.
        first_step: of the first intermediate value.
        last_step: of the last.

    Raises:
        UserError: hyperband with several objectives.
    """
    from optuna.pruners import HyperbandPruner, NopPruner, SuccessiveHalvingPruner

    if name == "hyperband" and objectives > 1:
        raise UserError("--pruner hyperband takes one objective: take halving, or --against with nothing behind it.")
    if name == "none" or objectives > 1:
        return NopPruner()
    first = first_rung(first_step, last_step)
    if name == "hyperband":
        return HyperbandPruner(min_resource=first, max_resource=last_step, reduction_factor=ETA)
    return SuccessiveHalvingPruner(min_resource=first, reduction_factor=ETA)


@dataclass(frozen=True)
class Pruning:
    """Reports intermediate values and decides, for one objective through Optuna, for several by our rule."""

    name: str
    """auto, halving, hyperband or none, as --pruner has it."""
    against: tuple[str, ...]
    """The costs that are objectives, as `Cost.of` names them; empty: the value is the only one."""
    first_step: int
    """Of the first intermediate value."""
    last_step: int
    """No trial is stopped here: its training is paid for."""

    @property
    def rungs(self) -> tuple[int, ...]:
        """The steps where trials of one objective are stopped, in order; none where nothing is or there are several."""
        if self.against or self.name == "none":
            return ()
        first = first_rung(self.first_step, self.last_step)
        steps = (first * ETA**rung for rung in range(self.last_step))
        return tuple(itertools.takewhile(lambda step: step < self.last_step, steps))

    def stops(self, trial: "optuna.Trial", step: int, value: float, *, protected: bool) -> bool:
        """Record `value` at `step` of `trial`, and say whether the trial ends here.

        With several objectives the values are kept in the user attribute `rungs`, and costs are read from `cost`,
        which every trial must have by now.

        Args:
            trial: the trial, in its own process.
            step: of training, as all trials count them.
            value: the greater the better.
            protected: never end it; others are compared with it all the same.
        """
        if not self.against:
            trial.report(value, step)
            # Asked always: this is what enters the value in its rung.
            stops = trial.should_prune()
        else:
            trial.set_user_attr("rungs", {**trial.user_attrs.get("rungs", {}), str(step): value})
            stops = self.name != "none" and self._beaten(trial)
        return stops and not protected and step < self.last_step

    def _beaten(self, trial: "optuna.Trial") -> bool:
        from optuna.trial import TrialState

        # A failed trial is tried again: counted twice, it would stop others.
        states = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
        others = [
            self._arm(other.user_attrs)
            for other in trial.study.get_trials(deepcopy=False, states=states)
            if other.number != trial.number and "rungs" in other.user_attrs
        ]
        return MultiObjectiveHalving(first_rung(self.first_step, self.last_step)).stops(
            self._arm(trial.user_attrs), others
        )

    def _arm(self, attributes: Mapping[str, dict[str, float]]) -> Arm:
        cost = Cost.from_json(attributes["cost"])
        values = {int(step): value for step, value in attributes["rungs"].items()}
        return Arm(values, tuple(cost.of(name) for name in self.against))
