"""The index: a directory with vectors, a manifest, thumbnails and the encoder that made them; searched and changed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewlabel.backbones.encoder import Encoder
from fewlabel.data.config import SourceConfig
from fewlabel.data.origin import BadImage
from fewlabel.data.sizes import stored_side
from fewlabel.data.source import Source
from fewlabel.errors import UserError
from fewlabel.retrieval.config import IndexConfig
from fewlabel.retrieval.description import Description, EncoderFacts, locate
from fewlabel.retrieval.directory import writing
from fewlabel.retrieval.embedding import Picture, embed_pictures
from fewlabel.retrieval.encoder_copy import copy_encoder, load_copy, require_same
from fewlabel.retrieval.manifest import Entry, Filter, Manifest
from fewlabel.retrieval.merge import Added
from fewlabel.retrieval.parts import Parts, open_parts
from fewlabel.retrieval.update import Removed, add_images, build_files, remove_images
from fewlabel.retrieval.vectors import check_factory
from fewlabel.tracking.lock import LOCK_NAMES

__all__ = ["Hit", "Index"]


@dataclass(frozen=True)
class Hit:
    """A neighbour."""

    rank: int
    """From 1, the nearest."""
    similarity: float
    """The cosine, or the negative Euclidean distance: greater is nearer."""
    entry: Entry
    copies: tuple[Entry, ...]
    """Further places of the very same image."""


class Index:
    """Images that are found by their likeness; made by `build` or `open`.

    Searching is safe from several threads. Another process may change the index meanwhile: this object goes on with
    what it opened. It follows its own changes, during which nothing else may use it.
    """

    def __init__(self, directory: Path, parts: Parts, encoder: Encoder | None = None) -> None:
        """Use `open` or `build`."""
        self.directory = directory
        self.left_out: list[BadImage] = []
        """Images of the source that was built from or added last which could not be decoded."""
        self._parts = parts
        if encoder is not None:
            require_same(encoder, directory, self.description)
            self.encoder = encoder

    @classmethod
    def open(cls, path: Path | str, *, encoder: Encoder | None = None) -> Self:
        """The index in `path`, or that the run in `path` made.

        Args:
            path: a directory.
            encoder: the one that made the index, where it is loaded already; by default the copy in the index.

        Raises:
            UserError: there is no index, a file of it is missing or damaged, or `encoder` is another one.
        """
        directory = locate(path)
        return cls(directory, open_parts(directory), encoder)

    @classmethod
    def build(
        cls,
        directory: Path,
        encoder: Encoder,
        source: Source,
        *,
        config: IndexConfig | None = None,
        reading: SourceConfig | None = None,
        seed: int = 0,
    ) -> Self:
        """Make an index of all images of `source` in the new or empty `directory`.

        Args:
            directory: where; until it is complete it holds no `index.json`.
            encoder: as loaded from its directory, which is copied into the index.
            source: all of its splits.
            config: how vectors are kept.
            reading: threads and cache for the images.
            seed: of the samples that the vectors' layout is chosen by.

        Raises:
            UserError: `directory` holds something, the images or the factory won't do, or the disk is full.
        """
        config, reading = config or IndexConfig(), reading or SourceConfig()
        check_factory(config.factory, encoder.num_features, config.metric)
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        with writing(directory):
            if found := sorted(path.name for path in directory.iterdir() if path.name not in LOCK_NAMES):
                raise UserError(
                    f"{directory} isn't empty: it has {', '.join(found[:3])}{' and more' if len(found) > 3 else ''}. "
                    "Build an index in a directory that is new, or add images to the one that is there."
                )
            facts = EncoderFacts(
                encoder.hash,
                encoder.config.name,
                encoder.image_size,
                encoder.backbone.in_chans,
                stored_side(encoder.image_size, source.median_side),
                source.window,
            )
            copy_encoder(encoder, directory)
            bad = build_files(directory, facts, encoder, source, config, reading, seed)
        index = cls(directory, open_parts(directory), encoder)
        index.left_out = bad
        return index

    @property
    def description(self) -> Description:
        """What the index says of itself."""
        return self._parts.description

    @property
    def entries(self) -> list[Entry]:
        """The images by place, in the order in which they came; not to be changed."""
        return self._parts.manifest.entries

    @property
    def manifest(self) -> Manifest:
        """The images by place, for whoever asks about a few of many."""
        return self._parts.manifest

    @property
    def labels(self) -> list[str]:
        """The labels that occur, sorted."""
        return self._parts.manifest.labels

    @property
    def splits(self) -> list[str]:
        """The splits that occur."""
        return self._parts.manifest.splits

    @property
    def keys(self) -> NDArray[np.int64]:
        """Of all vectors (N,) int64."""
        return self._parts.vectors.keys

    def __len__(self) -> int:
        """Different images: vectors."""
        return len(self._parts.vectors)

    @cached_property
    def encoder(self) -> Encoder:
        """The one that made the vectors, from the index's own copy.

        Raises:
            UserError: the copy is damaged or another one.
        """
        return load_copy(self.directory, self.description)

    def embed(self, images: Picture | Sequence[Picture]) -> NDArray[np.float32]:
        """Features (N, D) float32 of `images`, by the way that the index's own images took.

        Args:
            images: paths, PIL images, arrays (h, w, C) or (h, w); or one of them.

        Raises:
            UserError: one is missing, no image or too large; the message names it.
        """
        facts = self.description.encoder
        return embed_pictures(self.encoder, _as_list(images), facts.side, facts.window)

    def search(self, images: Picture | Sequence[Picture], k: int = 10, where: Filter | None = None) -> list[list[Hit]]:
        """The nearest `k` of the index to each of `images`, as `search_features` does of their features.

        Args:
            images: as for `embed`.
            k: neighbours, all where the index has fewer.
            where: which images count.

        Raises:
            UserError: as of `embed` and `search_features`.
        """
        return self.search_features(self.embed(images), k, where)

    def search_features(
        self,
        features: NDArray[np.float32],
        k: int = 10,
        where: Filter | None = None,
        *,
        without: NDArray[np.int64] | None = None,
    ) -> list[list[Hit]]:
        """The nearest `k` of the index to each row of `features` (Q, D) float32, the most similar first.

        Args:
            features: as `embed` gives them, of any length.
            k: different images, all where there are fewer; copies come with the image that they are of.
            where: which images count; copies are listed wherever they stand.
            without: (Q,) int64, for each query a key that is left out, such as its own; -1 for none.

        Raises:
            UserError: k is below 1, the features are of another width or not finite, or nothing is of a label or
                split that `where` names.
        """
        features = np.atleast_2d(np.asarray(features, dtype=np.float32))
        if k < 1:
            raise UserError(f"k is {k}; ask for at least 1 neighbour.")
        if features.shape[1] != self.description.width or not np.isfinite(features).all():
            raise UserError(
                f"Queries have features of shape {features.shape}; the index {self.directory} takes finite ones "
                f"of width {self.description.width}."
            )
        if not len(self):
            return [[] for _ in features]
        manifest = self._parts.manifest
        passed = manifest.rows_where(where) if where is not None and where != Filter() else None
        allowed = None if passed is None else np.unique(manifest.keys[passed])
        similarities, keys = self._parts.vectors.search(features, k + (without is not None), keys=allowed)
        kept = keys >= 0 if without is None else (keys >= 0) & (keys != without[:, None])
        places = [[manifest.rows_of(key) for key in own[mask][:k]] for own, mask in zip(keys, kept, strict=True)]
        if passed is not None:
            # What passed stands for the image, so that its label and split are those asked for.
            for rows in chain.from_iterable(places):
                rows.sort(key=lambda row: not passed[row])
        entries = iter(manifest.at([row for rows in chain.from_iterable(places) for row in rows]))
        found = []
        for near, own, mask in zip(places, similarities, kept, strict=True):
            hits = []
            for rank, (rows, similarity) in enumerate(zip(near, own[mask][:k].tolist(), strict=True), start=1):
                entry, *copies = islice(entries, len(rows))
                hits.append(Hit(rank, similarity, entry, tuple(copies)))
            found.append(hits)
        return found

    def features(self, keys: Iterable[int]) -> NDArray[np.float32]:
        """The vectors (n, D) of `keys` as the index holds them: of unit length where the metric is cosine.

        Raises:
            KeyError: one is not there.
        """
        return self._parts.vectors.vectors(np.fromiter(keys, dtype=np.int64))

    def has_thumbnail(self, entry: Entry) -> bool:
        """Whether there is a picture of `entry`, as in every sound index."""
        return any(entry.key in thumbnails for thumbnails in self._parts.thumbnails)

    def thumbnail(self, entry: Entry) -> bytes:
        """A PNG or JPEG of an image of the index, its longest side at most 128 px, wherever its file is now.

        Raises:
            UserError: the index has none of it, or its file is damaged.
        """
        return self._parts.thumbnail(entry)

    def add(self, source: Source, *, reading: SourceConfig | None = None) -> Added:
        """Take in the images of `source`; only those that are new are embedded.

        Args:
            source: what it holds already stays as it is, and what stands in the index alone too.
            reading: threads and cache for the images.

        Returns:
            How many images had which fate.

        Raises:
            UserError: another process is changing the index, an image can't be used, or the disk is full.
        """
        with writing(self.directory):
            parts = open_parts(self.directory, to_change=True)
            require_same(self.encoder, self.directory, parts.description)
            added, self.left_out = add_images(self.directory, parts, self.encoder, source, reading or SourceConfig())
        self._parts = open_parts(self.directory)
        return added

    def remove(self, names: Sequence[str]) -> Removed:
        """Drop images; a vector and a thumbnail go when no place of that image is left.

        Args:
            names: ids or paths.

        Raises:
            UserError: an image is unknown, or another process is changing the index; nothing is removed then.
        """
        with writing(self.directory):
            removed = remove_images(self.directory, open_parts(self.directory, to_change=True), names)
        self._parts = open_parts(self.directory)
        return removed


def _as_list(images: Picture | Sequence[Picture]) -> Sequence[Picture]:
    return [images] if isinstance(images, Path | str | Image.Image | np.ndarray) else images
