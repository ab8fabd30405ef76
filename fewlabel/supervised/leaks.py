"""The leak gate: images, or copies of them, that stand in two splits and would flatter every score."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fewlabel.backbones.pixels import as_batch
from fewlabel.console import track
from fewlabel.data.likeness import (
    SIDE,
    WINDOW,
    Scale,
    copy_threshold,
    perceptual_hash,
    signature,
    typical_neighbour,
    window_of,
)
from fewlabel.data.store import ImageStore

__all__ = ["Leak", "find_leaks", "leaked_images"]

Kind = Literal["exact", "near", "embedding", "group"]
Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""Positions in the left and in the right store, and their similarity."""

_HASH_DISTANCE: Final = 10
"""Bits of 64 that the hashes of near copies may differ in."""

_NEIGHBOURS: Final = 4
_BATCH: Final = 64
_TILE: Final = 2**22
"""Pairs that are compared at once."""


@dataclass(frozen=True)
class Leak:
    """Two images of different splits that are not independent of each other."""

    kind: Kind
    left: tuple[str, str]
    """Split and id."""
    right: tuple[str, str]
    """Split and id, of a split that comes later."""
    similarity: float
    """Correlation of the two pictures (see `find_leaks`); 1 for equal pixels."""


def find_leaks(stores: Mapping[str, ImageStore], features: Mapping[str, Tensor] | None = None) -> list[Leak]:
    """Look for images that stand in two splits, between every two of `stores`.

    An image pair gets the first of these kinds that it fits:

    - "exact": the stored squares are equal.
    - "near": the perceptual hashes (`perceptual_hash`) differ in at most 10 of 64 bits, and the similarity is that
      of copies. Re-encoded, resized and brightened copies are such.
    - "embedding": the right image's features are among the 4 nearest (cosine) to the left's, nearer than the typical
      nearest neighbour within the left split, and the similarity is that of copies for the best of shifts by up
      to 2 in 32 pixels each way, mirrored or not.
    - "group": both belong to one group, such as a patient.

    Similarity is the correlation of the 63 lowest frequencies of the pictures, in grey and 32 x 32 pixels without the
    border of 2, each frequency standardised over all images given: what chest X-rays have in common does not make
    two of them similar. Contrast and brightness don't count, and a picture of one grey is similar to none. Copies
    have 0.925 to 0.97, depending on how similar an image of the largest split typically is to the nearest other one.

    The list stays linear in the number of images: of each kind, it has the most similar pair of each left and of each
    right image (where keys decide, the first one). So every image with a copy, or a relative in its group, is there.

    Args:
        stores: the splits by name, in the order train, val, test.
        features: (N, D) float for each split, in the order of its store; None for no search by embedding.

    Returns:
        By splits, then kind, the most similar first; empty where there is no leak.
    """
    sides = {split: _Side.of(store, split) for split, store in stores.items()}
    scale = Scale.of(torch.cat([side.signatures for side in sides.values()]))
    largest = max(sides.values(), key=lambda side: len(side.store))
    threshold = copy_threshold(scale.units(largest.signatures))
    leaks = []
    for left, right in combinations(stores, 2):
        pair = _SplitPair(sides[left], sides[right], scale, threshold)
        first, second, _ = pair.equal(sides[left].digests, sides[right].digests)
        kinds: dict[Kind, Pairs] = {"exact": (first, second, np.ones(len(first), np.float32)), "near": pair.near()}
        if features is not None:
            kinds["embedding"] = pair.neighbours(features[left], features[right])
        left_groups, right_groups = stores[left].groups, stores[right].groups
        if left_groups is not None and right_groups is not None:
            kinds["group"] = pair.equal(left_groups, right_groups)
        seen: set[tuple[int, int]] = set()
        for kind, found in kinds.items():
            listed = zip(*(part.tolist() for part in found), strict=True)
            for one, other, similarity in sorted(listed, key=lambda found: (-found[2], *found)):
                if (one, other) not in seen:
                    seen.add((one, other))
                    leaks.append(
                        Leak(kind, (left, stores[left].ids[one]), (right, stores[right].ids[other]), similarity)
                    )
    return leaks


def leaked_images(leaks: Iterable[Leak], split: str) -> set[str]:
    """Ids of the images of `split` that stand in another split too."""
    return {image for leak in leaks for side, image in (leak.left, leak.right) if side == split}


@dataclass(frozen=True)
class _Side:
    """What is kept in memory of the images of one split."""

    store: ImageStore
    digests: list[bytes]
    hashes: npt.NDArray[np.uint64]
    signatures: Tensor

    @classmethod
    def of(cls, store: ImageStore, split: str) -> "_Side":
        digests: list[bytes] = []
        hashes, signatures = [], []
        batches = torch.split(torch.arange(len(store)), _BATCH)
        for indices in track(batches, f"Looking for copies in {split}", total=len(batches)):
            squares = store.batch(indices).pixels
            for square in squares.permute(0, 2, 3, 1).numpy():
                digests.append(hashlib.blake2b(square.tobytes(), digest_size=16).digest())
            pictures = _pictures(squares)
            hashes.append(perceptual_hash(pictures))
            signatures.append(signature(window_of(pictures)))
        return cls(store, digests, np.concatenate(hashes), torch.cat(signatures))


class _SplitPair:
    """Two splits under comparison."""

    def __init__(self, left: _Side, right: _Side, scale: Scale, threshold: float) -> None:
        self._left, self._right, self._scale, self._threshold = left, right, scale, threshold
        self._left_units, self._right_units = scale.units(left.signatures), scale.units(right.signatures)

    def _similarity(self, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        parts = [
            (self._left_units[first] * self._right_units[second]).sum(dim=1)
            for first, second in zip(
                *(torch.split(torch.from_numpy(side), 2**16) for side in (left, right)), strict=True
            )
        ]
        return torch.cat(parts).numpy()

    def equal(self, left: Sequence[Any], right: Sequence[Any]) -> Pairs:
        """Images of equal keys; of many with one key, each with the first of the other side."""
        firsts = [{key: place for place, key in reversed(list(enumerate(keys)))} for keys in (left, right)]
        pairs = {(firsts[0][key], place) for place, key in enumerate(right) if key in firsts[0]}
        pairs |= {(place, firsts[1][key]) for place, key in enumerate(left) if key in firsts[1]}
        places = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
        return places[:, 0], places[:, 1], self._similarity(places[:, 0], places[:, 1])

    def near(self) -> Pairs:
        """Pairs of similar hashes, confirmed."""
        return _closest(self._near_in_tiles())

    def _near_in_tiles(self) -> Iterator[Pairs]:
        hashes = self._right.hashes
        rows = max(1, _TILE // len(hashes))
        for start in range(0, len(self._left.hashes), rows):
            tile = self._left.hashes[start : start + rows, None] ^ hashes
            left, right = np.nonzero(np.bitwise_count(tile) <= _HASH_DISTANCE)
            yield self._confirmed(left + start, right, self._similarity(left + start, right))

    def neighbours(self, left: Tensor, right: Tensor) -> Pairs:
        """Pairs of near features, confirmed."""
        import faiss

        bank, asked = (torch.nn.functional.normalize(side.float(), dim=1) for side in (left, right))
        index = faiss.IndexFlatIP(bank.shape[1])
        index.add(bank.numpy())
        closeness, neighbours = index.search(asked.numpy(), min(_NEIGHBOURS, len(bank)))
        places, ranks = np.nonzero(closeness >= typical_neighbour(bank))
        return _closest(self._aligned(neighbours[places, ranks], places))

    def _aligned(self, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> Iterator[Pairs]:
        """Pairs that are similar in the best of the alignments."""
        for start in range(0, len(left), _BATCH):
            first, second = left[start : start + _BATCH], right[start : start + _BATCH]
            pictures = _pictures(self._left.store.batch(torch.from_numpy(first)).pixels)
            both = torch.stack([pictures, pictures.flip(2)], dim=1)
            windows = both.unfold(2, WINDOW, 1).unfold(3, WINDOW, 1)
            signatures = self._scale.units(signature(windows)).flatten(1, 3)
            similarity = torch.einsum("nwf,nf->nw", signatures, self._right_units[second]).amax(dim=1)
            yield self._confirmed(first, second, similarity.numpy())

    def _confirmed(
        self, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], similarity: npt.NDArray[np.float32]
    ) -> Pairs:
        kept = similarity >= self._threshold
        return left[kept], right[kept], similarity[kept]


def _pictures(squares: Tensor) -> Tensor:
    """Squares (N, C, S, S) as (N, 32, 32) float32, grey in [0, 1]."""
    return as_batch(squares, SIDE, 1, torch.device("cpu"))[:, 0]


def _closest(parts: Iterator[Pairs]) -> Pairs:
    """Of all pairs those that are the most similar one of their left or of their right image."""
    pairs: Pairs = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    for part in parts:
        left, right = (np.concatenate([pairs[side], part[side]]) for side in (0, 1))
        similarity = np.concatenate([pairs[2], part[2]])
        order = np.lexsort((right, left, -similarity))
        left, right, similarity = left[order], right[order], similarity[order]
        kept = np.union1d(np.unique(left, return_index=True)[1], np.unique(right, return_index=True)[1])
        pairs = left[kept], right[kept], similarity[kept]
    return pairs
