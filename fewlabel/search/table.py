"""The trials of a study as rows, read from its storage alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fewlabel.errors import UserError
from fewlabel.search.candidate import Candidate

if TYPE_CHECKING:
    import optuna

__all__ = [
    "DIMENSIONS",
    "FULL_LENGTH",
    "TrialRow",
    "full_length",
    "multipliers",
    "quality_name",
    "row_of",
    "rows_of",
    "winner_of",
]

FULL_LENGTH: Final = " (full length)"
"""What the study of the best trials, trained again at full length, has behind the name of its study."""

DIMENSIONS: Final = ("depth", "width", "resolution")

_OUTCOMES: Final = {
    "WAITING": "waiting",
    "RUNNING": "running",
    "COMPLETE": "trained",
    "PRUNED": "stopped early",
    "FAIL": "failed",
}
"""By the state of the trial, where the worker wrote nothing else."""


@dataclass(frozen=True)
class TrialRow:
    """One trial, as reports show it; what isn't known (yet) is None."""

    number: int
    slot: str
    """What the training was wanted for, e.g. "base", "grid/1.20-1.10-1.15"."""
    outcome: str
    """Such as "waiting", "running", "trained", "stopped early", "rejected: ..." or "out of memory"."""
    finished: bool
    """Whether it was trained to its end and has its value."""
    candidate: Candidate
    within_budget: bool = True
    phi: float | None = None
    cost: Mapping[str, Any] | None = None
    """`Cost.as_json` of one image."""
    ratio: float | None = None
    """Floating-point operations in those of the base."""
    value: Mapping[str, float] | None = None
    """The quality on validation images with its interval: "mean", "low", "high"."""
    run: Path | None = None
    """Its run directory, on the machine that trained it."""
    wandb_id: str | None = None
    seconds: float | None = None


def rows_of(study: "optuna.Study") -> list[TrialRow]:
    """Every trial of `study` by its number."""
    return [row_of(trial) for trial in study.get_trials(deepcopy=False)]


def row_of(trial: "optuna.trial.FrozenTrial") -> TrialRow:
    """One trial as it stands in the storage now."""
    known = trial.user_attrs
    value = known.get("value")
    if not (isinstance(value, Mapping) and value.keys() >= {"mean", "low", "high"}):
        value = None
    return TrialRow(
        number=trial.number,
        slot=str(known.get("slot", f"trial/{trial.number}")),
        outcome=str(known.get("outcome") or _OUTCOMES[trial.state.name]),
        finished=trial.state.name == "COMPLETE" and value is not None,
        candidate=_candidate(known.get("candidate") or trial.params),
        within_budget=all(excess <= 0 for excess in trial.constraints.values()),
        phi=known.get("phi"),
        cost=known.get("cost"),
        ratio=known.get("cost_ratio"),
        value=value,
        run=Path(known["run"]) if known.get("run") else None,
        wandb_id=known.get("wandb_id"),
        seconds=known.get("seconds"),
    )


def _candidate(values: Mapping[str, Any]) -> Candidate:
    try:
        return Candidate.from_json(values)
    except UserError:
        # A study of another version is shown as far as it can be.
        return Candidate()


def full_length(study: "optuna.Study") -> "optuna.Study | None":
    """The study of the best trials of `study` at full length; None until there is one."""
    import optuna

    try:
        return optuna.load_study(study_name=study.study_name + FULL_LENGTH, storage=study._storage)
    except KeyError:
        return None


def winner_of(study: "optuna.Study") -> TrialRow | None:
    """The best of the trainings at full length, before there are any that of the trials; None before one has finished.

    With several objectives it is the best in quality, whatever it costs within the budget.
    """
    full = full_length(study)
    for rows in ([] if full is None else rows_of(full), rows_of(study)):
        if finished := [row for row in rows if row.finished and row.within_budget]:
            # Of equals, the cheaper one.
            return max(finished, key=lambda row: ((row.value or {})["mean"], -(row.ratio or 0.0), -row.number))
    return None


def quality_name(study: "optuna.Study") -> str:
    """What the first objective is called, e.g. "accuracy"."""
    names = study.metric_names
    return names[0] if names else "value"


def multipliers(candidate: Candidate) -> str:
    """The scale in words: "depth x 1.2, width x 1.1, resolution x 1.15", and what else was tried."""
    scale = [f"{name} x {getattr(candidate, name):.4g}" for name in DIMENSIONS if getattr(candidate, name) != 1]
    settings = [f"{name.replace('_', ' ')} {value:.3g}" for name, value in candidate.as_json().items()]
    return ", ".join([*scale, *settings[len(DIMENSIONS) :]]) or "the base"
