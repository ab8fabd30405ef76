"""What becomes of an index's rows when images are added: which are new, known, copies, replaced or moved."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, fields, replace
from itertools import count
from pathlib import Path

from fewlabel.retrieval.manifest import Entry

__all__ = ["Added", "Merged", "merge"]


@dataclass(frozen=True)
class Added:
    """How many images of a source had which fate; their sum is the readable images that it has."""

    new: int = 0
    """Images that were not in the index."""
    copies: int = 0
    """New places of images that were, or that come twice."""
    replaced: int = 0
    """Files that hold another image than before."""
    moved: int = 0
    """Images whose file was known at a place where it no longer is."""
    updated: int = 0
    """Images as before, with other labels, split or group."""
    known: int = 0
    """Images of which nothing has changed."""

    @property
    def changed(self) -> int:
        """All but the known."""
        return self.new + self.copies + self.replaced + self.moved + self.updated


@dataclass(frozen=True)
class Merged:
    """Rows after a merge."""

    entries: list[Entry]
    keys: dict[str, int]
    """The key of each content that had none before."""
    dead: list[int]
    """Keys that no row has any more."""
    counts: Added


def merge(
    entries: Sequence[Entry],
    incoming: Sequence[Entry],
    source: str,
    exists: Callable[[str], bool] = lambda path: Path(path).exists(),
) -> Merged:
    """Take the images of a source into the rows of an index.

    A file stays the same place for as long as it has the same path, an image without a file for as long as it has the
    same id and content. A place keeps its id. A new one whose id is taken gets `source`/id, or `source`-2/id and so on.

    Args:
        entries: the rows so far.
        incoming: the source's images, with the key -1; no two of one path.
        source: its name.
        exists: whether a file is there.
    """
    rows = list(entries)
    keys = {entry.content: entry.key for entry in rows}
    by_path = {entry.path: place for place, entry in enumerate(rows) if entry.path is not None}
    by_id = {entry.id: place for place, entry in enumerate(rows)}
    rows_with: dict[str, list[int]] = {}
    for place, entry in enumerate(rows):
        rows_with.setdefault(entry.content, []).append(place)
    before, fresh = set(keys.values()), count(max(keys.values(), default=-1) + 1)
    paths = {image.path for image in incoming}
    counts = dict.fromkeys((field.name for field in fields(Added)), 0)
    for image in incoming:
        row: int | None = by_path.get(image.path) if image.path is not None else _same_id(image, source, rows, by_id)
        fate = "known"
        if row is None and (row := _moved(image, rows, rows_with, paths, exists)) is not None:
            fate = "moved"
        if row is None:
            fate = "copies" if image.content in keys else "new"
        elif rows[row].content != image.content:
            fate = "replaced"
        key = keys[image.content] if image.content in keys else keys.setdefault(image.content, next(fresh))
        if row is None:
            placed = replace(image, id=_free_id(image.id, source, by_id), key=key)
            by_id[placed.id] = len(rows)
            rows.append(placed)
        else:
            placed = replace(image, id=rows[row].id, key=key)
            if fate == "known" and placed != rows[row]:
                fate = "updated"
            rows[row] = placed
        counts[fate] += 1
    used = {entry.key for entry in rows}
    return Merged(
        rows,
        {content: key for content, key in keys.items() if key not in before and key in used},
        sorted(before - used),
        Added(**counts),
    )


def _candidates(identity: str, source: str) -> Iterator[str]:
    """The ids that an image may have, the first choice first."""
    yield identity
    yield f"{source}/{identity}"
    for number in count(2):
        yield f"{source}-{number}/{identity}"


def _free_id(identity: str, source: str, by_id: Mapping[str, int]) -> str:
    return next(candidate for candidate in _candidates(identity, source) if candidate not in by_id)


def _same_id(image: Entry, source: str, rows: Sequence[Entry], by_id: Mapping[str, int]) -> int | None:
    """The row of an image without a file that came before."""
    for candidate in _candidates(image.id, source):
        row = by_id.get(candidate)
        if row is None or (rows[row].path is None and rows[row].content == image.content):
            break
    return row


def _moved(
    image: Entry,
    rows: Sequence[Entry],
    rows_with: Mapping[str, Sequence[int]],
    paths: Set[str | None],
    exists: Callable[[str], bool],
) -> int | None:
    """The row of an equal image whose file is gone."""
    if image.path is not None:
        for row in rows_with.get(image.content, ()):
            old = rows[row].path
            if old is not None and old not in paths and not exists(old):
                return row
    return None
