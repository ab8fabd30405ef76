"""The curves of scaling: what each way of growing the base bought, and what it cost."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fewlabel.search.candidate import Candidate
from fewlabel.search.table import DIMENSIONS, TrialRow

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["Plot", "cost_law", "scaling_curves"]

_COMPOUND: Final = "scaled by phi"
_COLOURS: Final = {"depth": "#0072B2", "width": "#E69F00", "resolution": "#009E73", _COMPOUND: "#D55E00"}
"""Of Okabe and Ito, told apart by eyes of all kinds."""
_INK: Final = "#3b4148"
_PALE: Final = "#9aa3ad"


@dataclass(frozen=True)
class Plot:
    """A figure with what it says."""

    name: str
    """For W&B, e.g. "scaling"."""
    title: str
    figure: "Figure"
    caption: str


def scaling_curves(rows: Sequence[TrialRow], name: str, chosen: Candidate | None) -> Plot:
    """The quality over the measured cost: each dimension alone, all together, and whatever else was tried."""
    import plotly.graph_objects as go

    finished = [row for row in rows if row.finished and row.ratio]
    base = [row for row in finished if row.slot == "base"]
    # What is scaled by phi comes first: where it is one dimension alone, that line lies on it.
    scaled = [row for row in finished if row.phi is not None or row.candidate == chosen]
    lines = {_COMPOUND: scaled if any(row.slot not in DIMENSIONS for row in scaled) else []}
    lines |= {dimension: [row for row in finished if row.slot == dimension] for dimension in DIMENSIONS}
    drawn = {row.number for line in lines.values() for row in line} | {row.number for row in base}
    rest = [row for row in finished if row.number not in drawn]
    figure = go.Figure()
    if rest:
        kind = "mixture" if any(row.slot.startswith("grid/") for row in rest) else "trial"
        figure.add_trace(_points(go, rest, kind, _PALE, mode="markers"))
    for label, line in lines.items():
        if line:
            path = sorted([*base, *line], key=lambda row: row.ratio or 0.0)
            figure.add_trace(_points(go, path, f"{label} alone" if label in DIMENSIONS else label, _COLOURS[label]))
    if rest and not any(lines.values()):
        best = sorted(_front(finished), key=lambda row: row.ratio or 0.0)
        figure.add_trace(_points(go, best, "best for its cost", _COLOURS[_COMPOUND]))
    if base:
        figure.add_trace(_points(go, base, "base", _INK, mode="markers", size=11))
    figure.update_layout(**_layout(f"{name}, on validation images"))
    figure.update_xaxes(
        type="log", title="counted cost, times the base's", **_ticks(row.ratio for row in finished if row.ratio)
    )
    return Plot(
        "scaling",
        f"What {name} costs",
        figure,
        f"The {name} on validation images with its 95 % interval over the counted cost. A steeper line bought more for "
        "its cost; where the intervals of two overlap, these images can't tell them apart.",
    )


def _front(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Those that are better than all that cost no more."""
    best: list[TrialRow] = []
    for row in sorted(rows, key=lambda row: (row.ratio or 0.0, -(row.value or {})["mean"])):
        if not best or (row.value or {})["mean"] > (best[-1].value or {})["mean"]:
            best.append(row)
    return best


def _points(
    go: Any, rows: Sequence[TrialRow], label: str, colour: str, mode: str = "lines+markers", size: int = 8
) -> Any:
    values = [row.value or {} for row in rows]
    texts = [f"trial {row.number}, {row.slot}<br>{_multipliers(row.candidate)}" for row in rows]
    return go.Scatter(
        x=[row.ratio for row in rows],
        y=[value["mean"] for value in values],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [value["high"] - value["mean"] for value in values],
            "arrayminus": [value["mean"] - value["low"] for value in values],
            "thickness": 1.2,
            "width": 3,
        },
        text=texts,
        hovertemplate="%{text}<br>%{y:.3f} at %{x:.2f} times the cost<extra></extra>",
        mode=mode,
        name=label,
        line={"color": colour, "width": 2},
        marker={"color": colour, "size": size},
    )


def cost_law(rows: Sequence[TrialRow], chosen: Candidate | None) -> list[Plot]:
    """The counted cost beside what the formula of compound scaling expects."""
    import plotly.graph_objects as go

    scaled = [(row.phi, row.ratio, row) for row in rows if row.phi is not None and row.ratio]
    if scaled:
        # What is scaled is the candidate at phi = 1; the base is it to the power of 0.
        known = {0: Candidate(), 1: chosen}
        first = {
            phi: next((row for row in rows if row.ratio and row.candidate == one), None) for phi, one in known.items()
        }
        scaled = [*((phi, row.ratio, row) for phi, row in first.items() if row is not None and row.ratio), *scaled]
    figure = go.Figure()
    if chosen is not None and scaled:
        growth = _formula(chosen)
        last = max(phi for phi, _, _ in scaled)
        grid = [last * step / 40 for step in range(41)]
        law = f"({chosen.depth:.3g} x {chosen.width:.3g}² x {chosen.resolution:.3g}²)^phi = {growth:.2f}^phi"
        figure.add_trace(_line(go, grid, [growth**phi for phi in grid], law, _COLOURS[_COMPOUND]))
        figure.add_trace(_line(go, grid, [2.0**phi for phi in grid], "2^phi, as the paper wants it", _PALE, dash="dot"))
        places = scaled
        horizontal = "phi"
        caption = (
            "The counted cost of the scaled networks, and the law (alpha beta² gamma²)^phi of EfficientNet (equation "
            "3). Networks come in whole blocks, whole channels and whole pixels, so the points leave the line; they "
            "are what is paid. Points without a filling were not trained to their end, such as those over the budget."
        )
    else:
        places = [(_formula(row.candidate), row.ratio, row) for row in rows if row.ratio]
        if len({formula for formula, _, _ in places}) < 2:
            return []
        ends = [min(formula for formula, _, _ in places), max(formula for formula, _, _ in places)]
        figure.add_trace(_line(go, ends, ends, "the formula's own", _COLOURS[_COMPOUND]))
        figure.update_xaxes(type="log", **_ticks(ends))
        horizontal = "depth x width² x resolution²"
        caption = (
            "The counted cost of each trial's network over what EfficientNet's formula expects of it. Networks come in "
            "whole blocks, whole channels and whole pixels, so the points leave the line; they are what is paid. "
            "Points without a filling were not trained to their end."
        )
    figure.add_trace(
        go.Scatter(
            x=[place for place, _, _ in places],
            y=[ratio for _, ratio, _ in places],
            text=[
                f"trial {row.number}, {row.slot}<br>{_multipliers(row.candidate)}<br>{row.outcome}"
                for *_, row in places
            ],
            hovertemplate="%{text}<br>%{y:.2f} times the cost<extra></extra>",
            mode="markers",
            name="counted",
            marker={
                "color": _INK,
                "size": 9,
                "symbol": ["circle" if row.finished else "circle-open" for *_, row in places],
            },
        )
    )
    figure.update_layout(**_layout("counted cost, times the base's"))
    figure.update_xaxes(title=horizontal)
    figure.update_yaxes(type="log", **_ticks(ratio for _, ratio, _ in places))
    return [Plot("cost_law", "What scaling costs", figure, caption)]


def _formula(candidate: Candidate) -> float:
    return candidate.depth * candidate.width**2 * candidate.resolution**2


def _line(go: Any, x: Sequence[float], y: Sequence[float], label: str, colour: str, dash: str = "solid") -> Any:
    return go.Scatter(
        x=x, y=y, mode="lines", name=label, line={"color": colour, "width": 2, "dash": dash}, hoverinfo="skip"
    )


def _layout(vertical: str) -> dict[str, Any]:
    return {
        "template": "plotly_white",
        "margin": {"l": 60, "r": 20, "t": 40, "b": 50},
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0.0},
        "yaxis": {"title": vertical},
        "hovermode": "closest",
    }


def _ticks(values: Iterable[float]) -> dict[str, Any]:
    """Powers of two, on a short axis with those of their roots: plotly's own are hard to read there."""
    shown = [1.0, *values]
    first, last = math.floor(math.log2(min(shown))), math.ceil(math.log2(max(shown)))
    parts = 2 if last - first < 3 else 1
    ticks = [2 ** (step / parts) for step in range(first * parts, last * parts + 1)]
    return {"tickvals": ticks, "ticktext": [f"{tick:.2g}" for tick in ticks]}


def _multipliers(candidate: Candidate) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in candidate.as_json().items())
