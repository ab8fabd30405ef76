"""What a search consists of: its trials, what follows from them, and the best again at full length."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fewlabel.search.candidate import Candidate, Slot
from fewlabel.search.claims import Stage
from fewlabel.search.compound import ALONE, BASE, grid, scaled
from fewlabel.search.config import SearchConfig
from fewlabel.search.cost import Budget, Cost, Model
from fewlabel.search.ranking import best, chosen

if TYPE_CHECKING:
    import optuna

__all__ = ["stages_of"]

MOST_SCALED = 4
"""Trainings of --trials that compound mode keeps for scaling by phi."""

Planned = tuple[list[Slot], Mapping[str, Any]]


def stages_of(
    config: SearchConfig, model: Model, base: Cost, budget: Budget, defaults: Mapping[str, float]
) -> list[Stage]:
    """The parts of a search, in order.

    Args:
        config: mode, number of trials, how many are confirmed.
        model: the network at scale 1 and full length.
        base: its cost.
        budget: what no candidate exceeds.
        defaults: of each setting that is tuned beside the scale, what training takes by itself.
    """

    def around_the_base(study: "optuna.Study") -> Planned:
        most = max(0, config.trials - 1 - len(ALONE) - MOST_SCALED)
        return [slot for slot, _ in grid(model, base, most=most, budget=budget)], {}

    def scaled_by_phi(study: "optuna.Study") -> Planned:
        coefficients = chosen(study.get_trials(deepcopy=False))
        if coefficients is None:
            return [], {}
        slots = [slot for slot, _ in scaled(model, base, coefficients, budget)]
        return slots[:MOST_SCALED], {"chosen": coefficients.as_json()}

    def sampled(study: "optuna.Study") -> Planned:
        first = Slot(BASE, 1, Candidate(**defaults), protected=True)
        return [first, *(Slot(f"trial/{number}", 1) for number in range(1, config.trials))], {}

    def confirmed(study: "optuna.Study") -> Planned:
        slots = [Slot(BASE, 3, Candidate(**defaults), protected=True)]
        for trial in best(study, config.confirm):
            candidate = Candidate.from_json(trial.user_attrs["candidate"])
            slots.append(Slot(trial.user_attrs["slot"], 3, candidate, trial.user_attrs.get("phi"), protected=True))
        return slots, {}

    stages = [Stage(1, False, sampled)]
    if config.mode == "compound":
        stages = [Stage(1, False, around_the_base), Stage(2, False, scaled_by_phi)]
    return [*stages, Stage(3, True, confirmed)] if config.confirm else stages
