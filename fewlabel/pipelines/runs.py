"""`fewlabel runs`: the runs made so far."""

import json
from dataclasses import dataclass
from pathlib import Path

from fewlabel.console import as_typed, console


@dataclass(frozen=True)
class Config:
    """List the runs made so far with their main figures."""

    root: Path = Path("runs")
    """Folder that holds the run directories."""
    json: bool = False
    """Print the list as JSON."""


def run(config: Config) -> int:
    """Run the command; its exit status."""
    from rich.table import Table

    from fewlabel.console import print_table
    from fewlabel.tracking.catalogue import list_runs

    records = list_runs(config.root)
    if config.json:
        print(json.dumps([record.as_json() for record in records], indent=2))
        return 0
    if not records:
        console.print(f"No runs in {config.root} yet. Make one: {as_typed()} pretrain --data your/folder")
        return 0
    table = Table("run", "command", "status", "source", "backbone", "main figure", "parents", box=None)
    for record in records:
        figure = record.figure
        shown = ""
        if figure is not None:
            shown = f"{figure.name} {figure.value:.3f}"
            if figure.low is not None and figure.high is not None:
                shown += f" ({figure.low:.3f} to {figure.high:.3f})"
        parents = ", ".join(f"{role} {name}" for role, name in record.parents.items())
        table.add_row(
            str(record.directory),
            record.command,
            record.status,
            record.source,
            record.backbone,
            shown,
            parents,
        )
    print_table(table)
    return 0
