"""How workers share a study: who trains what, and what becomes of it."""

import socket
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from fewlabel.errors import UserError
from fewlabel.search.candidate import Candidate, Slot
from fewlabel.search.compound import BASE
from fewlabel.search.cost import Budget, Cost
from fewlabel.search.pruning import Pruning
from fewlabel.search.sampling import Space, make_sampler, suggest
from fewlabel.search.slots import (
    FAILED,
    MOST_REJECTED,
    REJECTED,
    STOPPED,
    TRAINED,
    Ledger,
    slot_from_json,
    slot_to_json,
)
from fewlabel.search.study import Studies
from fewlabel.tracking.lock import is_locked

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

__all__ = ["BUSY", "Claim", "Rules", "Stage", "claim", "conclude", "slots_of"]

BUSY: Final = "busy"
"""Nothing to do for now: what is left is being trained by others."""


@dataclass(frozen=True)
class Stage:
    """A part of a search that begins once all before it is settled."""

    number: int
    full: bool
    """Whether its trainings have the full length."""
    plan: "Callable[[optuna.Study], tuple[list[Slot], Mapping[str, Any]]]"
    """From the study's trials so far to its slots, and to what the study is to say of how they came about; asked once
    for all workers."""


@dataclass(frozen=True)
class Rules:
    """What all workers of a study decide by."""

    space: Space
    seed: int
    count: Callable[[Candidate], Cost]
    """Raises UserError where the family can't take the candidate."""
    base: Cost
    budget: Budget
    pruning: Pruning
    pruner: "Callable[[], optuna.pruners.BasePruner]"

    def refusal(self, one: "Claim") -> str | None:
        """Record what the candidate costs, and say why it is not to be trained, if it isn't.

        The base is trained whatever it costs, as all else is compared with it.
        """
        try:
            cost = self.count(one.candidate)
        except UserError as error:
            one.trial.set_constraint("buildable", 1.0)
            return f"{REJECTED}: {error}"
        one.trial.set_user_attr("cost", cost.as_json())
        one.trial.set_user_attr("cost_ratio", cost.ratio(self.base))
        excess = self.budget.excess(cost)
        for name, value in excess.items():
            one.trial.set_constraint(name, value)
        over = [f"{100 * value:.3g} % over the budget of {name}" for name, value in excess.items() if value > 0]
        if not over or one.full or one.slot.key == BASE:
            return None
        return f"{REJECTED}: {', '.join(over)}"

    def stops(self, one: "Claim", step: int, value: float) -> bool:
        """Record an intermediate value; whether the trial is to end with it."""
        return self.pruning.stops(one.trial, step, value, protected=one.slot.protected or one.full)

    def values(self, attributes: Mapping[str, Any]) -> list[float]:
        """The objectives of a trial that was trained to its end, from what it says of itself."""
        cost = Cost.from_json(attributes["cost"])
        return [attributes["value"]["mean"], *(cost.of(name) for name in self.pruning.against)]


@dataclass(frozen=True)
class Claim:
    """A trial that this worker has, and no other."""

    study: "optuna.Study"
    trial: "optuna.Trial"
    slot: Slot
    candidate: Candidate
    full: bool
    before: "FrozenTrial | None"
    """The trial that was broken off in this slot, of the same candidate."""


def claim(studies: Studies, stages: Sequence[Stage], rules: Rules, place: Path) -> Claim | Literal["busy"] | None:
    """Take the next training that nobody has; `BUSY` while others have all that are left, None once all is settled.

    Args:
        studies: the search.
        stages: what it consists of, in order.
        rules: how candidates are chosen.
        place: directory of this worker, which it has locked; it has no trial at the moment.

    Raises:
        UserError: the base could not be trained, so there is nothing to compare with.
    """
    with studies.turn():
        for stage in stages:
            study = studies.full if stage.full else studies.proxy
            _reap(studies, study, rules, place)
            slots = slots_of(studies, stage)
            ledger = Ledger(study.get_trials(deepcopy=False))
            _require_base(ledger, slots)
            waiting = [slot for slot in slots if ledger.waits(slot)]
            slot = waiting[0] if waiting else ledger.next_open(slots)
            if slot is not None:
                return _take(studies, study, stage, slots.index(slot), slots, ledger, rules, place)
            if ledger.settled(slots) < len(slots):
                return BUSY
    return None


def slots_of(studies: Studies, stage: Stage) -> list[Slot]:
    """The slots of `stage`; the first who asks writes them down, so that all have the same. In one's turn."""
    study = studies.full if stage.full else studies.proxy
    name = f"slots of stage {stage.number}"
    known = study.user_attrs.get(name)
    if known is None:
        slots, said = stage.plan(studies.proxy)
        for key, value in said.items():
            studies.proxy.set_user_attr(key, value)
        known = [slot_to_json(slot) for slot in slots]
        study.set_user_attr(name, known)
    return [slot_from_json(values) for values in known]


def conclude(study: "optuna.Study", trial: "optuna.Trial", outcome: str, rules: Rules) -> None:
    """End `trial` as `outcome` says; all else that is known of it is recorded before."""
    trial.set_user_attr("outcome", outcome)
    _tell(study, trial.number, {**trial.user_attrs, "outcome": outcome}, rules)


def _tell(study: "optuna.Study", number: int, attributes: Mapping[str, Any], rules: Rules) -> None:
    from optuna.trial import TrialState

    outcome = str(attributes.get("outcome", ""))
    if outcome == TRAINED:
        study.tell(number, rules.values(attributes))
    elif not outcome or outcome == STOPPED or outcome.startswith(FAILED):
        study.tell(number, state=TrialState.FAIL)
    else:
        study.tell(number, state=TrialState.PRUNED)


def _reap(studies: Studies, study: "optuna.Study", rules: Rules, place: Path) -> None:
    """End the trials that dead workers left running.

    Those of other machines show by their heartbeats; those of this one at once, by the lock that a worker holds while
    it lives. One without a worker was claimed by a process that died in its turn.
    """
    import optuna

    with _quiet():
        optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        worker = trial.user_attrs.get("worker")
        if worker is None or _is_dead(worker, place):
            _tell(study, trial.number, trial.user_attrs, rules)


def _is_dead(worker: Mapping[str, str], place: Path) -> bool:
    theirs = Path(worker["directory"])
    if worker["host"] != socket.gethostname() or not theirs.is_dir():
        return False
    return theirs == place or not is_locked(theirs)


def _require_base(ledger: Ledger, slots: Sequence[Slot]) -> None:
    base = next((slot for slot in slots if slot.key == BASE), None)
    if base is not None and ledger.is_settled(base) and ledger.result(base) is None:
        raise UserError(
            f"The base could not be trained ({ledger.outcome(base)}), and all else is compared with it. Begin another "
            "search with other settings, a smaller backbone or smaller batches."
        )


def _take(
    studies: Studies,
    study: "optuna.Study",
    stage: Stage,
    place_in_stage: int,
    slots: Sequence[Slot],
    ledger: Ledger,
    rules: Rules,
    place: Path,
) -> Claim:
    slot = slots[place_in_stage]
    before = ledger.broken_off(slot)
    if not ledger.waits(slot):
        fixed = {} if slot.candidate is None else slot.candidate.as_json()
        params = fixed if before is None else before.params
        about = {"slot": slot.key, "stage": slot.stage, "phi": slot.phi}
        study.enqueue_trial(
            {name: value for name, value in params.items() if name in rules.space},
            user_attrs={name: value for name, value in about.items() if value is not None},
        )
    # By the slot and not by the trial: a study that was broken off has more trials than one that was not.
    draw = place_in_stage * (MOST_REJECTED + 1) + ledger.rejections(slot)
    study.sampler = make_sampler(rules.seed, draw, rules.pruning.rungs)
    study.pruner = rules.pruner()
    with _quiet():
        trial = study.ask()
        candidate = suggest(trial, rules.space)
    trial.set_user_attr("candidate", candidate.as_json())
    studies.beat(trial)
    trial.set_user_attr("worker", {"host": socket.gethostname(), "directory": str(place)})
    return Claim(study, trial, slot, candidate, stage.full, before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's warnings of experiments, of heartbeats outside its own loop, and of a base out of range."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
