"""The curves of a run, read from its `metrics.jsonl` and drawn."""

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["curve_png", "series_of"]

_INK: Final = "#7b828c"
_LINE: Final = "#2f8fd0"
"""Both are read well on white and on black: the page follows its reader's setting."""


def series_of(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    """The steps and values of each metric in a `metrics.jsonl`, which a run may just be writing; null becomes NaN."""
    try:
        # What follows the last newline is not whole yet.
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError:
        return {}
    series: dict[str, tuple[list[int], list[float]]] = {}
    for line in lines:
        try:
            metrics = json.loads(line)
            step = int(metrics.pop("step"))
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        for name, value in metrics.items():
            steps, values = series.setdefault(name, ([], []))
            steps.append(step)
            values.append(float(value) if isinstance(value, int | float) else math.nan)
    return series


def curve_png(steps: Sequence[int], values: Sequence[float]) -> bytes:
    """A line of `values` over `steps`, broken where a value is NaN, without a background."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure((4.2, 2.3), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, values, color=_LINE, linewidth=1.8, marker="o" if len(steps) < 30 else "", markersize=3.5)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("step", color=_INK)
    axes.tick_params(colors=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_INK)
    axes.grid(color=_INK, alpha=0.25, linewidth=0.7)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, transparent=True)
    return stream.getvalue()
