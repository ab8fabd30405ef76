"""Pictures of what one method gets wrong: the confusion matrix, and how far its confidence can be trusted."""

from collections.abc import Sequence
from math import floor
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fewlabel.supervised.calibration import EDGES, bins_of
from fewlabel.supervised.method_look import look_of
from fewlabel.supervised.metrics import Predictions
from fewlabel.tracking.canvas import INK, SOFT, figure_for, quiet, set_title, short_name

__all__ = ["draw_calibration", "draw_confusion"]

_MOST_CLASSES: Final = 20
"""Rows of a confusion matrix that can be read."""

_MOST_WITH_SHARES: Final = 10
"""Rows of one whose cells have room for two numbers."""

_MANY: Final = 10
"""Decisions a training from which a bin's mark is filled: the share of fewer says little."""


def draw_confusion(path: Path, draws: Sequence[Predictions], class_names: Sequence[str], title: str) -> None:
    """How many images of each class are taken for which: counts pooled over trainings, and shares of the true class.

    Of more than 20 classes the 20 with the most mistakes are shown, all others in a last column.

    Args:
        path: of the PNG.
        draws: what a method says of the test images, one class an image, after each training.
        class_names: K.
        title: of the picture.
    """
    counts, kept = _confusion(draws, len(class_names))
    rows = [short_name(class_names[k]) for k in kept]
    columns = rows
    if len(rows) < len(class_names):
        columns = [*rows, "all others"]
        title = f"{title}: the {len(rows)} of {len(class_names)} classes with the most mistakes"
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    few = len(rows) <= _MOST_WITH_SHARES
    side = min(max(3.6, 0.62 * len(rows)), 9.5)
    with figure_for(path, side + 2.6, side + 1) as figure:
        axes = figure.subplots()
        picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            number = int(counts[row, column])
            if few or number:
                text = f"{number:,}\n{100 * share:.0f} %" if few else f"{number:,}"
                colour = "white" if share > 0.55 else INK
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9 if few else 7)
        crowded = len(columns) * max(len(name) for name in columns) > 10 * side
        slant: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
        axes.set_xticks(range(len(columns)), columns, parse_math=False, fontsize=9 if few else 8, **slant)
        axes.set_yticks(range(len(rows)), rows, parse_math=False, fontsize=9 if few else 8)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("Predicted")
        axes.set_ylabel("True")
        set_title(axes, title)
        bar = figure.colorbar(picture, ax=axes, shrink=0.6, format=lambda share, _: f"{100 * share:.0f} %")
        bar.set_label("Share of the true class")
        bar.ax.spines[:].set_visible(False)


def draw_calibration(path: Path, method: str, draws: Sequence[Predictions], title: str) -> None:
    """The reliability diagram: how often decisions are right, against their confidence, in the bins of the ECE.

    A training is one on a draw of the labelled images, or from a seed where the labels are all there are. Below are the
    numbers of decisions; bins with fewer than 10 a training have a hollow mark. The title has the mean ECE of the
    trainings, which is above that of the pooled line: what one overstates another may understate.

    Args:
        path: of the PNG.
        method: for its colour.
        draws: what it says of the test images after each training.
        title: of the picture.
    """
    error = np.mean([draw.figures()["ece"] for draw in draws])
    decisions = [_decisions(draw) for draw in draws]
    classes = 2 if draws[0].multi_label else draws[0].probabilities.shape[1]
    colour = look_of(method)["color"]
    with figure_for(path, 6.2, 5.6) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, zorder=0, label="as often right as it is sure")
        for place, (confidence, correct) in enumerate(decisions if len(draws) > 1 else []):
            sure, right, _ = _bins(confidence, correct)
            name = "_" if place else "a single training"
            upper.plot(sure, right, color=colour, linewidth=0.8, alpha=0.4, label=name)
        sure, right, numbers = _bins(*(np.concatenate(parts) for parts in zip(*decisions, strict=True)))
        name = f"{len(draws)} trainings together" if len(draws) > 1 else "test images"
        upper.plot(sure, right, color=colour, linewidth=1.8, label=name)
        many = numbers[numbers > 0] >= _MANY * len(draws)
        fill = [colour if enough else "white" for enough in many]
        upper.scatter(sure, right, s=26, facecolors=fill, edgecolors=colour, linewidths=1.2, zorder=3)
        lower.stairs(numbers / len(draws), EDGES, fill=True, color=colour, alpha=0.6)
        quiet(upper)
        quiet(lower)
        # The most probable of K classes has a probability of 1 / K at least.
        upper.set(xlim=(floor(10 / classes) / 10, 1.005), ylim=(-0.02, 1.02))
        upper.set_ylabel("Share that is right")
        upper.legend(loc="lower right", fontsize=9, framealpha=0.9, edgecolor="none")
        lower.set_ylabel("Decisions\n(mean of trainings)" if len(draws) > 1 else "Decisions")
        lower.yaxis.get_major_locator().set_params(integer=True, nbins=4)
        lower.set_xlabel("Confidence: the probability of what is predicted")
        set_title(upper, f"{title}: ECE {error:.3f}")


def _confusion(draws: Sequence[Predictions], classes: int) -> tuple[NDArray[np.int64], list[int]]:
    """Counts by true class (row) and most probable one, pooled over draws, and the classes that the rows stand for."""
    from sklearn.metrics import confusion_matrix

    true = np.concatenate([draw.labels for draw in draws])
    predicted = np.concatenate([draw.probabilities.argmax(axis=1) for draw in draws])
    counts = confusion_matrix(true, predicted, labels=np.arange(classes))
    if classes <= _MOST_CLASSES:
        return counts, list(range(classes))
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    kept = sorted(np.argsort(-mistakes, kind="stable")[:_MOST_CLASSES].tolist())
    others = np.delete(counts[kept], kept, axis=1).sum(axis=1)
    return np.column_stack([counts[np.ix_(kept, kept)], others]), kept


def _decisions(draw: Predictions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The confidence of each decision and whether it is right; each of several labels an image is a decision."""
    if draw.multi_label:
        known = draw.labels >= 0
        probability = draw.probabilities[known]
        return np.maximum(probability, 1 - probability), (probability > 0.5) == draw.labels[known]
    return draw.probabilities.max(axis=1), draw.probabilities.argmax(axis=1) == draw.labels


def _bins(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """The mean confidence and the share of right decisions in each bin that has any, and the number in every bin."""
    place, most = bins_of(confidence), len(EDGES) - 1
    numbers = np.bincount(place, minlength=most)
    used = numbers > 0
    sure, right = (np.bincount(place, values, most)[used] / numbers[used] for values in (confidence, correct))
    return sure, right, numbers
