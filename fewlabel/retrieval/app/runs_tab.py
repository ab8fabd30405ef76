"""The runs tab: what was done so far, with its curves, pictures and report."""

from pathlib import Path
from typing import Any

import gradio as gr

from fewlabel.errors import UserError
from fewlabel.retrieval.app.markup import LIVE, PICK, message
from fewlabel.retrieval.app.run_markup import REPORT, run_markup, runs_table
from fewlabel.tracking.catalogue import RunRecord, list_runs

__all__ = ["RunsTab", "report_of", "run_named"]


def run_named(root: Path, name: str) -> RunRecord:
    """The run of this name among those that are listed: a name from a browser is never made into a path.

    Raises:
        UserError: there is none.
    """
    for record in list_runs(root):
        if record.directory.name == name:
            return record
    raise UserError("That run is not there (any more): choose one of the list.")


def report_of(root: Path, name: str) -> bytes | None:
    """The report page of a run; None where it has none.

    Raises:
        UserError: there is no such run.
    """
    try:
        return (run_named(root, name).directory / REPORT).read_bytes()
    except OSError:
        return None


class RunsTab:
    """The tab's components and what they do; to be made inside `tab`."""

    def __init__(self, tab: gr.Tab, root: Path) -> None:
        self._root = root
        status = gr.HTML(elem_id="runs-status", js_on_load=LIVE)
        listing = gr.HTML(elem_id="runs", js_on_load=PICK)
        details = gr.HTML(elem_id="run")
        quietly: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        tab.select(self._list, None, [status, listing], **quietly)
        listing.pick(self._show, None, [status, details], trigger_mode="always_last", **quietly)

    def _list(self) -> tuple[str, str]:
        records = list_runs(self._root)[::-1]
        if not records:
            return message(f"No runs in {self._root.resolve()} yet."), ""
        return message(f"{len(records)} runs, the newest first. Choose one for its curves and its report."), runs_table(
            records
        )

    def _show(self, event: gr.EventData) -> tuple[str, Any]:
        name = event._data.get("key") if isinstance(event._data, dict) else None
        try:
            record = run_named(self._root, str(name))
        except UserError as error:
            return message(str(error), wrong=True), ""
        return message(f"Shown below: {record.directory.name}"), run_markup(record)
