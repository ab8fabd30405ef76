"""The three changes of an index directory: building it, adding images, removing images."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fewlabel.backbones.encoder import Encoder
from fewlabel.console import track
from fewlabel.data.config import SourceConfig
from fewlabel.data.origin import BadImage
from fewlabel.data.scan import available_cores
from fewlabel.data.source import Source, part_of
from fewlabel.errors import UserError
from fewlabel.retrieval.config import IndexConfig
from fewlabel.retrieval.description import Description, EncoderFacts, StoredFile
from fewlabel.retrieval.directory import NewFiles, commit, discard_leftovers
from fewlabel.retrieval.embedding import Embedded, embed_source, places_of
from fewlabel.retrieval.manifest import Entry, Manifest
from fewlabel.retrieval.merge import Added, Merged, merge
from fewlabel.retrieval.parts import Parts
from fewlabel.retrieval.thumbnails import Thumbnails, thumbnails_of, write_thumbnails
from fewlabel.retrieval.vectors import VectorIndex

__all__ = ["Removed", "add_images", "build_files", "remove_images"]

_NEAR: Final = 20_000
"""Names that a mistyped one is compared with; more would take seconds."""


@dataclass(frozen=True)
class Removed:
    """What was dropped."""

    images: int
    """Places."""
    vectors: int
    """Images that now stand nowhere."""


def build_files(
    directory: Path,
    facts: EncoderFacts,
    encoder: Encoder,
    source: Source,
    config: IndexConfig,
    reading: SourceConfig,
    seed: int,
) -> list[BadImage]:
    """Fill `directory` with the first generation of an index of all images of `source`.

    Returns:
        The images that could not be decoded.

    Raises:
        UserError: the images or the factory won't do, or the disk is full.
    """
    embedded = embed_source(encoder, source, facts.side, reading)
    merged = _merged([], source, embedded)
    keys = _keys_of(embedded, merged.keys)
    vectors = VectorIndex.build(
        embedded.features,
        keys,
        factory=config.factory,
        metric=config.metric,
        recall=config.recall,
        memory=config.memory_bytes,
        seed=seed,
    )
    files = NewFiles(directory, 1)
    description = Description(
        generation=1,
        encoder=facts,
        plan=vectors.plan,
        vectors=len(vectors),
        images=len(merged.entries),
        sources=(_named(source),),
        vectors_file=files.write("vectors", vectors.write),
        manifest_file=files.write("manifest", Manifest.of(merged.entries).write),
        thumbnail_files=(files.write("thumbnails", _pictures_of(source, embedded, keys, reading)),),
    )
    commit(directory, description)
    return embedded.bad


def add_images(
    directory: Path, parts: Parts, encoder: Encoder, source: Source, reading: SourceConfig
) -> tuple[Added, list[BadImage]]:
    """Make the next generation of the index, with the images of `source`; none where nothing is new.

    The caller holds the directory, and `parts` were opened to be changed.

    Returns:
        How many images had which fate, and those that could not be decoded.

    Raises:
        UserError: an image can't be used, or the disk is full.
    """
    description, vectors = parts.description, parts.vectors
    discard_leftovers(directory, description)
    known = {entry.content for entry in parts.manifest.entries}
    unknown = {
        split: [row for row, content in enumerate(contents) if content.hex() not in known]
        for split, contents in source.contents.items()
    }
    part, embedded = source, None
    if any(unknown.values()):
        if sum(map(len, unknown.values())) < sum(map(len, source.contents.values())):
            part = part_of(source, unknown)
        embedded = embed_source(encoder, part, description.encoder.side, reading)
    merged = _merged(parts.manifest.entries, source, embedded)
    bad = [] if embedded is None else embedded.bad
    if not merged.counts.changed:
        return merged.counts, bad
    files = NewFiles(directory, description.generation + 1)
    thumbnails = _without(parts, merged.dead, files)
    if merged.dead:
        vectors.remove(np.array(merged.dead, dtype=np.int64))
    if embedded is not None:
        keys = _keys_of(embedded, merged.keys)
        vectors.add(embedded.features, keys)
        thumbnails.append(files.write("thumbnails", _pictures_of(part, embedded, keys, reading)))
    changed = merged.dead or embedded is not None
    commit(
        directory,
        replace(
            description,
            generation=files.generation,
            vectors=len(vectors),
            images=len(merged.entries),
            sources=tuple(dict.fromkeys((*description.sources, _named(source)))),
            vectors_file=files.write("vectors", vectors.write) if changed else description.vectors_file,
            manifest_file=files.write("manifest", Manifest.of(merged.entries).write),
            thumbnail_files=tuple(thumbnails),
        ),
    )
    return merged.counts, bad


def remove_images(directory: Path, parts: Parts, names: Sequence[str]) -> Removed:
    """Make the next generation of the index, without the images of these ids or paths.

    The caller holds the directory, and `parts` were opened to be changed.

    Raises:
        UserError: a name is unknown or stands for two images, or the disk is full.
    """
    description, vectors = parts.description, parts.vectors
    discard_leftovers(directory, description)
    entries = parts.manifest.entries
    gone = _found(entries, names, directory)
    left = [entry for row, entry in enumerate(entries) if row not in gone]
    dead = sorted({entry.key for entry in entries} - {entry.key for entry in left})
    files = NewFiles(directory, description.generation + 1)
    thumbnails = _without(parts, dead, files)
    if dead:
        vectors.remove(np.array(dead, dtype=np.int64))
    commit(
        directory,
        replace(
            description,
            generation=files.generation,
            vectors=len(vectors),
            images=len(left),
            vectors_file=files.write("vectors", vectors.write) if dead else description.vectors_file,
            manifest_file=files.write("manifest", Manifest.of(left).write),
            thumbnail_files=tuple(thumbnails),
        ),
    )
    return Removed(len(gone), len(dead))


def _merged(entries: Sequence[Entry], source: Source, embedded: Embedded | None) -> Merged:
    """The rows with the images of `source`, but for those that could not be decoded."""
    usable = {entry.content for entry in entries}
    if embedded is not None:
        usable |= {content.hex() for content in embedded.contents}
    return merge(entries, [place for place in places_of(source) if place.content in usable], source.name)


def _keys_of(embedded: Embedded, keys: Mapping[str, int]) -> NDArray[np.int64]:
    """Of the embedded images, ascending, as both are in the order of the source."""
    return np.array([keys[content.hex()] for content in embedded.contents], dtype=np.int64)


def _pictures_of(
    source: Source, embedded: Embedded, keys: NDArray[np.int64], reading: SourceConfig
) -> Callable[[Path], None]:
    """What writes the thumbnails of the embedded images."""

    def pictures() -> Iterator[bytes]:
        for split, places in groupby(embedded.places, key=itemgetter(0)):
            rows = [row for _, row in places]
            yield from thumbnails_of(source[split], rows, reading.workers or available_cores(), source.window)

    def write(path: Path) -> None:
        pairs = zip(keys.tolist(), pictures(), strict=True)
        write_thumbnails(path, track(pairs, "Keeping thumbnails", total=len(keys)))

    return write


def _without(parts: Parts, dead: Sequence[int], files: NewFiles) -> list[StoredFile]:
    """The files with the thumbnails of all images but the `dead`; those that hold one of these are written anew."""
    gone = set(dead)
    kept = []
    for file, thumbnails in zip(parts.description.thumbnail_files, parts.thumbnails, strict=True):
        left = [key for key in thumbnails.keys if key not in gone]
        if len(left) == len(thumbnails.keys):
            kept.append(file)
        elif left:
            kept.append(files.write("thumbnails", _copier(thumbnails, left)))
    return kept


def _copier(thumbnails: Thumbnails, keys: Sequence[int]) -> Callable[[Path], None]:
    return lambda path: write_thumbnails(path, ((key, thumbnails.get(key)) for key in keys))


def _found(entries: Sequence[Entry], names: Sequence[str], directory: Path) -> set[int]:
    """The rows that `names` stand for, ids or paths.

    Raises:
        UserError: a name is unknown, or the id of one image and the path of another.
    """
    by_id = {entry.id: row for row, entry in enumerate(entries)}
    by_path = {os.path.normpath(entry.path): row for row, entry in enumerate(entries) if entry.path is not None}
    found: set[int] = set()
    for name in names:
        path = os.path.abspath(Path(name).expanduser())  # noqa: PTH100  # resolve() would follow links
        rows = {row for row in (by_id.get(name), by_path.get(path)) if row is not None}
        if len(rows) > 1:
            raise UserError(
                f"{name} is the id of one image of the index and the path of another ({path}): give the absolute path, "
                "or run this in another folder. Nothing was removed."
            )
        if not rows:
            near = get_close_matches(name, list(by_id)[:_NEAR], n=3)
            raise UserError(
                f"{name} is neither the id nor the path of an image in the index {directory}"
                + (f"; did you mean {' or '.join(near)}?" if near else ".")
                + " Nothing was removed."
            )
        found |= rows
    return found


def _named(source: Source) -> str:
    return f"{source.name}@{source.fingerprint}"
