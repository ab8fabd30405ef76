"""All pairs of similar pictures, in a time that grows with the pictures and not with their pairs."""

from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewlabel.console import track

__all__ = ["Pairs", "near_pairs"]

Places = NDArray[np.int64]
Hashes = NDArray[np.uint64]

_BITS: Final = 64
_AGREEING: Final = 2
_HEADS: Final = 64
_PAIRS: Final = 2**17
"""Compared at once."""


class Pairs(NamedTuple):
    """Pairs of pictures."""

    left: Places
    """(P,), each smaller than the one of `right`."""
    right: Places
    """(P,)."""
    similarity: NDArray[np.float32]
    """(P,)."""


class _Buckets(NamedTuple):
    """Pictures by their hash."""

    hashes: Hashes
    """(U,), each once."""
    members: Places
    """Pictures, those of one bucket after those of another, each in their order."""
    starts: Places
    """(U,) where the members of each bucket start."""
    ends: Places
    """(U,)."""
    heads: Places
    """(U,) where the first 64 of them end."""


def near_pairs(hashes: Hashes, units: NDArray[np.float32], bits: int, threshold: float) -> Iterator[Pairs]:
    """Yield the pairs whose hashes differ in at most `bits` bits and whose inner product reaches `threshold`.

    Each pair comes once, in no order. Hashes are cut into `bits` + 2 words: two that differ in at most `bits` bits
    agree in 2 words at least (Manku, Jain and Das Sarma 2007, "Detecting near-duplicates for web crawling", section
    3). For each 2 words a FAISS index compares the hashes that agree in them, and no others.

    Nothing blows up where very many are equal: of the pictures of one hash, as scans of one form may have, the first 64
    are compared with all others.

    Args:
        hashes: (N,).
        units: (N, D) float32, of length 1, or 0 for a picture that is similar to none.
        bits: 0 to 30; each one more takes longer.
        threshold: above 0.
    """
    if not len(hashes):
        return
    buckets = _buckets(hashes)
    alone = np.arange(len(buckets.hashes))
    crowded = alone[buckets.ends - buckets.starts > 1]
    yield from _confirmed(crowded, crowded, buckets, units, threshold)
    words = _words(bits + _AGREEING)
    choices = list(combinations(range(len(words)), _AGREEING))
    for choice in track(choices, "Searching near duplicates", total=len(choices)):
        left, right = _agreeing(buckets.hashes, words, choice, bits)
        yield from _confirmed(left, right, buckets, units, threshold)


def _buckets(hashes: Hashes) -> _Buckets:
    unique, own, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    starts = ends - counts
    return _Buckets(unique, np.argsort(own, kind="stable"), starts, ends, starts + np.minimum(counts, _HEADS))


def _words(count: int) -> list[range]:
    """The bits of each word."""
    edges = [round(word * _BITS / count) for word in range(count + 1)]
    return [range(start, end) for start, end in pairwise(edges)]


def _agreeing(hashes: Hashes, words: list[range], choice: tuple[int, ...], bits: int) -> tuple[Places, Places]:
    """Places of different hashes that are close and agree in the words of `choice` and in no other one before the last
    of these, so that each pair is found once."""
    import faiss

    # The index looks up by the first bits of a code: those of the chosen words go there.
    order = [bit for word in choice for bit in words[word]]
    keyed = len(order)
    order += sorted(set(range(_BITS)) - set(order))
    table = np.unpackbits(hashes.astype("<u8").view(np.uint8).reshape(-1, _BITS // 8), axis=1, bitorder="little")
    codes = np.packbits(table[:, order], axis=1, bitorder="little")
    index = faiss.IndexBinaryHash(_BITS, keyed)
    index.add(codes)
    # It finds what is nearer than the radius.
    limits, _, right = index.range_search(codes, bits + 1)
    left = np.repeat(np.arange(len(hashes)), np.diff(limits.astype(np.int64)))
    once = left < right
    left, right = left[once], right[once]
    difference = hashes[left] ^ hashes[right]
    for word in set(range(choice[-1])) - set(choice):
        mask = np.uint64(sum(1 << bit for bit in words[word]))
        apart = (difference & mask) != 0
        left, right, difference = left[apart], right[apart], difference[apart]
    return left, right


def _confirmed(
    left: Places, right: Places, buckets: _Buckets, units: NDArray[np.float32], threshold: float
) -> Iterator[Pairs]:
    """The pairs of a picture at the head of one bucket with a member of the other that are similar enough."""
    bucket, head = _spread(buckets.starts[left], buckets.heads[left])
    heads, others = buckets.members[head], right[bucket]
    # Of one bucket with itself each pair would be met from both sides.
    itself = (left == right)[bucket]
    met = np.cumsum((buckets.ends - buckets.starts)[others])
    first = 0
    while first < len(heads):
        enough = int(np.searchsorted(met, (met[first - 1] if first else 0) + _PAIRS, side="right"))
        part = slice(first, max(first + 1, enough))
        owner, member = _spread(buckets.starts[others[part]], buckets.ends[others[part]])
        one, other = heads[part][owner], buckets.members[member]
        kept = (one < other) | ~itself[part][owner]
        one, other = one[kept], other[kept]
        similarity = np.einsum("nd,nd->n", units[one], units[other])
        near = similarity >= threshold
        if near.any():
            one, other = one[near], other[near]
            yield Pairs(np.minimum(one, other), np.maximum(one, other), similarity[near])
        first = part.stop


def _spread(starts: Places, ends: Places) -> tuple[Places, Places]:
    """All numbers of the ranges from `starts` to before `ends`, each with the number of its range before it."""
    counts = ends - starts
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(starts, counts)
