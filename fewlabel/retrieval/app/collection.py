"""The index as the page sees it: opened anew when it has changed on disk, and asked by many at once."""

import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fewlabel.data.decode import MAX_PIXELS, DecodeError, decode
from fewlabel.data.frames import path_digest
from fewlabel.data.resize import resize
from fewlabel.data.scan import read_cell
from fewlabel.errors import UserError
from fewlabel.retrieval.description import INDEX, EncoderFacts, locate
from fewlabel.retrieval.embedding_map import EmbeddingMap, sample_keys
from fewlabel.retrieval.index import Hit, Index
from fewlabel.retrieval.manifest import Entry, Filter
from fewlabel.retrieval.thumbnails import thumbnail_of

__all__ = ["Collection", "Query", "View"]

PICTURE_SIDE: Final = 512
"""Longest side, in pixels, of a query's picture on the page."""


@dataclass(frozen=True)
class Query:
    """An image that is asked about."""

    name: str
    features: NDArray[np.float32]
    """(1, D), as the index would hold them."""
    key: int | None = None
    """Its key, where it is an image of the index."""
    picture: bytes = b""
    """PNG or JPEG, where it isn't."""


class View:
    """One state of the index; the rows and vectors of one view belong together.

    Args:
        index: as it was opened.
        stamp: differs between states.
    """

    def __init__(self, index: Index, stamp: str) -> None:
        self.index, self.stamp = index, stamp
        self._starting = threading.Lock()
        self._map: Future[EmbeddingMap] | None = None

    @property
    def _facts(self) -> EncoderFacts:
        return self.index.description.encoder

    def map(self) -> "Future[EmbeddingMap]":
        """The projection of the embeddings, begun in the background when it is first asked for.

        Its result raises:
            UserError: the index is empty.
        """
        with self._starting:
            if self._map is None:
                self._map = Future()
                # A daemon, so that the page can be stopped meanwhile; an executor would be waited for.
                threading.Thread(target=self._project, args=(self._map,), daemon=True).start()
            return self._map

    def _project(self, answer: "Future[EmbeddingMap]") -> None:
        try:
            keys = sample_keys(self.index.manifest.keys)
            if not len(keys):
                raise UserError("The index is empty: there is nothing to map.")
            answer.set_result(EmbeddingMap.project(keys, self.index.features(keys)))
        except BaseException as error:
            answer.set_exception(error)

    def entries_of(self, key: int) -> list[Entry]:
        """Where the images of `key` stand; none where the index doesn't have it (any more)."""
        return self.index.manifest.at(self.index.manifest.rows_of(key))

    def picture(self, key: int) -> bytes | None:
        """The image of `key` as a PNG or JPEG of at most 512 pixels a side; None where the index doesn't have it.

        It is read from where the manifest says, if the very same image still stands there; else it is the thumbnail.
        """
        entries = self.entries_of(key)
        for entry in entries:
            try:
                if path_digest(entry.path or "").hex() == entry.content:
                    cell = {"bytes": None, "path": entry.path}
                    return thumbnail_of(read_cell(cell, PICTURE_SIDE, self._facts.window), PICTURE_SIDE)
            except (OSError, DecodeError):
                continue
        return self.index.thumbnail(entries[0]) if entries else None

    def chosen(self, key: int) -> Query:
        """An image of the index as a query.

        Raises:
            UserError: the index doesn't have it.
        """
        entries = self.entries_of(key)
        if not entries:
            raise UserError("That image is no longer in the index: choose another.")
        return Query(entries[0].path or entries[0].id, self.index.features([key]), key)

    def uploaded(self, name: str, encoded: bytes) -> Query:
        """An image from elsewhere as a query, embedded by the index's own encoder.

        Raises:
            UserError: it can't be decoded, or not be embedded.
        """
        side, window = self._facts.side, self._facts.window
        try:
            # By the way that the index's own images took, so that one of them comes back as exactly itself.
            square = resize(decode(encoded, side, window=window), side, side)
            picture = thumbnail_of(decode(encoded, PICTURE_SIDE, window=window), PICTURE_SIDE)
        except DecodeError as error:
            raise UserError(
                f"{name} can't be used: {error}. Give a JPEG, PNG, TIFF, BMP, WebP, GIF, DICOM or NIfTI of at most "
                f"{MAX_PIXELS // 10**6} megapixels."
            ) from error
        features = self.index.embed([square])
        if self.index.description.plan.metric == "cosine":
            features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return Query(name, features, picture=picture)

    def neighbours(self, query: Query, k: int, where: Filter) -> list[Hit]:
        """The `k` images most similar to `query`, which is itself left out where it is of the index.

        Raises:
            UserError: the index is empty, or nothing passes the filter.
        """
        own = np.array([-1 if query.key is None else query.key])
        return self.index.search_features(query.features, k, where, without=own)[0]

    def sample(self, count: int, seed: int) -> list[Entry]:
        """`count` images of the index, drawn evenly."""
        rows = np.random.default_rng(seed).permutation(len(self.index.manifest))[:count]
        return self.index.manifest.at(rows.tolist())

    def named(self, words: str, count: int) -> list[Entry]:
        """The first `count` images whose id, path or label holds `words`, in capitals or not."""
        return self.index.manifest.at(self.index.manifest.rows_named(words)[:count].tolist())


class Collection:
    """An index directory that may change while it is looked at.

    Raises:
        UserError: it is no index, or damaged.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = locate(directory)
        self._opening = threading.Lock()
        # Looked at first: a change that comes while the index is opened is then seen later.
        stamp = self._stamp()
        self._view = View(Index.open(self._directory), stamp)
        # Loaded now, and not when the first visitor waits for it.
        self._encoder = self._view.index.encoder

    def view(self) -> View:
        """The index as it is now.

        Raises:
            UserError: it is gone, damaged, or was made anew with another encoder.
        """
        with self._opening:
            stamp = self._stamp()
            if stamp != self._view.stamp:
                self._view = View(Index.open(self._directory, encoder=self._encoder), stamp)
            return self._view

    def _stamp(self) -> str:
        try:
            status = (self._directory / INDEX).stat()
        except OSError as error:
            raise UserError(f"The index in {self._directory} is gone ({error.strerror}): start again.") from error
        return f"{status.st_ino:x}-{status.st_mtime_ns:x}"
