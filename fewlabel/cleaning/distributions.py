"""Pictures of how a measure is distributed over a collection, with the thresholds drawn in."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fewlabel.cleaning.measures import Measure
from fewlabel.tracking.canvas import INK, SOFT, figure_for, quiet, set_title

__all__ = ["draw_distribution", "plain"]

_BINS: Final = 48
_ORDINARY: Final = "#0072B2"
_BEYOND: Final = "#D55E00"
# Colours that stay apart with every common colour blindness (Wong 2011, Nature Methods 8:441).


def draw_distribution(
    path: Path, title: str, measure: Measure, values: NDArray[np.float32], low: float | None, high: float | None
) -> None:
    """Draw how many images have which value of a measure, those beyond `low` or `high` in a colour of their own.

    Args:
        path: of the PNG to write.
        title: of the picture.
        measure: says whether the axis is logarithmic; values of 0 then stand on its left end.
        values: (N,) of the images; NaN is passed over, and at least one is a number.
        low: the threshold below which a value is conspicuous; None for none.
        high: above which.

    Raises:
        UserError: the file can't be written.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    known = values[np.isfinite(values)].astype(np.float64)
    # On a logarithmic scale nothing is below 0.
    limits = [limit for limit in (low, high) if limit is not None and not (measure.log and limit <= 0)]
    if measure.log:
        # What has no logarithm stands left of all others, and on its side of the thresholds.
        positive = known[known > 0]
        leftmost = [positive.min()] if len(positive) else []
        known = np.maximum(known, min([*leftmost, *(limit / 2 for limit in limits)], default=1.0))
    least, most = min([known.min(), *limits]), max([known.max(), *limits])
    edges = _edges(least, most, limits, log=measure.log)
    with figure_for(path, 4.6, 2.6, fitted=False) as figure:
        axes = figure.add_axes((0.16, 0.2, 0.79, 0.68))
        counts, _ = np.histogram(known, edges)
        middles = (edges[:-1] + edges[1:]) / 2
        beyond = (middles < (low if low is not None else -np.inf)) | (middles > (high if high is not None else np.inf))
        for chosen, colour in ((~beyond, _ORDINARY), (beyond, _BEYOND)):
            axes.stairs(counts * chosen, edges, fill=True, color=colour)
        for limit in limits:
            axes.axvline(limit, color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
            axes.annotate(
                plain(limit),
                (limit, 1),
                xycoords=("data", "axes fraction"),
                xytext=(3, -3),
                textcoords="offset points",
                va="top",
                fontsize=8,
                color=INK,
            )
        if measure.log:
            axes.set_xscale("log")
            # Of little more than a decade the ends alone would have a number.
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if most < 30 * least else (1,)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
            axes.xaxis.set_minor_formatter(NullFormatter())
        # A handful beyond the threshold would not show beside thousands within.
        axes.set_yscale("symlog", linthresh=10)
        axes.set_ylim(0, 2 * max(counts.max(), 5))
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_ylabel("images", fontsize=8, color=SOFT)
        axes.set_xlabel(", ".join(filter(None, (measure.title, measure.unit))), fontsize=8, color=SOFT)
        axes.tick_params(labelsize=8, colors=SOFT)
        quiet(axes)
        set_title(axes, title)


def plain(value: float) -> str:
    """A number of three digits or more, as people write it."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _edges(least: float, most: float, limits: list[float], *, log: bool) -> NDArray[np.float64]:
    """Bins from `least` to `most` of which none lies on both sides of a limit."""
    if log:
        least, most = least / 1.05, most * 1.05
        bins = np.geomspace(least, most, _BINS + 1)
    else:
        margin = 0.02 * (most - least) or 0.5
        bins = np.linspace(least - margin, most + margin, _BINS + 1)
    return np.unique(np.concatenate([bins, limits]))
