"""`fewlabel index remove`: images taken out of an index."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tyro.conf import Positional

from fewlabel.console import say
from fewlabel.errors import UserError
from fewlabel.pipelines.indexes import find_index, summary_of


@dataclass(frozen=True)
class Config:
    """Take images out of an index; their files stay where they are."""

    names: Positional[tuple[str, ...]] = ()
    """Ids or paths of the images."""

    index: Path | None = None
    """Index directory, or the run that made it. Default: the newest in runs/."""

    json: bool = False
    """Print the result alone, as JSON, on standard output."""


def run(config: Config) -> int:
    """Run the command; its exit status."""
    if not config.names:
        raise UserError("Which images? Name them by id or path, as in `fewlabel index remove photos/cat.jpg`.")
    directory = find_index(config.index)

    from fewlabel.retrieval.index import Index

    index = Index.open(directory)
    removed = index.remove(config.names)
    description = index.description
    say(f"Removed: {removed.images:,} images; {removed.vectors:,} of them stand nowhere else in the index.")
    say(f"Index:   {directory}, {summary_of(description)['images']}")
    if config.json:
        left = {"images": description.images, "vectors": description.vectors}
        print(json.dumps({"index": str(directory), "removed": asdict(removed), **left}, indent=2))
    return 0
