"""Pictures that set methods side by side: the label curve, ROC curves, the AUROC of each of several labels."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fewlabel.supervised.method_look import look_of
from fewlabel.supervised.methods import figure_name, method_name
from fewlabel.supervised.metrics import Predictions
from fewlabel.tracking.canvas import BAND, SOFT, figure_for, quiet, set_title, short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_label_aurocs", "draw_label_curve", "draw_roc"]

_RATES: Final = np.linspace(0, 1, 501)
"""False positive rates at which ROC curves are averaged."""


def draw_label_curve(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """AUROC, and accuracy or the quadratic kappa of ordinal classes, against the number of labels.

    A line for each method with its 95 % interval shaded, or as a whisker where there is one amount of labels alone.

    Args:
        path: of the PNG.
        rows: as `few_labels.figures_of` returns them.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    second = "kappa_quadratic" if "kappa_quadratic" in rows[0] else "accuracy"
    with figure_for(path, 10, 4.9) as figure:
        panels = figure.subplots(1, 2, sharex=True)
        for axes, name in zip(panels, ("auroc", second), strict=True):
            _draw_figure(axes, name, {method: [row for row in rows if row["method"] == method] for method in methods})
        figure.legend(
            *panels[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=min(3, len(methods)),
            frameon=False,
            handlelength=3,
        )


def draw_roc(path: Path, draws_of: Mapping[str, Sequence[Predictions]], title: str) -> None:
    """ROC curves, the mean over draws at each false positive rate; the legend has the mean AUROC.

    With two classes the curve is that of class 1; else the mean over each class, or label, against the rest.

    Args:
        path: of the PNG.
        draws_of: by method, what it says of the test images after each draw of the labelled images.
        title: of the picture.
    """
    with figure_for(path, 9.2, 5.2) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, zorder=0)
        for method, draws in draws_of.items():
            area = np.mean([draw.figures()["auroc"] for draw in draws])
            curve = np.mean([_roc(draw) for draw in draws], axis=0)
            name = f"{area:.3f}  {method_name(method)}"
            axes.plot([0, *_RATES], [0, *curve], label=name, **{**look_of(method), "marker": ""})
        quiet(axes)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), box_aspect=1)
        axes.set_xlabel("False positive rate (1 - specificity)")
        axes.set_ylabel("True positive rate (sensitivity)")
        set_title(axes, title)
        axes.legend(
            loc="center left",
            bbox_to_anchor=(1.02, 0.5),
            frameon=False,
            title="AUROC",
            alignment="left",
            handlelength=3,
        )


def draw_label_aurocs(
    path: Path, draws_of: Mapping[str, Sequence[Predictions]], class_names: Sequence[str], title: str
) -> None:
    """AUROC of each of several labels: the mean over draws of each method, with whiskers from the least to the most.

    A label that the test images don't have both with and without is named and stays empty.

    Args:
        path: of the PNG.
        draws_of: by method, what it says of the test images, several labels an image, after each draw.
        class_names: of the K labels.
        title: of the picture.
    """
    places = np.arange(len(class_names))
    with figure_for(path, 8.4, 1.8 + max(0.3, 0.13 * len(draws_of)) * len(class_names)) as figure:
        axes = figure.subplots()
        axes.axvline(0.5, color=SOFT, linewidth=0.8, zorder=0)
        apart = 0.7 / len(draws_of)
        for place, (method, draws) in enumerate(draws_of.items()):
            # A label without an area becomes NaN, which isn't drawn.
            areas = np.array([draw.auroc_of_labels() for draw in draws], dtype=np.float64)
            mean = areas.mean(axis=0)
            spread = np.stack([mean - areas.min(axis=0), areas.max(axis=0) - mean])
            beside = places - 0.35 + (place + 0.5) * apart
            look = {**look_of(method), "linestyle": "none", "elinewidth": 1}
            axes.errorbar(mean, beside, xerr=np.maximum(spread, 0), label=method_name(method), **look)
        quiet(axes)
        axes.grid(axis="y", visible=False)
        for place in places[::2]:
            axes.axhspan(place - 0.5, place + 0.5, color=BAND, zorder=-1)
        axes.set_yticks(places, [short_name(name) for name in class_names], parse_math=False)
        axes.set_ylim(len(class_names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("AUROC")
        set_title(axes, title)
        figure.legend(loc="outside lower center", ncols=min(3, len(draws_of)), frameon=False)


def _draw_figure(axes: "Axes", name: str, rows_of: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """One figure of every method against the labels."""
    rows = [row for own in rows_of.values() for row in own]
    amounts = sorted({row["labels"] for row in rows})
    for place, (method, own) in enumerate(rows_of.items()):
        ordered = sorted(own, key=lambda row: row["labels"])
        labels = [row["labels"] for row in ordered]
        mean, low, high = (np.array([row[name][part] for row in ordered]) for part in ("mean", "low", "high"))
        look = look_of(method)
        if len(amounts) > 1:
            axes.fill_between(labels, low, high, color=look["color"], alpha=0.1, linewidth=0)
            axes.plot(labels, mean, label=method_name(method), **look)
        else:
            # All stand at the same amount, so side by side.
            whiskers = np.stack([mean - low, high - mean])
            axes.errorbar(place, mean[:1], whiskers[:, :1], label=method_name(method), **{**look, "linestyle": "none"})
    quiet(axes)
    set_title(axes, figure_name(name))
    axes.set_xlabel("Labelled training images")
    if len(amounts) > 1:
        _set_amounts(axes, amounts)
    else:
        axes.set_xlim(-1, len(rows_of))
        axes.set_xticks([(len(rows_of) - 1) / 2], [f"{amounts[0]:,}"])
    top, bottom = max(row[name]["high"] for row in rows), min(row[name]["low"] for row in rows)
    margin = max(0.04 * (top - bottom), 0.005)
    axes.set_ylim(bottom - margin, top + margin)
    if name == "auroc" and bottom - margin < 0.5:
        axes.axhline(0.5, color=SOFT, linewidth=0.8, zorder=0)


def _set_amounts(axes: "Axes", amounts: Sequence[int]) -> None:
    """A logarithmic axis with a tick at each of `amounts`, and a number at those that have room for one."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log")
    span = np.log(amounts[-1] / amounts[0])
    named = [amounts[-1]]
    for amount in reversed(amounts[:-1]):
        if np.log(named[-1] / amount) / span > 0.1:
            named.append(amount)
    axes.xaxis.set_major_locator(FixedLocator(amounts))
    axes.xaxis.set_major_formatter(lambda amount, _: f"{amount:,.0f}" if round(amount) in named else "")
    axes.xaxis.set_minor_locator(NullLocator())


def _rankings(draw: Predictions) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.float64]]]:
    """Of the classes or labels whose mean AUROC is the figure: which images are positive, and their probability."""
    classes = draw.probabilities.shape[1]
    for k in [1] if classes == 2 and not draw.multi_label else range(classes):
        known = draw.labels[:, k] >= 0 if draw.multi_label else draw.labels >= 0
        positive = draw.labels[known, k] == 1 if draw.multi_label else draw.labels == k
        if positive.any() and not positive.all():
            yield positive, draw.probabilities[known, k]


def _roc(draw: Predictions) -> NDArray[np.float64]:
    """The true positive rate at each of `_RATES`."""
    from sklearn.metrics import roc_curve

    curves = []
    for positive, probability in _rankings(draw):
        false, true, _ = roc_curve(positive, probability)
        curves.append(np.interp(_RATES, false, true))
    return np.asarray(np.mean(curves, axis=0))
