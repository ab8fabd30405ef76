"""How often an image's neighbours share its label: precision@k and mean average precision, against chance."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fewlabel.retrieval.plan import Metric
from fewlabel.training.features import Interval

__all__ = ["NEIGHBOURS", "LabelledImages", "Quality", "measure", "ranking_figures"]

NEIGHBOURS: Final = (1, 5, 10)
"""The k of precision@k."""

_MOST_QUERIES: Final = 2000
_REPLICATES: Final = 1000
_DECIMALS: Final = 10
_BLOCK: Final = 2**20
"""Pairs that are ranked at once."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LabelledImages:
    """Images, each once, that are asked about one another."""

    labels: NDArray[np.bool_]
    """(N, L): which labels an image has. Two images are relevant to each other where they share one."""
    groups: NDArray[np.int64]
    """(N,): images of one group (a patient, say) are left out of each other's neighbours, as they flatter; an image
    without a group has a number of its own."""

    @classmethod
    def of(cls, labels: NDArray[np.int64], groups: Sequence[str]) -> "LabelledImages":
        """From labels as `ImageStore` has them, (N,) classes or (N, K) yes, no and unknown, and a group for each."""
        members = labels[:, None] == np.unique(labels) if labels.ndim == 1 else labels == 1
        return cls(members, np.unique(np.asarray(groups), return_inverse=True)[1])


@dataclass(frozen=True)
class Quality:
    """What `measure` finds."""

    images: int
    """That were ranked for every query, but for its own group."""
    queries: int
    """Images whose neighbours were judged: those with another image of their label outside their group, or a sample
    of them."""
    learned: dict[str, Interval]
    """By figure: "precision_at_5", ..., "mean_average_precision"."""
    untrained: dict[str, Interval]
    gain: dict[str, Interval]
    """By how much `learned` is above `untrained`, on the same resamples."""
    chance: dict[str, float]
    """What a random order gives."""

    def metrics(self) -> dict[str, Any]:
        """The figures by plain names, as a run's result has them."""
        found: dict[str, Any] = {}
        for name, figure in self.learned.items():
            found[name] = asdict(figure)
            found[f"{name}_untrained"] = asdict(self.untrained[name])
            found[f"{name}_gain"] = asdict(self.gain[name])
            found[f"{name}_chance"] = self.chance[name]
        return found | {"judged_images": self.images, "judged_queries": self.queries}


def measure(
    images: LabelledImages,
    learned: NDArray[np.float32],
    untrained: NDArray[np.float32],
    metric: Metric = "cosine",
    seed: int = 0,
) -> Quality | None:
    """Judge the neighbours that an encoder gives to labelled images, beside those of the untrained encoder.

    Each query ranks all other images outside its group. Intervals are the 2.5 to 97.5 % range of 1,000 bootstrap
    resamples of the queries' groups (Davison and Hinkley 1997, section 3.8), each encoder on the same ones; the images
    that are ranked stay.

    Args:
        images: N of them.
        learned: (N, D) features of the encoder. untrained: (N, E) those of the untrained one.
        metric: of the ranking.
        seed: of the bootstrap, and of the sample where more than 2,000 images could be queries.

    Returns:
        None where no image has another one of its label outside its group.
    """
    relevant, candidates = _counts(images)
    queries = np.flatnonzero(relevant)
    if not len(queries):
        return None
    generator = np.random.default_rng(seed)
    if len(queries) > _MOST_QUERIES:
        queries = np.sort(generator.choice(queries, _MOST_QUERIES, replace=False))
    chance = _by_chance(relevant[queries], candidates[queries])
    groups = np.unique(images.groups[queries], return_inverse=True)[1]
    number = int(groups.max()) + 1
    times = generator.multinomial(number, np.full(number, 1 / number), size=_REPLICATES)
    found = [ranking_figures(images, features, queries, metric) for features in (learned, untrained)]
    resampled = [{name: _resampled(values, groups, times) for name, values in side.items()} for side in found]
    means = [{name: float(values.mean()) for name, values in side.items()} for side in found]
    return Quality(
        images=len(images.groups),
        queries=len(queries),
        learned={name: _interval(means[0][name], values) for name, values in resampled[0].items()},
        untrained={name: _interval(means[1][name], values) for name, values in resampled[1].items()},
        gain={
            name: _interval(means[0][name] - means[1][name], values - resampled[1][name])
            for name, values in resampled[0].items()
        },
        chance={name: float(values.mean()) for name, values in chance.items()},
    )


def ranking_figures(
    images: LabelledImages, features: NDArray[np.float32], queries: NDArray[np.int64], metric: Metric = "cosine"
) -> dict[str, Floats]:
    """Precision@k and average precision of each query's ranking of the other images outside its group.

    Images of equal similarity have no order: precision@k is its mean over all their orders, and average precision takes
    them as one step, as scikit-learn does. Of fewer than k images all are taken.

    Args:
        images: N of them.
        features: (N, D).
        queries: (Q,) positions of images with a relevant one to find.
        metric: of the ranking.

    Returns:
        By figure, (Q,).
    """
    labels, values = images.labels.astype(np.float32), features.astype(np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    values /= np.maximum(norms if metric == "cosine" else norms.max(), np.finfo(np.float64).tiny)
    # Of the squared distance all but the query's own length, which changes no order.
    lengths = np.square(values).sum(axis=1) if metric == "euclidean" else 0
    rows = max(1, _BLOCK // len(features))
    parts = []
    for start in range(0, len(queries), rows):
        block = queries[start : start + rows]
        # Rounded, so that equal features are equally near whatever order a processor sums in.
        scores = (2 * values[block] @ values.T - lengths).round(_DECIMALS)
        others = images.groups[block, None] != images.groups
        scores[~others] = -np.inf
        parts.append(_figures(scores, (labels[block] @ labels.T > 0) & others, others.sum(axis=1)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _figures(scores: Floats, relevant: NDArray[np.bool_], candidates: NDArray[np.int64]) -> dict[str, Floats]:
    order = np.argsort(-scores, axis=1)
    scores = np.take_along_axis(scores, order, axis=1)
    hits = np.take_along_axis(relevant, order, axis=1)
    found = hits.cumsum(axis=1)
    places = np.arange(scores.shape[1])
    ends = np.append(scores[:, 1:] != scores[:, :-1], np.ones((len(scores), 1), dtype=bool), axis=1)
    last = np.minimum.accumulate(np.where(ends, places, len(places))[:, ::-1], axis=1)[:, ::-1]
    precision = np.take_along_axis(found, last, axis=1) / (last + 1)
    figures = {}
    for k in NEIGHBOURS:
        kept = np.minimum(k, candidates)
        edge = np.take_along_axis(scores, kept[:, None] - 1, axis=1)
        before, through = (scores > edge).sum(axis=1), (scores >= edge).sum(axis=1)
        sure = np.where(before > 0, _at(found, before - 1), 0)
        tied = (_at(found, through - 1) - sure) / (through - before)
        figures[f"precision_at_{k}"] = (sure + (kept - before) * tied) / kept
    figures["mean_average_precision"] = (precision * hits).sum(axis=1) / hits.sum(axis=1)
    return figures


def _at(table: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
    return table[np.arange(len(table)), columns]


def _counts(images: LabelledImages) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each image, how many others outside its group are relevant to it, and how many there are."""
    labels = images.labels.astype(np.float32)
    rows = max(1, _BLOCK // len(labels))
    relevant = []
    for start in range(0, len(labels), rows):
        others = images.groups[start : start + rows, None] != images.groups
        relevant.append((others & (labels[start : start + rows] @ labels.T > 0)).sum(axis=1))
    return np.concatenate(relevant), len(labels) - np.bincount(images.groups)[images.groups]


def _by_chance(relevant: NDArray[np.int64], candidates: NDArray[np.int64]) -> dict[str, Floats]:
    """The expected figures of a random order, for each query.

    Of average precision with R of M relevant it is the mean over places i of (1 + (i - 1) (R - 1) / (M - 1)) / i:
    at place i one image is relevant, and of the i - 1 before it, so is the share that is left of the others.
    """
    harmonic = np.cumsum(1 / np.arange(1, candidates.max() + 1))[candidates - 1]
    share = (relevant - 1) / np.maximum(candidates - 1, 1)
    chance = {f"precision_at_{k}": relevant / candidates for k in NEIGHBOURS}
    return chance | {"mean_average_precision": share + (1 - share) * harmonic / candidates}


def _resampled(values: Floats, groups: NDArray[np.int64], times: NDArray[np.int64]) -> Floats:
    """The mean of `values` (Q,) in each resample, which takes the groups so often as its row of `times` says."""
    return np.asarray(times @ np.bincount(groups, values) / (times @ np.bincount(groups)))


def _interval(estimate: float, values: Floats) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate))
