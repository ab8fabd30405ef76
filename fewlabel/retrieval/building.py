"""Making a FAISS index of vectors: training on a sample, filling, tuning and measuring on queries held out."""

from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from fewlabel.console import console, track
from fewlabel.errors import UserError
from fewlabel.retrieval.choice import training_sample
from fewlabel.retrieval.layers import create, knobs, lists_of, reason
from fewlabel.retrieval.plan import Metric, Recall
from fewlabel.retrieval.recall import NEIGHBOURS, Truth, exact_neighbours, tune

__all__ = ["FAISS_METRICS", "fill", "metric_of", "prepared"]

FAISS_METRICS: dict[Metric, int] = {"cosine": faiss.METRIC_INNER_PRODUCT, "euclidean": faiss.METRIC_L2}
BLOCK = 65536
"""Vectors that are added at a time."""
QUERIES = 1000
"""Held out to tune with, and as many more to measure with."""
FEWEST = 40
"""Vectors of an index that isn't exact: below, a twentieth to tune with and one to measure with are none."""

Floats = NDArray[np.float32]
Positions = NDArray[np.int64]


def metric_of(factory: str, metric: Metric) -> int:
    """FAISS's metric. Vectors of unit length have the same neighbours by distance as by cosine.

    By distance codes are of the difference to a list's centre, which loses less than codes of the whole where all
    vectors lie in one direction, as features that are never negative do: with 60,000 to 100,000 such vectors of width
    512, 4-bit codes re-ranked 16 times reached a recall@10 of 0.98 by distance and never 0.55 by inner product.
    """
    return FAISS_METRICS[metric if factory == "Flat" else "euclidean"]


def prepared(vectors: Floats, metric: Metric) -> Floats:
    """As FAISS takes them: for the cosine of unit length, where they aren't zero."""
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if metric == "cosine":
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return rows


def fill(
    vectors: Floats, factory: str, metric: Metric, asked: float, seed: int
) -> tuple[Any, Positions, dict[str, int], Recall]:
    """A `faiss.IndexIDMap` around an index of `vectors` (N, D), yet without keys.

    The queries are held out: added last, once the search is tuned with one half and measured with the other.

    Returns the index, the vectors' order in it (N,), its search parameters and the recall.

    Raises:
        UserError: FAISS can't make such an index of these vectors.
    """
    count, width = vectors.shape
    inner = create(factory, width, metric_of(factory, metric))
    numbered = faiss.IndexIDMap(inner)
    if isinstance(inner, faiss.IndexFlat):
        order = np.arange(count)
        for start in range(0, count, BLOCK):
            inner.add(prepared(vectors[start : start + BLOCK], metric))
        return numbered, order, {}, Recall(NEIGHBOURS, asked, 1.0, 0)
    if count < FEWEST:
        raise UserError(
            f"--factory {factory} is for {FEWEST} vectors and more, and here are {count}: "
            "take auto, which searches exactly."
        )
    try:
        order, parameters, recall = _fill(inner, vectors, factory, metric, asked, np.random.default_rng(seed))
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"--factory {factory} can't take {count:,} vectors of width {width}: {reason(error)}. "
            "Take auto, or a factory that needs fewer to be trained and can be added to."
        ) from None
    return numbered, order, parameters, recall


def _fill(
    inner: Any, vectors: Floats, factory: str, metric: Metric, asked: float, generator: np.random.Generator
) -> tuple[Positions, dict[str, int], Recall]:
    """Train and fill `inner`, held-out queries last; the vectors' order in it, its search parameters and the recall."""
    count = len(vectors)
    shuffled = generator.permutation(count)
    queries = min(QUERIES, count // 20)
    held, rest = shuffled[: 2 * queries], np.sort(shuffled[2 * queries :])

    def rows(positions: Positions) -> Floats:
        return prepared(vectors[rest[positions]], metric)

    def blocks(doing: str) -> Iterator[Floats]:
        for start in track(range(0, len(rest), BLOCK), doing, -(-len(rest) // BLOCK)):
            yield rows(np.arange(start, min(start + BLOCK, len(rest))))

    if not inner.is_trained:
        lists = lists_of(inner)
        taken = training_sample(len(rest), lists.nlist if lists is not None else 0)
        console.print(f"Training {factory} on {taken:,} of {count:,} vectors ...", highlight=False)
        inner.train(rows(np.sort(generator.choice(len(rest), taken, replace=False))))
    for block in blocks("Filling"):
        inner.add(block)
    truth = exact_neighbours(prepared(vectors[held], metric), blocks("Searching exactly"), rows)
    tuned, measured = (
        Truth(truth.queries[part], truth.limits[part], rows) for part in (slice(queries), slice(queries, None))
    )
    parameters = tune(inner, knobs(inner), tuned, asked)
    recall = Recall(NEIGHBOURS, asked, float(measured.recalls(inner).mean(dtype=np.float64)), queries)
    inner.add(prepared(vectors[held], metric))
    return np.concatenate([rest, held]), parameters, recall
