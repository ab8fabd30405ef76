"""The images that a classifier is surest and wrong about: where its labels, or the given ones, deserve a look."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewlabel.supervised.metrics import Predictions

__all__ = ["Mistake", "most_confident_mistakes"]


@dataclass(frozen=True)
class Mistake:
    """A decision that differs from the label."""

    position: int
    """Of the image, among those predicted."""
    id: str
    label: int
    """The number of the class; of several labels an image 0 or 1."""
    predicted: int
    """Likewise."""
    confidence: float
    """In `predicted`: its probability, as the mean over draws."""
    column: int | None
    """Which of several labels an image this is about; None where an image has one class."""


def most_confident_mistakes(predictions: Sequence[Predictions], ids: Sequence[str], count: int) -> list[Mistake]:
    """The mistakes with the highest confidence, the probabilities being the mean over draws.

    With several labels an image each known label is a decision of its own: yes above a probability of 0.5.

    Args:
        predictions: of the same images, one for each draw of the labelled images.
        ids: of these images.
        count: of mistakes, at most.

    Returns:
        By confidence, the highest first; of equals the earlier image.

    Raises:
        ValueError: there are not as many ids as images.
    """
    labels = predictions[0].labels
    if len(ids) != len(labels):
        raise ValueError(f"expected {len(labels)} ids, not {len(ids)}")
    mean = np.mean([draw.probabilities for draw in predictions], axis=0)
    if predictions[0].multi_label:
        predicted = (mean > 0.5).astype(np.int64)
        confidence = np.where(predicted == 1, mean, 1 - mean)
    else:
        predicted, confidence = mean.argmax(axis=1), mean.max(axis=1)
    # Predictions of one class an image are a single column of decisions.
    labels, predicted, confidence = (array.reshape(len(ids), -1) for array in (labels, predicted, confidence))
    rows, columns = np.nonzero((predicted != labels) & (labels >= 0))
    order = np.argsort(-confidence[rows, columns], kind="stable")[:count]
    return [
        Mistake(
            position=int(row),
            id=ids[row],
            label=int(labels[row, column]),
            predicted=int(predicted[row, column]),
            confidence=float(confidence[row, column]),
            column=int(column) if predictions[0].multi_label else None,
        )
        for row, column in zip(rows[order], columns[order], strict=True)
    ]
