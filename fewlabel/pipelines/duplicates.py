"""`fewlabel duplicates`: the near-identical images of an index, in groups."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabel.console import print_table, say
from fewlabel.errors import UserError
from fewlabel.pipelines.indexes import find_index, place_of
from fewlabel.pipelines.outputs import check_ending, refuse_existing, write_table

if TYPE_CHECKING:
    from fewlabel.retrieval.contact_sheet import Strip
    from fewlabel.retrieval.duplicates import DuplicateGroup
    from fewlabel.retrieval.parts import Parts

_GROUPS, _IMAGES = 20, 10
"""Groups, and images of each, in the terminal."""

_LARGE = 0.05
"""Share of the images that makes one group suspicious."""


@dataclass(frozen=True)
class Config:
    """List the near-identical images of an index."""

    index: Path | None = None
    """Index directory, or the run that made it. Default: the newest in runs/."""
    threshold: float = 0.98
    """Cosine of two images' features from which they count as near-identical; above 0, at most 1."""
    table: Path | None = None
    """Write all groups to this .csv or .parquet file, a row for each image."""
    picture: Path | None = None
    """Draw the groups as a .png."""
    overwrite: bool = False
    """Replace --table and --picture if they exist."""
    json: bool = False
    """Print the groups alone, as JSON, on standard output."""

    def __post_init__(self) -> None:
        """Check values, before anything is loaded."""
        if not 0 < self.threshold <= 1:
            raise UserError(
                f"--threshold is {self.threshold}; it must be above 0 and at most 1, as in --threshold 0.98."
            )
        check_ending("--table", self.table)
        check_ending("--picture", self.picture, (".png",))


def run(config: Config) -> int:
    """Run the command; its exit status."""
    for flag, path in (("--table", config.table), ("--picture", config.picture)):
        refuse_existing(flag, path, config.overwrite)
    directory = find_index(config.index)
    from fewlabel.retrieval.duplicates import find_duplicates
    from fewlabel.retrieval.parts import open_parts

    parts = open_parts(directory)
    plan, entries = parts.description.plan, parts.manifest.entries
    exact = plan.factory == "Flat"
    groups = find_duplicates(entries, parts.vectors, config.threshold, exhaustive=exact or plan.metric != "cosine")
    if config.json:
        print(json.dumps(_as_json(directory, config.threshold, len(entries), groups), indent=2))
    elif groups:
        _print(groups)
    if not exact:
        say(
            f"The vectors are kept as {plan.factory}: every pair was compared by what is kept, and where that is "
            "compressed a similarity may be a little off."
        )
    _tell(groups, len(entries), config.threshold)
    if config.table is not None:
        write_table(_columns(groups), config.table)
        say(f"Table: {config.table}")
    if config.picture is not None and groups:
        _draw(config.picture, parts, groups)
    return 0


def _columns(groups: "Sequence[DuplicateGroup]") -> dict[str, list[Any]]:
    """The table, by column; groups are numbered from 1."""
    rows = [(number, group, member) for number, group in enumerate(groups, start=1) for member in group.members]
    return {
        "group": [number for number, _, _ in rows],
        "id": [member.entry.id for _, _, member in rows],
        "path": [member.entry.path for _, _, member in rows],
        "label": ["; ".join(member.entry.labels) or None for _, _, member in rows],
        "split": [member.entry.split for _, _, member in rows],
        "kind": [member.kind for _, _, member in rows],
        "similarity": [member.similarity for _, _, member in rows],
        "across_splits": [group.across_splits for _, group, _ in rows],
        "labels_differ": [group.labels_differ for _, group, _ in rows],
    }


def _as_json(directory: Path, threshold: float, images: int, groups: "Sequence[DuplicateGroup]") -> dict[str, Any]:
    return {
        "index": str(directory),
        "threshold": threshold,
        "images": images,
        "groups": [
            {
                "across_splits": group.across_splits,
                "labels_differ": group.labels_differ,
                "lowest_similarity": group.lowest,
                "images": [
                    {
                        "id": member.entry.id,
                        "path": member.entry.path,
                        "labels": member.entry.labels,
                        "split": member.entry.split,
                        "group": member.entry.group,
                        "kind": member.kind,
                        "similarity": member.similarity,
                    }
                    for member in group.members
                ],
            }
            for group in groups
        ],
    }


def _marks(group: "DuplicateGroup") -> list[str]:
    marks = {"across splits": group.across_splits, "labels differ": group.labels_differ}
    return [mark for mark, holds in marks.items() if holds]


def _print(groups: "Sequence[DuplicateGroup]") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("group", "similarity", "kind", "image", "label", "split", "", box=None)
    for column in table.columns[:2]:
        column.justify = "right"
    for number, group in enumerate(groups[:_GROUPS], start=1):
        for place, member in enumerate(group.members[:_IMAGES]):
            entry = member.entry
            table.add_row(
                "" if place else str(number),
                f"{member.similarity:.4f}",
                member.kind,
                Text(place_of(entry)),
                Text(", ".join(entry.labels)),
                entry.split,
                "" if place else ", ".join(_marks(group)),
            )
        if len(group.members) > _IMAGES:
            table.add_row("", "", "", f"and {len(group.members) - _IMAGES:,} more", "", "", "")
    print_table(table)
    if len(groups) > _GROUPS:
        say(f"{len(groups) - _GROUPS:,} more groups: --table writes all.")


def _tell(groups: "Sequence[DuplicateGroup]", images: int, threshold: float) -> None:
    if not groups:
        say(f"No two of {images:,} images have a similarity of {threshold:g} or more.")
        return
    found = sum(len(group.members) for group in groups)
    across, differ = sum(group.across_splits for group in groups), sum(group.labels_differ for group in groups)
    say(
        f"Near-identical: {found:,} of {images:,} images, in {len(groups):,} groups; {across:,} of these lie across "
        f"splits, in {differ:,} the labels differ."
    )
    largest = max(groups, key=lambda group: len(group.members))
    if len(largest.members) > max(10, _LARGE * images) and largest.lowest < threshold:
        say(
            f"One group has {len(largest.members):,} images, down to a similarity of {largest.lowest:.3f} to its "
            "first: they are linked in a chain and not all alike. Raise --threshold."
        )


def _draw(path: Path, parts: "Parts", groups: "Sequence[DuplicateGroup]") -> None:
    from fewlabel.retrieval.contact_sheet import MOST_STRIPS, draw_contact_sheet

    strips = [_strip(parts, number, group) for number, group in enumerate(groups[:MOST_STRIPS], start=1)]
    drawn = draw_contact_sheet(path, strips)
    say(f"Picture: {path}" + (f", the first {drawn} of {len(groups):,} groups" if drawn < len(groups) else ""))


def _strip(parts: "Parts", number: int, group: "DuplicateGroup") -> "Strip":
    from fewlabel.retrieval.contact_sheet import Strip, Tile

    first = group.members[0].entry
    tiles = []
    for member in group.members:
        entry = member.entry
        odd = entry.split != first.split or (bool(entry.labels and first.labels) and entry.labels != first.labels)
        about = " · ".join(filter(None, (", ".join(entry.labels), entry.split)))
        tiles.append(Tile(parts.thumbnail(entry), (f"{member.similarity:.4f} {member.kind}", entry.id, about), odd))
    title = ", ".join([f"Group {number}: {len(group.members)} images", *_marks(group)])
    return Strip(title, tiles[0], tuple(tiles[1:]))
