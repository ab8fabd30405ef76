"""A study as one HTML page that stands alone: what to buy, the pictures, every trial."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from fewlabel import __version__
from fewlabel.search.plots import plots_of
from fewlabel.search.table import TrialRow, full_length, multipliers, quality_name, rows_of
from fewlabel.search.verdict import verdict
from fewlabel.tracking.record import flattened
from fewlabel.tracking.report import Cell, Link, Page

if TYPE_CHECKING:
    import optuna

__all__ = ["REPORT", "html_of", "trial_cells", "trial_columns", "write_report"]

REPORT: Final = "report.html"

_LEAD: Final = 3
"""Sentences of the verdict that stand out."""


def write_report(study: "optuna.Study", directory: Path) -> Path:
    """Write `report.html` into `directory` from what the study's storage says now.

    Trials whose run directories lie on this machine are linked, relative to the page.

    Returns:
        The file.
    """

    def link(_: str, row: TrialRow) -> str | None:
        if row.run is None or not row.run.is_dir():
            return None
        return quote(Path(os.path.relpath(row.run, directory.absolute())).as_posix()) + "/"

    return _page(study, link).write(directory / REPORT)


def html_of(study: "optuna.Study", link: Callable[[str, TrialRow], str | None]) -> str:
    """The same page as text.

    Args:
        study: at any moment of its life.
        link: from the name of a study and one of its trials to the address of that trial's page, or None.
    """
    return _page(study, link).html()


def _page(study: "optuna.Study", link: Callable[[str, TrialRow], str | None]) -> Page:
    rows, full, name = rows_of(study), full_length(study), quality_name(study)
    page = Page(study.study_name, "How deep, how wide, at what resolution: what the search found")
    said = verdict(study)
    page.section("Which to buy")
    page.paragraph(" ".join(said[:_LEAD]), lead=True)
    for sentence in said[_LEAD:]:
        page.paragraph(sentence)
    page.paragraph(
        "All intervals are of 95 %. They tell how far other validation images could have moved the figure; they don't "
        "tell what another seed would have given."
    )
    for plot in plots_of(study):
        page.section(plot.title)
        page.plot(plot.figure, plot.caption)
    if full is not None and (repeated := rows_of(full)):
        page.section("At full length")
        page.table(
            ["trial", "scale", f"{name} of the short training", f"{name} at full length", "outcome"],
            [_beside(row, rows, link(full.study_name, row)) for row in repeated],
            "The best trials and the base, trained as long as `fewlabel pretrain` would.",
        )
    page.section("Every trial")
    listed = [row for row in rows if row.outcome != "given up"]
    if listed:
        page.table(
            trial_columns(name),
            [trial_cells(row, link(study.study_name, row)) for row in listed],
            "The slot is what a training was wanted for. Numbers lead to the runs.",
        )
    else:
        page.paragraph("None yet.")
    page.section("How it was searched")
    page.definitions(_about(study))
    return page


def trial_columns(name: str) -> list[str]:
    """The columns of the table of trials, where the quality is called `name`."""
    return ["trial", "slot", "scale", name, "cost, times the base's", "GFLOPs", "M parameters", "side", "outcome", "s"]


def trial_cells(row: TrialRow, address: str | None = None) -> list[Cell]:
    """A trial in those columns; its number leads to `address`, if there is one."""
    cost = row.cost or {}
    return [
        _numbered(row, address),
        row.slot,
        multipliers(row.candidate),
        row.value,
        row.ratio,
        cost["flops"] / 1e9 if "flops" in cost else None,
        cost["parameters"] / 1e6 if "parameters" in cost else None,
        cost.get("image_size"),
        row.outcome,
        None if row.seconds is None else round(row.seconds),
    ]


def _numbered(row: TrialRow, address: str | None) -> Cell:
    return str(row.number) if address is None else Link(str(row.number), address)


def _beside(row: TrialRow, rows: list[TrialRow], address: str | None) -> list[Cell]:
    """A training at full length beside the short one of the same candidate."""
    short = next((one.value for one in rows if one.finished and one.candidate == row.candidate), None)
    return [_numbered(row, address), multipliers(row.candidate), short, row.value, row.outcome]


def _about(study: "optuna.Study") -> dict[str, str]:
    """Where the study stands and all that defines it."""
    known = study.user_attrs.get("fewlabel")
    identity = known.get("identity", {}) if isinstance(known, Mapping) else {}
    return {
        "Study": study.study_name,
        "Objectives": ", ".join(
            f"{name} ({direction.name.lower()})"
            for name, direction in zip(
                study.metric_names or [f"objective {place}" for place in range(len(study.directions))],
                study.directions,
                strict=True,
            )
        ),
        # What was left open has no influence of its own.
        **{_term(name): _text(value) for name, value in flattened(identity).items() if value not in (None, [])},
        "Versions": f"Fewlabel {__version__}, {_versions()}",
    }


def _term(name: str) -> str:
    return name.replace("_", " ").replace(".", ", ").capitalize()


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _versions() -> str:
    import optuna

    return f"Optuna {optuna.__version__}"
