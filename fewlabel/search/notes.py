"""Notes that optuna-dashboard shows beside a study and its trials, with links to what Fewlabel knows of them."""

from typing import TYPE_CHECKING
from urllib.parse import quote

from fewlabel.search.table import multipliers, quality_name, row_of
from fewlabel.tracking.report import shown

if TYPE_CHECKING:
    import optuna

__all__ = ["report_address", "trial_address", "write_note", "write_study_note"]


def report_address(study: str) -> str:
    """Where `fewlabel dashboard` shows the report of the study of this name."""
    return f"/report/{quote(study, safe='')}"


def trial_address(study: str, number: int) -> str:
    """Where it shows the run of a trial."""
    return f"/trials/{quote(study, safe='')}/{number}"


def write_study_note(study: "optuna.Study") -> None:
    """Lead from the study to its report, which `fewlabel dashboard` serves."""
    from optuna_dashboard import save_note

    save_note(
        study,
        f"[Report: which of depth, width and resolution to buy]({report_address(study.study_name)})\n\n"
        "The links work in `fewlabel dashboard`.",
    )


def write_note(trial: "optuna.Trial") -> None:
    """Lead from a trial to its run, once its attributes say where that is; a second call brings the note up to date."""
    from optuna_dashboard import save_note

    row = row_of(trial.storage.get_trial(trial._trial_id))
    lines = [
        f"[Run of this trial: configuration, figures, curves]({trial_address(trial.study.study_name, row.number)})",
        f"{_code(row.slot)}: {_code(multipliers(row.candidate))}"
        + (f", {row.ratio:.2f} times the base's cost" if row.ratio is not None else ""),
        f"{quality_name(trial.study)} {shown(row.value)}" if row.value is not None else row.outcome,
        f"Run directory {_code(row.run)}" if row.run is not None else "",
        f"W&B run {_code(row.wandb_id)}" if row.wandb_id is not None else "",
    ]
    save_note(trial, "\n\n".join(line for line in lines if line))


def _code(text: object) -> str:
    """Text that Markdown leaves as it is."""
    return f"`{str(text).replace('`', chr(39))}`"
