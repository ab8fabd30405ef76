"""`fewlabel index add`: more images in an index, at the cost of these alone."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fewlabel.console import say, say_rows
from fewlabel.data.config import SourceConfig
from fewlabel.errors import UserError
from fewlabel.pipelines.indexes import find_index, next_steps, summary_of
from fewlabel.pipelines.sources import load_all

if TYPE_CHECKING:
    from fewlabel.retrieval.merge import Added


@dataclass(frozen=True)
class AddedSource(SourceConfig):
    """Where the images come from; without a default, so that nothing comes into an index unasked."""

    data: str = ""
    """A folder, an .npz, a .parquet/.csv/.jsonl table, hf:owner/name[:config][@revision], or a classic
    set's name such as cifar10 or pathmnist."""


@dataclass(frozen=True)
class Config:
    """Add the images of a source to an index; only those that are new to it are embedded."""

    index: Path | None = None
    """Index directory, or the run that made it. Default: the newest in runs/."""
    source: AddedSource = field(default_factory=AddedSource)
    """All images of all splits, with labels or without."""
    json: bool = False
    """Print the result alone, as JSON, on standard output."""


def run(config: Config) -> int:
    """Run the command; its exit status."""
    if not config.source.data:
        raise UserError("Which images? Say where they are, as in `fewlabel index add --data new-photos/`.")
    directory = find_index(config.index)

    from fewlabel.retrieval.index import Index

    index = Index.open(directory)
    window = index.description.encoder.window
    if config.source.window not in (None, window):
        raise UserError(
            f"--window is {config.source.window}, but the images of this index are shown by {window}: others would not "
            "be comparable. Leave it out, or build an index of its own."
        )
    config = replace(config, source=replace(config.source, window=window))
    source = load_all(config.source)
    say_rows(
        {
            "index": f"{directory}: {summary_of(index.description)['images']}",
            "source": f"{source.name}: " + ", ".join(f"{len(part):,} {split}" for split, part in source.items()),
        }
    )
    added = index.add(source, reading=config.source)
    bad = [*source.bad, *index.left_out]
    description = index.description
    say(_told(added))
    if bad:
        say(f"{len(bad)} images can't be read and are left out.")
    summary = summary_of(description)
    say(f"Index: {directory}, {summary['images']}")
    if "advice" in summary:
        say(f"Advice: {summary['advice']}.")
    say(next_steps(config.index))
    if config.json:
        print(
            json.dumps(
                {
                    "index": str(directory),
                    "source": f"{source.name}@{source.fingerprint}",
                    **asdict(added),
                    "bad_images": [{"id": image.id, "reason": image.reason} for image in bad],
                    "excluded_images": [{"id": image.id, "reason": image.reason} for image in source.excluded],
                    "images": description.images,
                    "vectors": description.vectors,
                },
                indent=2,
            )
        )
    return 0


_FATES = {
    "new": "new",
    "copies": "copies of images that are there",
    "replaced": "in files that held another image before",
    "moved": "found at a new place",
    "updated": "with other labels, split or group than before",
    "known": "there already",
}


def _told(added: "Added") -> str:
    counts = {fate: number for fate, number in asdict(added).items() if number}
    return "Images: " + ", ".join(f"{number:,} {_FATES[fate]}" for fate, number in counts.items()) + "."
