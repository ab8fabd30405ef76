"""How the search for near duplicates grows with the images, on generated pictures, beside comparing all pairs."""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import faiss
import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray

from benchmarks.rows import Row
from fewlabel.cleaning.config import ThresholdsConfig
from fewlabel.cleaning.near import near_pairs
from fewlabel.data.likeness import SIDE, Scale, copy_threshold, perceptual_hash, signature, window_of

__all__ = ["run"]

COUNTS = (10_000, 30_000, 100_000)
COPIED = 0.05
"""Share of the pictures that are near copies of others."""
NOISE = 0.02
"""Standard deviation of what tells a copy from its original, in grey levels from 0 to 1."""
MOST_GROWTH = 1.3
"""Power of the number of images that the time may grow with; 1 is linear, all pairs are 2."""
_BATCH = 2000
_SEED = 0


class _Pictures(NamedTuple):
    hashes: NDArray[np.uint64]
    units: NDArray[np.float32]
    threshold: float
    originals: NDArray[np.int64]
    """Of the first pictures, which are the copies' originals, in the order of the copies, the last pictures."""


def run(counts: Sequence[int] = COUNTS) -> list[Row]:
    """Seconds at each number of images, and the power that they grow with from the first to the last."""
    bits = ThresholdsConfig().hash_bits
    rows, taken = [], []
    for count in counts:
        pictures = _generate(count)
        started = time.perf_counter()
        found = list(near_pairs(pictures.hashes, pictures.units, bits, pictures.threshold))
        seconds = time.perf_counter() - started
        taken.append(seconds)
        pairs = {pair for part in found for pair in zip(part.left.tolist(), part.right.tolist(), strict=True)}
        started = time.perf_counter()
        exact = _all_pairs(pictures, bits)
        every = time.perf_counter() - started
        copies = count - len(pictures.originals)
        planted = {(original, copies + place) for place, original in enumerate(pictures.originals.tolist())}
        rows.append(
            Row(
                name=f"near duplicates among {count:,} generated pictures, beside comparing all pairs of hashes",
                ours=seconds,
                peer=every,
                ratio=every / seconds,
                unit="s",
                target="the same pairs",
                met=pairs == exact,
                note=f"{len(pairs):,} pairs, {len(exact):,} by comparing all; {len(planted & pairs):,} of "
                f"{len(planted):,} planted copies, the others differ in more than {bits} bits of 64",
            )
        )
    growth = math.log(taken[-1] / taken[0]) / math.log(counts[-1] / counts[0])
    return [
        *rows,
        Row(
            name=f"power of the number of pictures that the time grows with, {counts[0]:,} to {counts[-1]:,}",
            ours=growth,
            peer=2.0,
            ratio=2.0 / growth,
            unit="",
            target=f"at most {MOST_GROWTH:g}",
            met=growth <= MOST_GROWTH,
            note="1 is linear; the peer is all pairs by count",
        ),
    ]


def _generate(count: int) -> _Pictures:
    """Pictures whose frequencies fall off as those of photographs do, the last of them near copies of some others."""
    generator = np.random.default_rng(_SEED)
    copies = round(COPIED * count)
    frequency = np.hypot(*np.meshgrid(np.arange(SIDE), np.arange(SIDE)))
    amplitude = (1 / np.maximum(frequency, 1) ** 1.5).astype(np.float32)
    originals = np.sort(generator.choice(count - copies, copies, replace=False))
    kept, hashes, signatures = [], [], []

    def look(batch: NDArray[np.float32]) -> None:
        pictures = torch.from_numpy(batch)
        hashes.append(perceptual_hash(pictures))
        signatures.append(signature(window_of(pictures)))

    for start in range(0, count - copies, _BATCH):
        size = min(_BATCH, count - copies - start)
        spectra = generator.standard_normal((size, SIDE, SIDE), dtype=np.float32) * amplitude
        batch = scipy.fft.idctn(spectra, axes=(1, 2), norm="ortho")
        batch = (0.5 + 0.15 * batch / batch.std(axis=(1, 2), keepdims=True)).clip(0, 1)
        look(batch)
        kept.append(batch[originals[(originals >= start) & (originals < start + size)] - start])
    for batch in kept:
        noise = NOISE * generator.standard_normal(batch.shape, dtype=np.float32)
        look((batch + noise).clip(0, 1))
    together = torch.cat(signatures)
    units = Scale.of(together).units(together)
    return _Pictures(np.concatenate(hashes), units.numpy(), copy_threshold(units), originals)


def _all_pairs(pictures: _Pictures, bits: int) -> set[tuple[int, int]]:
    words = pictures.hashes.view(np.uint8).reshape(-1, 8)
    index = faiss.IndexBinaryFlat(64)
    index.add(words)
    pairs = set()
    for start in range(0, len(words), _BATCH):
        limits, _, found = index.range_search(words[start : start + _BATCH], bits + 1)
        right = start + np.repeat(np.arange(len(limits) - 1), np.diff(limits.astype(np.int64)))
        earlier = found < right
        left, right = found[earlier], right[earlier]
        similar = np.einsum("nd,nd->n", pictures.units[left], pictures.units[right]) >= pictures.threshold
        pairs |= set(zip(left[similar].tolist(), right[similar].tolist(), strict=True))
    return pairs
