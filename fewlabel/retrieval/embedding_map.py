"""Embeddings on a plane, to look at: which images lie together."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAPPED", "EmbeddingMap", "sample_keys"]

MAPPED: Final = 2000
"""Images that are projected; t-SNE of more takes minutes, and more dots than that hide each other."""

_COMPONENTS: Final = 50
_PERPLEXITY: Final = 30.0
_NEIGHBOURS: Final = 5
_FEWEST: Final = 10
"""Below so many images t-SNE has no neighbourhoods to keep; the two principal components are drawn."""


def sample_keys(keys: NDArray[np.int64], seed: int = 0) -> NDArray[np.int64]:
    """At most `MAPPED` of the different `keys`, drawn evenly; ascending (n,) int64."""
    different = np.unique(keys)
    if len(different) <= MAPPED:
        return different
    drawn: NDArray[np.int64] = np.sort(np.random.default_rng(seed).choice(different, MAPPED, replace=False))
    return drawn


@dataclass(frozen=True)
class EmbeddingMap:
    """A 2-D projection of some embeddings, and a place on it for any other."""

    keys: NDArray[np.int64]
    """(n,), ascending: which images were projected."""
    features: NDArray[np.float32]
    """(n, D): their embeddings."""
    points: NDArray[np.float32]
    """(n, 2) in [0, 1], with one scale for both axes."""
    method: str
    """How they were projected, in words."""

    @classmethod
    def project(cls, keys: NDArray[np.int64], features: NDArray[np.float32], seed: int = 0) -> "EmbeddingMap":
        """Project `features` (n, D) of `keys` (n,), ascending; equal input and seed give an equal map.

        They are reduced to 50 principal components, then by t-SNE with that as its start (van der Maaten and
        Hinton 2008, JMLR 9:2579; Kobak and Berens 2019, Nature Communications 10:5416, on perplexity 30 and the
        start). Neighbourhoods are kept; distances between far groups, and sizes of groups, mean nothing.

        Raises:
            ValueError: no features, or not as many as keys.
        """
        if not len(features) or len(features) != len(keys):
            raise ValueError(f"{len(keys)} keys and {len(features)} features")
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE

        count, width = features.shape
        components = min(count, width, _COMPONENTS)
        # Of equal embeddings PCA divides 0 by 0 for the share of variance, which nothing here reads.
        with np.errstate(invalid="ignore"):
            reduced = PCA(components, svd_solver="full").fit_transform(features.astype(np.float64))
        plane = np.zeros((count, 2))
        method = "principal components"
        if count < _FEWEST or components < 2 or not reduced.std(axis=0)[1] > 0:
            plane[:, : min(2, components)] = reduced[:, :2]
        else:
            perplexity = min(_PERPLEXITY, (count - 1) / 3)
            method = f"t-SNE, perplexity {perplexity:.0f}"
            plane = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1).fit_transform(reduced)
        return cls(keys, features, _into_unit_square(plane), method)

    def place(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Where `features` (Q, D), of images that need not be on the map, belong: (Q, 2) in [0, 1].

        The mean of the places of the 5 nearest mapped images, weighted by the inverse square of their distance
        (Shepard 1968, ACM National Conference 23:517), so that a mapped image falls on its own place.
        """
        asked, mapped = features.astype(np.float64), self.features.astype(np.float64)
        norms = (mapped**2).sum(axis=1)
        squared = (asked**2).sum(axis=1, keepdims=True) + norms - 2 * asked @ mapped.T
        near: NDArray[np.intp] = np.argsort(squared, axis=1, kind="stable")[:, :_NEIGHBOURS]
        # What float32 embeddings can't tell apart counts as the same image.
        floor = max(float(norms.mean()) * float(np.finfo(np.float32).eps), float(np.finfo(np.float64).tiny))
        weights: NDArray[np.float64] = 1 / np.maximum(np.take_along_axis(squared, near, axis=1), floor)
        weights /= weights.sum(axis=1, keepdims=True)
        placed: NDArray[np.float32] = (weights[:, :, None] * self.points[near]).sum(axis=1).astype(np.float32)
        return placed


def _into_unit_square(plane: NDArray[np.floating]) -> NDArray[np.float32]:
    low, high = plane.min(axis=0), plane.max(axis=0)
    extent = float((high - low).max()) or 1.0
    points: NDArray[np.float32] = ((plane - (low + high) / 2) / extent + 0.5).astype(np.float32)
    return points
