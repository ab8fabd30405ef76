"""Intervals of a classifier's figures, by the bootstrap over test images and over draws of the labelled images."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fewlabel.errors import UserError
from fewlabel.supervised.metrics import Predictions
from fewlabel.training.features import Interval

__all__ = [
    "Replicates",
    "difference",
    "figures_with_intervals",
    "interval",
    "replicates",
    "resamples",
]

Replicates = tuple[float, NDArray[np.float64]]
"""A figure's mean over draws, and its `(count,)` bootstrap values."""

_REDRAWS: Final = 20


def resamples(
    number: int, groups: Sequence[str] | None, labels: NDArray[Any], count: int = 1000, seed: int = 0
) -> Iterator[NDArray[np.int64]]:
    """Resamples of test images: as many images, drawn with replacement, or as many whole groups.

    Images of one group (a patient) resemble one another, so that drawing them one by one gives intervals that
    are too narrow (Davison and Hinkley 1997, section 3.8).

    A resample that lacks a class, or a yes or no of a label, is drawn again, up to 20 times; after that it is taken as
    it is, as it happens where many classes have a single image or group, and its figures are those of the classes
    that it has.

    Args:
        number: of images, N.
        groups: the group of each image, or None where each stands for itself.
        labels: `(N,)` int, or `(N, K)` of several labels an image, below 0 where unknown.
        count: of resamples.
        seed: the same one gives the same resamples, so that methods can be compared on them.

    Yields:
        `(M,)` int64 sorted positions, 0 to N - 1, each as often as it was drawn; M is N without groups.

    Raises:
        UserError: all images are of one group, which says nothing about other groups.
    """
    group_of = np.arange(number) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    units = int(group_of.max()) + 1
    if groups is not None and units < 2:
        raise UserError(
            f"All {number} test images are of one group ({groups[0]}), so nothing is known about how the figures "
            "vary between groups. Test on images of several groups, or leave the groups out if they mean nothing."
        )
    rows, classes, class_of = _classes_of(labels)
    generator = np.random.default_rng(seed)
    for _ in range(count):
        for _ in range(1 + _REDRAWS):
            times = np.bincount(generator.integers(units, size=units), minlength=units)[group_of]
            if np.bincount(class_of, times[rows], classes).all():
                break
        yield np.repeat(np.arange(number), times)


def interval(values: NDArray[np.float64], estimate: float) -> Interval:
    """The 95 % percentile interval (Efron 1981) of bootstrap `values`, with `estimate` as its mean.

    It is widened to `estimate` where that lies outside, as it can for a figure that resampling biases: the
    calibration error of a well-calibrated classifier is larger in nearly every resample.
    """
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate))


def figures_with_intervals(
    draws: Sequence[Predictions], groups: Sequence[str] | None, count: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Every figure of a method, as the mean over draws of the labelled images, with its interval.

    Each replicate picks one draw and one resample of the test images, so the interval says where the figure of
    a single draw may lie on other test images, and does not shrink as draws are added. The same `seed` gives
    every method on these images the same resamples.

    Args:
        draws: what the classifier trained on each draw says of the same test images.
        groups: the group of each test image, or None.
        count: of replicates.
        seed: of the bootstrap.

    Raises:
        UserError: the test images are all of one class or one group.
        ValueError: the draws' labels differ.
    """
    found = replicates(draws, groups, count, seed)
    return {name: interval(values, mean) for name, (mean, values) in found.items()}


def difference(a: Replicates, b: Replicates) -> Interval:
    """By how much a figure of method `a` is above that of method `b`, with its interval.

    Both are of the same test images, groups, count and seed, so that each replicate compares them on the same resample
    of the test images, and on the same draw of the labelled images where both have as many draws. An interval without 0
    is a difference that chance does not explain.
    """
    (mean_a, values_a), (mean_b, values_b) = a, b
    return interval(values_a - values_b, mean_a - mean_b)


def replicates(
    draws: Sequence[Predictions], groups: Sequence[str] | None, count: int = 1000, seed: int = 0
) -> dict[str, Replicates]:
    """By figure: its mean over draws, and its bootstrap values; arguments as for `figures_with_intervals`."""
    _check_labels(draws)
    labels = draws[0].labels
    means = [draw.figures() for draw in draws]
    # One number for each replicate, so that methods with as many draws pick the same ones.
    picks = (np.random.default_rng((seed, 1)).random(count) * len(draws)).astype(np.int64)
    values = [
        draws[pick].figures(np.bincount(indices, minlength=len(labels)).astype(np.float64))
        for pick, indices in zip(picks, resamples(len(labels), groups, labels, count, seed), strict=True)
    ]
    return {
        name: (float(np.mean([mean[name] for mean in means])), np.array([value[name] for value in values]))
        for name in means[0]
    }


def _classes_of(labels: NDArray[Any]) -> tuple[Any, int, NDArray[np.intp]]:
    """What a resample should hold one of each: images, the number of classes, and the class of each of the images.

    An image of several labels stands once for each that is known, which makes a class if yes and one if no.
    """
    if labels.ndim == 1:
        values, class_of = np.unique(labels, return_inverse=True)
        return slice(None), len(values), class_of
    rows, columns = (labels >= 0).nonzero()
    values, class_of = np.unique(2 * columns + labels[rows, columns], return_inverse=True)
    return rows, len(values), class_of


def _check_labels(draws: Sequence[Predictions]) -> None:
    if not all(np.array_equal(draw.labels, draws[0].labels) for draw in draws):
        raise ValueError("expected predictions for the same test images: their labels differ")
