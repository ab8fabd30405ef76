"""Near pairs: what FAISS finds by comparing all, and no explosion where all are alike."""

import time

import faiss
import numpy as np
import pytest

from fewlabel.cleaning.near import near_pairs


def found(hashes, units, bits, threshold=0.5):
    pairs = [
        pair
        for some in near_pairs(hashes, units, bits, threshold)
        for pair in zip(some.left.tolist(), some.right.tolist(), strict=True)
    ]
    assert len(set(pairs)) == len(pairs)
    assert all(left < right for left, right in pairs)
    return set(pairs)


def by_faiss(hashes, bits):
    """All pairs compared, by an implementation of others."""
    words = hashes.view(np.uint8).reshape(-1, 8)
    index = faiss.IndexBinaryFlat(64)
    index.add(words)
    limits, _, others = index.range_search(words, bits + 1)
    return {
        (left, int(right))
        for left in range(len(hashes))
        for right in others[limits[left] : limits[left + 1]]
        if left < right
    }


def scattered(count, seed=0):
    """Random hashes, and as many again that differ from one of them in 0 to 14 bits."""
    generator = np.random.default_rng(seed)
    hashes = generator.integers(0, 2**64, count, dtype=np.uint64)
    copies = hashes[generator.integers(0, count, count)]
    for place in range(count):
        for bit in generator.choice(64, generator.integers(15), replace=False):
            copies[place] ^= np.uint64(1) << np.uint64(bit)
    return np.concatenate([hashes, copies])


@pytest.mark.parametrize("bits", [0, 1, 5, 8, 12])
def test_every_pair_within_the_bits_is_found_once(bits):
    hashes = scattered(500)
    alike = np.full((len(hashes), 4), 0.5, np.float32)
    expected = by_faiss(hashes, bits)
    assert len(expected) > 20
    assert found(hashes, alike, bits) == expected


def test_pairs_that_look_different_and_flat_pictures_are_none():
    hashes = np.full(4, 7, np.uint64)
    units = np.array([[1, 0], [0, 1], [0.8, 0.6], [0, 0]], np.float32)
    assert found(hashes, units, 8, 0.7) == {(0, 2)}
    assert found(hashes, units, 8, 0.5) == {(0, 2), (1, 2)}
    (pairs,) = near_pairs(hashes, units, 8, 0.7)
    assert pairs.similarity.tolist() == pytest.approx([0.8])


def test_no_pictures_and_a_single_one():
    assert found(np.empty(0, np.uint64), np.empty((0, 4), np.float32), 8) == set()
    assert found(np.ones(1, np.uint64), np.ones((1, 4), np.float32), 8) == set()


def test_a_crowd_of_one_hash_costs_no_square():
    hashes = np.full(20_000, 12345, np.uint64)
    alike = np.full((len(hashes), 4), 0.5, np.float32)
    start = time.perf_counter()
    pairs = found(hashes, alike, 8)
    assert len(pairs) <= 64 * len(hashes)
    # All hang together through the first, and a square would be 200 million pairs.
    assert {(0, other) for other in range(1, len(hashes))} <= pairs
    assert time.perf_counter() - start < 20
