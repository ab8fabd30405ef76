"""`fewlabel index info`: what an index holds, and how."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewlabel.console import print_table
from fewlabel.pipelines.indexes import find_index, summary_of


@dataclass(frozen=True)
class Config:
    """Say what an index holds, and how."""

    index: Path | None = None
    """Index directory, or the run that made it. Default: the newest in runs/."""
    json: bool = False
    """Print as JSON."""


def run(config: Config) -> int:
    """Run the command; its exit status."""
    directory = find_index(config.index)

    from fewlabel.retrieval.description import read_description
    from fewlabel.retrieval.manifest import Manifest

    description = read_description(directory)
    entries = Manifest.read(directory / description.manifest_file.name).entries
    splits = Counter(entry.split for entry in entries)
    labels = Counter(label for entry in entries for label in entry.labels)
    if config.json:
        facts: dict[str, Any] = {"directory": str(directory), **description.as_json()}
        print(json.dumps({**facts, "splits": dict(splits), "labels": dict(labels.most_common())}, indent=2))
        return 0

    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False)
    rows = {"index": str(directory), **summary_of(description)}
    rows["sources"] = ", ".join(name.rpartition("@")[0] for name in description.sources)
    rows["splits"] = ", ".join(f"{split} {count:,}" for split, count in splits.items())
    rows["labels"] = ", ".join(f"{label} {count:,}" for label, count in labels.most_common(20)) or "none"
    if len(labels) > 20:
        rows["labels"] += f" and {len(labels) - 20} more"
    for name, value in rows.items():
        table.add_row(f"[dim]{name}[/]", escape(value))
    print_table(table)
    return 0
