"""From where on an image is conspicuous among the others."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from fewlabel.cleaning.collection import Collection
from fewlabel.cleaning.config import ThresholdsConfig
from fewlabel.cleaning.kinds import Kind
from fewlabel.cleaning.measures import MEASURES

__all__ = ["Threshold", "derive_thresholds"]

_DEVIATIONS: Final = 4.5
"""Robust deviations from the median that are still ordinary."""

_NORMAL: Final = 1.4826
"""Standard deviation of a normal distribution by its median absolute deviation (Rousseeuw and Croux 1993)."""

_UNIFORM: Final = 6.0
"""Levels: what rounding and JPEG's blocks make of one colour."""


@dataclass(frozen=True)
class Threshold:
    """Which values of a measure are ordinary."""

    flag: str
    """The option that sets it, e.g. "--blur"."""
    measure: str
    """Of `MEASURES`."""
    low: float | None
    """A value below is conspicuous; None where none is too low."""
    high: float | None
    """A value above is conspicuous; None where none is too high."""
    given: bool
    """Whether the user set it."""
    explanation: str
    """Where it comes from, in words."""

    def beyond(self, values: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which of `values` are conspicuous; NaN is not."""
        below = values < (-math.inf if self.low is None else self.low)
        above = values > (math.inf if self.high is None else self.high)
        return np.asarray(below | above, dtype=bool)

    def passed(self, value: float) -> float:
        """The side that a conspicuous `value` is beyond."""
        side = self.low if self.low is not None and value < self.low else self.high
        assert side is not None
        return side


@dataclass(frozen=True)
class _Rule:
    """How a threshold follows from a collection."""

    measure: str
    side: Literal["low", "high"]
    limits: tuple[float, float]
    """The threshold is between these, as long as the median is ordinary then."""
    clear: float
    """How far the threshold lies from the median at least: a factor of it on a logarithmic scale, else a distance."""


# Judged on what is beyond without anybody's doing: nothing of 341 photos of clothes; of 10,000 images of CIFAR-10 22 of
# low contrast, 3 bright and 2 dark; of 5,856 chest X-rays (MedMNIST) 6 of low contrast; of 1,600 fundus photos 19 dark.
_RULES: Final[Mapping[Kind, tuple[str, _Rule]]] = {
    "too_small": ("least_side", _Rule("shorter_side", "low", (8, 32), 4)),
    "odd_aspect": ("longest_ratio", _Rule("ratio", "high", (2.5, 3), 1.5)),
    "blurred": ("blur", _Rule("sharpness", "low", (0.1, 0.2), 2)),
    "dark": ("dark", _Rule("bright_level", "low", (0.1, 0.3), 2)),
    "bright": ("bright", _Rule("dark_level", "high", (0.8, 0.95), 0.1)),
    "low_contrast": ("contrast", _Rule("contrast", "low", (0.05, 0.12), 2)),
}

_SIZE_FACTORS: Final = (3.0, 10.0)
"""Between these lies the factor from which a size is odd."""


def derive_thresholds(collection: Collection, config: ThresholdsConfig) -> dict[Kind, Threshold]:
    """The thresholds that are given, and for the others what the collection says.

    A value is ordinary up to 4.5 robust deviations (1.4826 times the median absolute deviation) from the median, on
    a logarithmic scale where `MEASURES` says so. The threshold is kept within stated limits, so that neither an
    all too even collection nor an all too mixed one misleads, but never comes near the median: where all
    X-rays are dark, none is too dark.
    """
    given_of = {
        "too_small": config.least_side,
        "odd_aspect": config.longest_ratio,
        "blurred": config.blur,
        "dark": config.dark,
        "bright": config.bright,
        "low_contrast": config.contrast,
    }
    thresholds: dict[Kind, Threshold] = {}
    for kind, (name, rule) in _RULES.items():
        given = given_of[kind]
        value, explanation = (float(given), "given") if given is not None else _derived(collection, rule)
        low, high = (value, None) if rule.side == "low" else (None, value)
        thresholds[kind] = Threshold(_flag(name), rule.measure, low, high, given is not None, explanation)
    thresholds["odd_size"] = _size(collection, config.size_factor)
    uniform, given = (_UNIFORM, False) if config.uniform is None else (config.uniform, True)
    thresholds["uniform"] = Threshold("--uniform", "range", uniform, None, given, "given" if given else "fixed")
    return thresholds


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _derived(collection: Collection, rule: _Rule) -> tuple[float, str]:
    least, most = rule.limits
    log = MEASURES[rule.measure].log
    values = _known(collection, rule.measure)
    if not len(values):
        return (least if rule.side == "low" else most), "no image to derive it from"
    median, spread = _median_and_spread(values, log)
    sign = -1 if rule.side == "low" else 1
    centre, clear = (math.exp(median), rule.clear) if log else (median, rule.clear)
    away = sign * _DEVIATIONS * spread
    value = min(max(math.exp(median + away) if log else median + away, least), most)
    farthest = centre * clear**sign if log else centre + sign * clear
    value = min(value, farthest) if rule.side == "low" else max(value, farthest)
    deviation = f"a factor of {math.exp(spread):.3g}" if log else f"{spread:.3g}"
    apart = f"a factor of {clear:g}" if log else f"{clear:g}"
    return value, (
        f"{_DEVIATIONS} deviations (each {deviation}) from the median {centre:.3g}, within {least:g} to {most:g}, and "
        f"{apart} from the median at least"
    )


def _size(collection: Collection, given: float | None) -> Threshold:
    values = _known(collection, "size")
    if not len(values):
        return Threshold("--size-factor", "size", None, None, given is not None, "no image to derive it from")
    median, spread = _median_and_spread(values, log=True)
    least, most = _SIZE_FACTORS
    factor = given if given is not None else min(max(math.exp(_DEVIATIONS * spread), least), most)
    source = (
        "given"
        if given is not None
        else (f"{_DEVIATIONS} deviations (each a factor of {math.exp(spread):.3g}), within {least:g} to {most:g}")
    )
    centre = math.exp(median)
    explanation = f"a factor of {factor:.3g} from the median {centre:.3g}: {source}"
    return Threshold("--size-factor", "size", centre / factor, centre * factor, given is not None, explanation)


def _known(collection: Collection, measure: str) -> NDArray[np.float32]:
    values = collection.measures[measure][collection.decoded]
    known: NDArray[np.float32] = values[np.isfinite(values)]
    return known


def _median_and_spread(values: NDArray[np.float32], log: bool) -> tuple[float, float]:
    # Black images have a level of 0, which has no logarithm: they count as a ten-thousandth.
    scaled = np.log(np.maximum(values.astype(np.float64), 1e-4)) if log else values.astype(np.float64)
    median = float(np.median(scaled))
    return median, _NORMAL * float(np.median(np.abs(scaled - median)))
