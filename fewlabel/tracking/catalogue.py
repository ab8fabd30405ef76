"""All the runs in a folder, read from their directories alone."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.markup import escape

from fewlabel.console import console
from fewlabel.tracking.lock import is_locked

__all__ = ["MainFigure", "RunRecord", "list_runs", "newest_classifier", "newest_encoder", "newest_index"]

_MAIN_FIGURES = ("accuracy", "knn_accuracy", "precision_at_5")


@dataclass(frozen=True)
class MainFigure:
    """The figure that says how a run went, with its interval where it has one."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class RunRecord:
    """One run, as `fewlabel runs` shows it."""

    directory: Path
    command: str
    created: datetime
    """With its time zone."""
    status: str
    """"running", "finished", "interrupted" (a killed run too) or "failed"."""
    source: str | None
    backbone: str | None
    figure: MainFigure | None
    """None until the run has finished."""
    parents: dict[str, str] = field(default_factory=dict)
    """What it was made from, by role."""

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "directory": str(self.directory), "created": self.created.isoformat()}


def list_runs(root: Path) -> list[RunRecord]:
    """The runs directly in `root`, oldest first; the console names folders that hold no readable run."""
    records, skipped = [], []
    for directory in sorted(root.iterdir()) if root.is_dir() else []:
        if not directory.is_dir() or directory.name.startswith("."):
            continue
        try:
            records.append(_read(directory))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = "no config.json" if isinstance(error, FileNotFoundError) else "not the record of a run"
            skipped.append(f"{directory.name} ({reason})")
    if skipped:
        console.print(f"[dim]Skipped in {escape(str(root))}: {escape(', '.join(skipped))}.[/]", highlight=False)
    return sorted(records, key=lambda record: (record.created, record.directory.name))


def newest_encoder(root: Path) -> Path | None:
    """The encoder directory of the newest finished run in `root` that has one."""
    return _newest(root, "encoder")


def newest_classifier(root: Path) -> Path | None:
    """The classifier directory of the newest finished run in `root` that has one."""
    return _newest(root, "classifier")


def newest_index(root: Path) -> Path | None:
    """The index directory of the newest finished run in `root` that has one."""
    return _newest(root, "index", "index.json")


def _newest(root: Path, folder: str, file: str = "config.json") -> Path | None:
    for record in reversed(list_runs(root)):
        found = record.directory / folder
        if record.status == "finished" and (found / file).is_file():
            return found
    return None


def _read(directory: Path) -> RunRecord:
    record = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    created = datetime.fromisoformat(record["created"])
    if created.tzinfo is None:
        raise ValueError("a time without its zone")
    status, config = _status(directory), record["config"]
    result: dict[str, Any] = {"metrics": {}}
    if status == "finished":
        result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    # What begins with an encoder has its network, and not the one that its own options would make.
    chosen = config.get("backbone") if config.get("encoder", "scratch") == "scratch" else None
    return RunRecord(
        directory=directory,
        command=str(record["command"]),
        created=created,
        status=status,
        source=_name(record["source"], "name"),
        backbone=_name(result.get("backbone", chosen), "backbone"),
        figure=_main_figure(result["metrics"]),
        parents={str(role): str(parent) for role, parent in record["parents"].items()},
    )


def _status(directory: Path) -> str:
    if (directory / "result.json").exists():
        return "finished"
    if is_locked(directory):
        return "running"
    status = directory / "status.json"
    # A killed process couldn't say that it ended, and left "running" there.
    failed = status.exists() and json.loads(status.read_text(encoding="utf-8"))["status"] == "failed"
    return "failed" if failed else "interrupted"


def _name(value: Any, key: str) -> str | None:
    """A name given as such or, in a group of options, under `key`."""
    if isinstance(value, Mapping):
        value = value.get(key)
    return str(value) if value is not None else None


def _main_figure(metrics: Mapping[str, Any]) -> MainFigure | None:
    """The accuracy where there is one, else the first figure that is a number."""
    for name in (*_MAIN_FIGURES, *metrics):
        figure = metrics.get(name)
        if isinstance(figure, Mapping) and figure.get("mean") is not None:
            return MainFigure(name, figure["mean"], figure.get("low"), figure.get("high"))
        if isinstance(figure, int | float):
            return MainFigure(name, float(figure))
    return None
