"""Vectors of clustered structure, as an encoder makes of photos: many uneven clusters, each of few dimensions.

A mixture in a latent space of 128 dimensions, of clusters whose sizes are log-normal, each flat but for 24 directions
of falling variance, mapped into the full width, with noise in every component, and brought to unit length.
"""

from pathlib import Path

import numpy as np

__all__ = ["write_clustered"]

WIDTH = 512
CLUSTERS = 4000
LATENT = 128
DIRECTIONS = 24
SPREAD = 1.5
"""Standard deviation along a cluster's widest direction; that of the centres is 1."""
NOISE = 0.045
"""Standard deviation of each component's noise; that of a component itself is about 1.2."""
BLOCK = 65536


def write_clustered(path: Path, count: int, seed: int, *, part: int) -> None:
    """Write `count` unit vectors (count, 512) float32 as .npy.

    Vectors of one `seed` are of one mixture, those of another `part` are others.
    """
    mixture = np.random.default_rng(seed)
    mapping = mixture.standard_normal((LATENT, WIDTH), dtype=np.float32) / np.sqrt(np.float32(LATENT))
    shares = mixture.lognormal(size=CLUSTERS)
    centres = mixture.standard_normal((CLUSTERS, LATENT), dtype=np.float32)
    deviations = np.zeros(LATENT, np.float32)
    deviations[:DIRECTIONS] = SPREAD / np.sqrt(1 + np.arange(DIRECTIONS))
    scales = mixture.permuted(np.tile(deviations, (CLUSTERS, 1)), axis=1)

    generator = np.random.default_rng([seed, part])
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (count, WIDTH))
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        cluster = generator.choice(CLUSTERS, size, p=shares / shares.sum())
        latent = centres[cluster] + scales[cluster] * generator.standard_normal((size, LATENT), dtype=np.float32)
        block = latent @ mapping + NOISE * generator.standard_normal((size, WIDTH), dtype=np.float32)
        vectors[start : start + size] = block / np.linalg.norm(block, axis=1, keepdims=True)
    vectors.flush()
