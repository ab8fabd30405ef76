"""Which trainings of a study are done, and which is to be done next, read from its trials alone."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from fewlabel.search.candidate import Candidate, Slot

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

__all__ = [
    "DIVERGED",
    "FAILED",
    "MOST_REJECTED",
    "OUT_OF_MEMORY",
    "REJECTED",
    "STOPPED",
    "STOPPED_EARLY",
    "TRAINED",
    "Ledger",
    "slot_from_json",
    "slot_to_json",
]

TRAINED: Final = "trained"
STOPPED_EARLY: Final = "stopped early"
"""By the pruner."""
REJECTED: Final = "rejected"
"""Refused by counting, untrained. Here and below: how the outcome begins; the reason follows."""
DIVERGED: Final = "diverged"
OUT_OF_MEMORY: Final = "out of memory"
STOPPED: Final = "stopped"
"""By the user: the slot comes back as if it had never been tried."""
FAILED: Final = "failed"
"""By an error. A trial without an outcome ended with its worker."""

MOST_REJECTED = 20
"""Candidates of a slot that the sampler may choose in vain."""
MOST_FAILED = 3
"""Errors after which a slot is left alone."""
MOST_DEAD = 5
"""Workers that may die of a slot, of too little memory say, before it is left alone."""


class Ledger:
    """What became of each slot of a study.

    Args:
        trials: all of the study.
    """

    def __init__(self, trials: "Sequence[FrozenTrial]") -> None:
        self._trials: dict[str, list[FrozenTrial]] = defaultdict(list)
        for trial in trials:
            if "slot" in trial.user_attrs:
                self._trials[trial.user_attrs["slot"]].append(trial)

    def is_settled(self, slot: Slot) -> bool:
        """Whether nobody need train `slot` any more: it has a result, or was tried often enough in vain."""
        return _is_settled(self._trials[slot.key], MOST_REJECTED if slot.candidate is None else 1)

    def count_settled(self) -> int:
        """How many slots of those that have trials are settled."""
        return sum(_is_settled(trials, MOST_REJECTED) for trials in self._trials.values())

    def is_taken(self, slot: Slot) -> bool:
        """Whether a worker has it, or it waits for one."""
        return self.waits(slot) or any(trial.state.name == "RUNNING" for trial in self._trials[slot.key])

    def waits(self, slot: Slot) -> bool:
        """Whether a trial of it waits: the worker that enqueued it died before it began."""
        return any(trial.state.name == "WAITING" for trial in self._trials[slot.key])

    def next_open(self, slots: Sequence[Slot]) -> Slot | None:
        """The first of `slots` that is to be trained and that nobody has."""
        return next((slot for slot in slots if not self.is_taken(slot) and not self.is_settled(slot)), None)

    def settled(self, slots: Sequence[Slot]) -> int:
        """How many of `slots` are settled."""
        return sum(map(self.is_settled, slots))

    def rejections(self, slot: Slot) -> int:
        """How many candidates of `slot` were refused by counting."""
        return sum(trial.state.name == "PRUNED" for trial in self._trials[slot.key])

    def broken_off(self, slot: Slot) -> "FrozenTrial | None":
        """The trial of `slot` that ended before its training did, whose candidate the next takes over."""
        for trial in reversed(self._trials[slot.key]):
            if trial.state.name != "FAIL":
                return None
            if trial.params:
                return trial
        return None

    def outcome(self, slot: Slot) -> str:
        """How the last trial of `slot` ended."""
        ended = [trial for trial in self._trials[slot.key] if trial.state.is_finished()]
        return str(ended[-1].user_attrs.get("outcome", "its worker died")) if ended else "not tried"

    def result(self, slot: Slot) -> "FrozenTrial | None":
        """The finished trial of `slot`; None where there is none."""
        return next((trial for trial in self._trials[slot.key] if trial.state.name == "COMPLETE"), None)


def _is_settled(trials: "Sequence[FrozenTrial]", most_rejected: int) -> bool:
    rejected = failed = dead = 0
    for trial in trials:
        outcome, state = str(trial.user_attrs.get("outcome", "")), trial.state.name
        if state == "COMPLETE" or (state == "PRUNED" and not outcome.startswith(REJECTED)):
            return True
        rejected += state == "PRUNED"
        failed += state == "FAIL" and outcome.startswith(FAILED)
        dead += state == "FAIL" and not outcome
    return rejected >= most_rejected or failed >= MOST_FAILED or dead >= MOST_DEAD


def slot_to_json(slot: Slot) -> dict[str, Any]:
    """Names to plain values."""
    candidate = None if slot.candidate is None else slot.candidate.as_json()
    return {
        "key": slot.key,
        "stage": slot.stage,
        "candidate": candidate,
        "phi": slot.phi,
        "protected": slot.protected,
    }


def slot_from_json(values: Mapping[str, Any]) -> Slot:
    """The slot that `slot_to_json` wrote."""
    candidate = values["candidate"]
    return Slot(**{**values, "candidate": None if candidate is None else Candidate.from_json(candidate)})
