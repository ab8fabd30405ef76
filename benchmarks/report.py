"""The table of all comparisons: on the terminal, as Markdown and as JSON."""

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.rows import Row
from fewlabel.files import atomic_write_text, read_json, write_json
from fewlabel.tracking.provenance import provenance

__all__ = ["about", "table", "write"]

COLUMNS = ("comparison", "ours", "peer", "unit", "ratio", "target", "met")


def about(command: str, load: float) -> dict[str, Any]:
    """Where and how the figures came about; neither host nor path is named.

    Args:
        command: as it was typed, with names in the place of paths.
        load: average of the last minute before they began.
    """
    origin = provenance()
    origin["machine"]["system"] = f"{platform.system()} {platform.machine()}"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": command,
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


def write(folder: Path, rows: Mapping[str, Sequence[Row]], origin: Mapping[str, Any]) -> list[Path]:
    """Write <benchmark>.json for each in `rows`, and latest.md of all that lie in `folder`, whenever they were made."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{name}.json" for name in rows]
    for path, name in zip(written, rows, strict=True):
        write_json(path, {**origin, "rows": list(rows[name])})
    found = {path.stem: read_json(path) for path in sorted(folder.glob("*.json"))}
    markdown = folder / "latest.md"
    atomic_write_text(markdown, _markdown({name: record for name, record in found.items() if "rows" in record}))
    return [*written, markdown]


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


def _markdown(records: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["# Measured beside the peers"]
    for name, record in records.items():
        machine, git = record["machine"], record["git"]
        packages = ", ".join(f"{package} {version}" for package, version in record["packages"].items())
        commit = f"commit {git['commit'][:10]}{' with changes' if git['dirty'] else ''}" if git else "no commit"
        lines += [
            "",
            f"## {name}",
            "",
            f"- Command: `{record['command']}`",
            f"- Date: {record['date']}; Fewlabel {record['fewlabel']}, {commit}",
            f"- Machine: {machine['cpu']}, {machine['cores']} cores; GPU: {', '.join(machine['gpus']) or 'none'}; "
            f"load average before {record['load_average_before']}",
            f"- Versions: Python {record['python']}, {packages}",
            "",
            "| " + " | ".join((*COLUMNS, "note")) + " |",
            "|" + " --- |" * (len(COLUMNS) + 1),
            *("| " + " | ".join([*_cells(row), row["note"]]) + " |" for row in record["rows"]),
        ]
    return "\n".join(lines) + "\n"
