"""Whether an index is still what it was: its files, its counts, its images, its features and its neighbours."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from fewlabel.console import track
from fewlabel.data.frames import path_digest
from fewlabel.data.parallel import ordered_map
from fewlabel.data.scan import available_cores
from fewlabel.errors import UserError
from fewlabel.retrieval.description import locate, read_description
from fewlabel.retrieval.index import Index
from fewlabel.retrieval.manifest import Entry
from fewlabel.retrieval.parts import damage_of, open_parts

__all__ = ["Check", "Problem", "check_index"]

_NEIGHBOURS: Final = 10
_BLOCK: Final = 65536
"""Vectors that are compared at once."""

_TOLERANCE: Final = 0.01
"""How far the share of true neighbours may lie below what was measured, beside three standard errors of the two."""

_TIE: Final = 1e-5
"""Distances that differ by less than this share of the query's squared length are equal: sums have an order."""


@dataclass(frozen=True)
class Problem:
    """Something that is not as it was."""

    kind: Literal["damaged", "moved", "changed"]
    """Damage of the index itself; or image files that are gone, or hold other images: then it still answers."""
    what: str
    """In a sentence."""
    images: tuple[str, ...] = ()
    """Paths or ids of those concerned."""


@dataclass(frozen=True)
class Check:
    """What was looked at, and what was found."""

    problems: list[Problem] = field(default_factory=list)
    files: int = 0
    """Of the index, read in full."""
    images: int = 0
    """Image files, read in full."""
    embedded: int = 0
    """Images embedded anew and compared with their vectors."""
    recall: float | None = None
    """Share of the true 10 nearest that a sample of searches found; None where there are too few images."""

    @property
    def sound(self) -> bool:
        """Whether the index itself is."""
        return all(problem.kind != "damaged" for problem in self.problems)


def check_index(path: Path | str, *, sample: int = 100, seed: int = 0) -> Check:
    """Look for everything in an index that is not as it was written; nothing is changed.

    All files of the index and all image files outside it are read and compared with their hashes; of a sample, the
    images are embedded anew and compared with their vectors, and the neighbours compared with those of exact search.

    Args:
        path: the index directory, or the run that made it.
        sample: images that are embedded, and queries.
        seed: of the draw.

    Raises:
        UserError: there is no index.
    """
    directory = locate(path)
    description = read_description(directory)
    broken = []
    for file in description.files:
        try:
            damage = damage_of(directory, file, whole=True)
        except OSError as error:
            damage = f"{directory / file.name} can't be read: {error.strerror}."
        if damage:
            broken.append(Problem("damaged", damage))
    read = len(description.files)
    try:
        index = Index(directory, open_parts(directory))
        index.encoder  # noqa: B018  # loading it compares its hash
    except UserError as error:
        broken.append(Problem("damaged", str(error)))
    if broken:
        return Check(broken, files=read)
    return _Checker(index, sample, seed).run(read)


class _Checker:
    """The checks of an index whose files are whole."""

    def __init__(self, index: Index, sample: int, seed: int) -> None:
        self._index, self._sample = index, sample
        self._generator = np.random.default_rng(seed)

    def run(self, files: int) -> Check:
        if torn := list(self._structure()):
            return Check(torn, files)
        intact, problems = self._images()
        embedded, wrong = self._embedded(intact)
        recall, missed = self._neighbours()
        count = sum(entry.path is not None for entry in self._index.entries)
        return Check([*wrong, *missed, *problems], files, count, embedded, recall)

    def _structure(self) -> Iterator[Problem]:
        """Whether rows, vectors and thumbnails are of the same images."""
        entries = self._index.entries
        rows = {(entry.content, entry.key) for entry in entries}
        keys = {key for _, key in rows}
        if not len(rows) == len(keys) == len({content for content, _ in rows}):
            yield Problem("damaged", "The manifest has images that share a key, or copies with different keys.")
        if keys != set(self._index.keys.tolist()):
            yield Problem("damaged", "The manifest and the vectors are not of the same images.")
        if bare := sorted(entry.id for entry in entries if not self._index.has_thumbnail(entry)):
            yield Problem("damaged", f"{len(bare)} images have no thumbnail.", tuple(bare))

    def _images(self) -> tuple[list[Entry], list[Problem]]:
        """The images whose files are as they were, and which are gone or changed."""
        placed = [entry for entry in self._index.entries if entry.path is not None]
        intact: list[Entry] = []
        moved: list[str] = []
        changed: list[str] = []
        contents = ordered_map(_content_of, placed, available_cores())
        for entry, content in zip(placed, track(contents, "Reading images", total=len(placed)), strict=True):
            assert entry.path is not None
            if content == entry.content:
                intact.append(entry)
            else:
                (moved if content is None else changed).append(entry.path)
        problems = []
        if moved:
            problems.append(
                Problem(
                    "moved",
                    f"{len(moved)} of {len(placed)} image files are not where they were, or can't be read. Searching "
                    "goes on with their thumbnails; `fewlabel index add` of the folder where they are now finds them.",
                    tuple(moved),
                )
            )
        if changed:
            problems.append(
                Problem(
                    "changed",
                    f"{len(changed)} of {len(placed)} image files hold something else than when they were added. "
                    "`fewlabel index add` of their folder takes them in anew.",
                    tuple(changed),
                )
            )
        return intact, problems

    def _embedded(self, intact: Sequence[Entry]) -> tuple[int, list[Problem]]:
        """Whether the encoder gives a sample of images the vectors that the index has of them."""
        rows = self._generator.permutation(len(intact))[: self._sample]
        entries = [intact[row] for row in rows]
        if not entries:
            return 0, []
        fresh = _unit(self._index.embed([Path(entry.path or "") for entry in entries]))
        similar = fresh @ _unit(self._index.features([entry.key for entry in entries])).T
        own = np.diag(similar)
        # Codes of a compressed index are near their vectors only: nearer by half than strangers are on average.
        strangers = (similar.sum() - own.sum()) / max(1, similar.size - len(own)) if len(own) > 1 else 0.0
        limit = min(0.999, (1 + strangers) / 2)
        wrong = tuple(entry.id for entry, likeness in zip(entries, own, strict=True) if likeness < limit)
        if not wrong:
            return len(entries), []
        what = f"{len(wrong)} of {len(entries)} images embedded anew are not like their vectors: build the index again."
        return len(entries), [Problem("damaged", what, wrong)]

    def _neighbours(self) -> tuple[float | None, list[Problem]]:
        """Share of the true nearest neighbours that a sample of searches finds."""
        keys = self._index.keys
        count = min(_NEIGHBOURS, len(keys) - 1)
        if count < 1:
            return None, []
        asked = np.sort(self._generator.permutation(keys)[: self._sample])
        queries = self._index.features(asked)
        if self._index.description.plan.metric == "cosine":
            # As a search does it; the vectors of a compressed index are not quite of unit length.
            queries = _unit(queries)
        farthest = self._exact(queries, asked, count)
        shares = np.empty(len(asked))
        found = self._index.search_features(queries, count, without=asked)
        for place, (query, limit, own) in enumerate(zip(queries, farthest, found, strict=True)):
            vectors = self._index.features([hit.entry.key for hit in own])
            shares[place] = (_nearness(query[None], vectors)[0] >= limit - _TIE * (query @ query)).sum() / count
        recall, measured = float(shares.mean()), self._index.description.plan.recall
        error = shares.std() * np.sqrt(1 / len(shares) + (1 / measured.queries if measured.queries else 0))
        if recall >= measured.measured - _TOLERANCE - 3 * error:
            return recall, []
        what = (
            f"{len(asked)} searches found {recall:.3f} of the true {count} nearest images, where "
            f"{measured.measured:.3f} were measured when the index was built: build it again."
        )
        return recall, [Problem("damaged", what)]

    def _exact(self, queries: NDArray[np.float32], own: NDArray[np.int64], count: int) -> NDArray[np.float32]:
        """The nearness (Q,) of the `count`-th nearest vector to each query but its own."""
        best = np.full((len(queries), count), -np.inf, dtype=np.float32)
        keys = self._index.keys
        for start in range(0, len(keys), _BLOCK):
            block = keys[start : start + _BLOCK]
            near = _nearness(queries, self._index.features(block))
            near[own[:, None] == block] = -np.inf
            best = np.partition(np.concatenate([best, near], axis=1), -count, axis=1)[:, -count:]
        farthest: NDArray[np.float32] = best.min(axis=1)
        return farthest


def _nearness(queries: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The negative squared distances (Q, N); of unit vectors they are in the order of the cosines."""
    squares = (queries**2).sum(axis=1)[:, None] + (vectors**2).sum(axis=1)
    nearness: NDArray[np.float32] = 2 * queries @ vectors.T - squares
    return nearness


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = rows / np.maximum(
        np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny
    )
    return unit


def _content_of(entry: Entry) -> str | None:
    """The hash of an image file as it is now; None where it can't be read."""
    assert entry.path is not None
    try:
        return path_digest(entry.path).hex()
    except OSError:
        return None
