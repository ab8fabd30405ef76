"""The table of all comparisons: on the terminal, as Markdown and as JSON."""

import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.rows import Row
from fewlabel.files import atomic_path, write_json
from fewlabel.tracking.provenance import provenance

__all__ = ["about", "table", "write"]

COLUMNS = ("comparison", "ours", "peer", "unit", "ratio", "target", "met")


def about(command: str, skipped: Sequence[str], load: float) -> dict[str, Any]:
    """Where and how the figures came about; neither host nor path is named.

    Args:
        command: as it was typed, with names in the place of paths.
        skipped: benchmarks that were not run.
        load: average of the last minute before they began.
    """
    origin = provenance()
    origin["machine"]["system"] = f"{platform.system()} {platform.machine()}"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": command,
        "skipped": list(skipped),
        "load_average_before": round(load, 2),
        **origin,
    }


def table(rows: Sequence[Row]) -> Table:
    """What the terminal shows."""
    drawn = Table(*COLUMNS)
    for column in drawn.columns[1:5]:
        column.justify = "right"
    for row in rows:
        style = "" if row["met"] else "yellow"
        drawn.add_row(*_cells(row), style=style)
    return drawn


def write(folder: Path, rows: Sequence[Row], origin: dict[str, Any]) -> list[Path]:
    """Write <date>-<machine>.json and latest.md into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = origin["machine"]
    words = f"{machine['cpu']} {machine['cores']} cores {' '.join(machine['gpus'])}"
    slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    report, markdown = folder / f"{origin['date']}-{slug}.json", folder / "latest.md"
    write_json(report, {**origin, "rows": list(rows)})
    with atomic_path(markdown) as temporary:
        temporary.write_text(_markdown(rows, origin), encoding="utf-8")
    return [report, markdown]


def _cells(row: Row) -> list[str]:
    return [
        row["name"],
        f"{row['ours']:,.5g}",
        f"{row['peer']:,.5g}",
        row["unit"],
        f"{row['ratio']:,.2f}",
        row["target"],
        "yes" if row["met"] else "no",
    ]


def _markdown(rows: Sequence[Row], origin: dict[str, Any]) -> str:
    machine = origin["machine"]
    packages = ", ".join(f"{name} {origin['packages'][name]}" for name in ("torch", "lightly", "timm", "pillow"))
    commit = origin["git"]["commit"][:10] if origin["git"] else "none"
    changed = " with changes" if origin["git"] and origin["git"]["dirty"] else ""
    lines = [
        "# Measured beside the peers",
        "",
        f"- Command: `{origin['command']}`",
        f"- Date: {origin['date']}; Fewlabel {origin['fewlabel']}, commit {commit}{changed}",
        f"- Machine: {machine['cpu']}, {machine['cores']} cores; GPU: {', '.join(machine['gpus']) or 'none'}; "
        f"load average before {origin['load_average_before']}",
        f"- Versions: Python {origin['python']}, {packages}",
    ]
    if origin["skipped"]:
        lines.append(f"- Not run: {', '.join(origin['skipped'])}")
    lines += ["", "| " + " | ".join((*COLUMNS, "note")) + " |"]
    lines.append("|" + " --- |" * (len(COLUMNS) + 1))
    lines += ["| " + " | ".join([*_cells(row), row["note"]]) + " |" for row in rows]
    return "\n".join(lines) + "\n"
