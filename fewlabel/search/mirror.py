"""What W&B is shown of a study as a whole, beside the runs of its trials."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fewlabel.search.plots import plots_of
from fewlabel.search.report import trial_cells, trial_columns
from fewlabel.search.table import quality_name, rows_of

if TYPE_CHECKING:
    import optuna

    from fewlabel.tracking.run import Run

__all__ = ["log_study"]


def log_study(record: "Run", study: "optuna.Study") -> None:
    """Show the pictures of `study` and the table of its trials, with their W&B runs, in that of `record`."""
    for plot in plots_of(study):
        record.log_plot(plot.name, plot.figure)
    record.log_table(
        "trials",
        [*trial_columns(quality_name(study)), "low", "high", "wandb"],
        [
            [
                *(cell["mean"] if isinstance(cell, Mapping) else cell for cell in trial_cells(row)),
                *_limits(row.value),
                row.wandb_id,
            ]
            for row in rows_of(study)
        ],
    )


def _limits(value: Mapping[str, Any] | None) -> tuple[float | None, float | None]:
    return (None, None) if value is None else (value["low"], value["high"])
