"""What is remembered of a run: the run directory, its W&B record, its provenance, the list of all runs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["NullRun", "Run", "RunConfig", "RunRecord", "list_runs"]

if TYPE_CHECKING:
    from fewlabel.tracking.catalogue import RunRecord, list_runs
    from fewlabel.tracking.config import RunConfig
    from fewlabel.tracking.run import NullRun, Run

_HOMES = {
    "NullRun": "run",
    "Run": "run",
    "RunConfig": "config",
    "RunRecord": "catalogue",
    "list_runs": "catalogue",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that the room's configuration can be read alone."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
