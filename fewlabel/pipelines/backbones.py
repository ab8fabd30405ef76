"""`fewlabel backbones`: what --backbone can name."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Config:
    """List the architectures that --backbone can name."""

    json: bool = False
    """Print the list as JSON."""


def run(config: Config) -> int:
    """Run the command; its exit status."""
    from rich.table import Table

    from fewlabel.backbones.catalogue import entries
    from fewlabel.console import print_table

    rows = entries()
    if config.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return 0
    table = Table("name", "family", "source", "size", "parameters", "features", "", box=None)
    for row in rows:
        table.add_row(
            f"[bold]{row.name}[/]" if row.name == row.family else f"  {row.name}",
            row.family,
            row.source,
            str(row.image_size),
            f"{row.parameters:,}",
            str(row.num_features),
            row.summary,
        )
    print_table(table)
    return 0
