"""What the commands on an index share: which one, and what is said of it."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from fewlabel.console import as_typed
from fewlabel.pipelines.newest import newest_of

if TYPE_CHECKING:
    from fewlabel.retrieval.description import Description
    from fewlabel.retrieval.manifest import Entry

__all__ = ["find_index", "next_steps", "place_of", "summary_of"]


def find_index(given: Path | None) -> Path:
    """The index directory that was `given`, as such or as the run that made it; else the newest in runs/.

    Raises:
        UserError: there is none.
    """
    from fewlabel.retrieval.description import locate
    from fewlabel.tracking.catalogue import newest_index

    if given is not None:
        return locate(given)
    return newest_of("index", newest_index, "index build")


def summary_of(description: "Description") -> dict[str, str]:
    """What an index holds and how, by name."""
    from fewlabel.retrieval.choice import outgrown

    plan = description.plan
    recall = plan.recall
    if recall.queries:
        measured = (
            f"{recall.measured:.3f} of the true {recall.k} nearest are found, measured on {recall.queries:,} queries "
            f"(asked: {recall.asked:g})"
        )
    else:
        measured = "every search is exact"
    size = sum(file.size for file in description.files)
    rows = {
        "images": f"{description.images:,}, of which {description.vectors:,} are different",
        "vectors": f"{plan.factory}, {plan.metric}, width {description.width}: {plan.why}",
        "recall": measured,
        "on disk": f"{size / 2**20:,.1f} MiB, of which vectors {description.vectors_file.size / 2**20:,.1f} MiB",
        "encoder": f"{description.encoder.backbone} at {description.encoder.image_size} px, "
        f"{description.encoder.hash[:16]}",
    }
    if outgrown(plan, description.vectors):
        rows["advice"] = (
            f"build it again: {plan.factory} was chosen for {plan.count:,} images, and another layout suits so many"
        )
    return rows


def next_steps(named: Path | None) -> str:
    """What to type next, with --index where the index had to be `named`."""
    where = "" if named is None else f" --index {shlex.quote(str(named))}"
    return f"Next:  {as_typed()} query IMAGE{where}, or {as_typed()} app{where}"


def place_of(entry: "Entry") -> str:
    """Where a user finds an image: its file, as seen from here, else its id in the source."""
    if entry.path is None:
        return entry.id
    path = Path(entry.path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
