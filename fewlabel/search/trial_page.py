"""The run of a trial as a page: its figures, its curves, its configuration, read from its directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fewlabel.errors import UserError
from fewlabel.files import read_json
from fewlabel.search.notes import report_address
from fewlabel.search.table import FULL_LENGTH, TrialRow, multipliers, quality_name
from fewlabel.tracking.curves import curve_png, series_of
from fewlabel.tracking.record import flattened
from fewlabel.tracking.report import Link, Page, shown

if TYPE_CHECKING:
    import optuna

__all__ = ["trial_page"]

_MOST_CURVES: Final = 24


def trial_page(study: "optuna.Study", row: TrialRow) -> str:
    """The page of the trial `row` of `study`, as HTML.

    Of the directory that the storage names, it reads `config.json` and, if that is the record of this very trial,
    `metrics.jsonl`, and no other file.
    """
    page = Page(f"Trial {row.number} of {study.study_name}", f"{row.slot}: {multipliers(row.candidate)}")
    page.listing(
        [
            Link("Report of the study", report_address(study.study_name.removesuffix(FULL_LENGTH))),
            Link("This trial in the dashboard", f"/dashboard/studies/{study._study_id}/trials?numbers={row.number}"),
        ]
    )
    record = _record(row)
    page.section("Figures")
    page.definitions({name: text for name, text in _figures(quality_name(study), row).items() if text})
    if row.run is not None and record is None:
        page.paragraph(
            "Its directory isn't on this machine, or no longer there: the trial was trained elsewhere, or was moved."
        )
    if row.run is not None and record is not None:
        page.section("Curves")
        series = {name: line for name, line in series_of(row.run / "metrics.jsonl").items() if len(line[0]) > 1}
        if series:
            page.gallery([_curve(name, *line) for name, line in list(series.items())[:_MOST_CURVES]])
        else:
            page.paragraph("Nothing was logged twice yet.")
        page.section("Configuration")
        page.definitions({name: str(value) for name, value in flattened(record["config"]).items()})
    return page.html()


def _record(row: TrialRow) -> Mapping[str, Any] | None:
    """The record of the trial's run; None unless the directory has that of this trial."""
    if row.run is None or row.wandb_id is None:
        return None
    try:
        record = read_json(row.run / "config.json")
    except UserError:
        return None
    own = isinstance(record, dict) and record.get("wandb_id") == row.wandb_id and isinstance(record.get("config"), dict)
    return record if own else None


def _figures(name: str, row: TrialRow) -> dict[str, str]:
    cost = row.cost or {}
    return {
        "Outcome": row.outcome,
        name.capitalize(): "" if row.value is None else shown(row.value),
        "Scale": multipliers(row.candidate),
        "Phi": "" if row.phi is None else f"{row.phi:g}",
        "Cost": "" if row.ratio is None else f"{row.ratio:.3f} times the base's",
        "Operations": f"{cost['flops']:,} of an image's forward pass" if "flops" in cost else "",
        "Parameters": f"{cost['parameters']:,}" if "parameters" in cost else "",
        "Image side": f"{cost['image_size']} px" if "image_size" in cost else "",
        "Latency": f"{1000 * cost['latency']:.3g} ms" if cost.get("latency") else "",
        "Seconds": "" if row.seconds is None else f"{row.seconds:,.0f}",
        "Run directory": "" if row.run is None else str(row.run),
        "W&B": "" if row.wandb_id is None else f"run {row.wandb_id}{_wandb_folder(row.run)}",
    }


def _wandb_folder(run: Path | None) -> str:
    return f", recorded in {run / 'wandb'}" if run is not None and (run / "wandb").is_dir() else ""


def _curve(name: str, steps: list[int], values: list[float]) -> tuple[bytes, str, str]:
    alternative = f"{name} from {values[0]:.4g} at step {steps[0]:,} to {values[-1]:.4g} at step {steps[-1]:,}"
    return curve_png(steps, values), f"{name.replace('_', ' ')}: {values[-1]:.4g} at the end", alternative
