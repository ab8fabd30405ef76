"""The files of one generation of an index, opened together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fewlabel.errors import UserError
from fewlabel.retrieval.description import Description, StoredFile, checksum, read_description
from fewlabel.retrieval.manifest import Entry, Manifest
from fewlabel.retrieval.thumbnails import Thumbnails
from fewlabel.retrieval.vectors import VectorIndex

__all__ = ["Parts", "damage_of", "open_parts"]

_HASHED: Final = 64 * 2**20
"""Larger files are checked against their checksum only by `fewlabel index check` and before a change: to read all of
them takes longer than to search them."""


@dataclass(frozen=True)
class Parts:
    """What belongs together."""

    description: Description
    manifest: Manifest
    vectors: VectorIndex
    thumbnails: list[Thumbnails]

    def thumbnail(self, entry: Entry) -> bytes:
        """As of `Index.thumbnail`.

        Raises:
            UserError: there is none of it, or its file is damaged.
        """
        for thumbnails in self.thumbnails:
            if entry.key in thumbnails:
                return thumbnails.get(entry.key)
        raise UserError(f"The index has no thumbnail of {entry.id}: build it again.")


def open_parts(directory: Path, *, to_change: bool = False) -> Parts:
    """The parts of the index in `directory`, all of one generation.

    Args:
        directory: of the index.
        to_change: read the vectors into memory, and check the files in full.

    Raises:
        UserError: a file is missing or damaged, or the parts don't fit each other.
    """
    while True:
        description = read_description(directory)
        try:
            return _opened(directory, description, to_change)
        except (UserError, FileNotFoundError) as error:
            # A writer may have put the next generation in the place of this one between two steps.
            if read_description(directory).generation != description.generation:
                continue
            if isinstance(error, FileNotFoundError):
                raise UserError(
                    f"The index {directory} is incomplete: {error.filename} is missing. Copy the whole directory "
                    "again, or build it anew."
                ) from None
            raise


def _opened(directory: Path, description: Description, to_change: bool) -> Parts:
    for file in (description.vectors_file, description.manifest_file):
        whole = to_change or file.size <= _HASHED
        if damage := damage_of(directory, file, whole=whole):
            raise UserError(f"{damage} Copy the whole index again, or build it anew.")
    parts = Parts(
        description,
        Manifest.read(directory / description.manifest_file.name),
        VectorIndex.read(directory / description.vectors_file.name, description.plan, mapped=not to_change),
        [Thumbnails(directory / file.name) for file in description.thumbnail_files],
    )
    found = (len(parts.manifest), len(parts.vectors), parts.vectors.width)
    expected = (description.images, description.vectors, description.width)
    if found != expected:
        raise UserError(
            f"The parts of the index {directory} don't fit each other: {found[0]} images, {found[1]} vectors of width "
            f"{found[2]}, expected {expected[0]}, {expected[1]} and {expected[2]}. Build it again."
        )
    return parts


def damage_of(directory: Path, file: StoredFile, *, whole: bool) -> str | None:
    """What is wrong with a file, in a sentence; None where it is as it was written.

    Args:
        directory: of the index.
        file: as the index describes it.
        whole: read it and compare the checksum, too.

    Raises:
        FileNotFoundError: it is missing.
    """
    path = directory / file.name
    size = path.stat().st_size
    if size != file.size:
        return f"{path} is damaged: it has {size:,} bytes and not {file.size:,}."
    if whole and checksum(path) != file.blake2b:
        return f"{path} is damaged: its content is not what was written."
    return None
