"""Figures of a classifier on labelled images: how often it is right, how well it ranks, how far to trust it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabel.errors import UserError
from fewlabel.supervised.class_figures import ClassFigures
from fewlabel.supervised.label_figures import LabelFigures

__all__ = ["Predictions", "best_threshold"]


class Predictions:
    """What a classifier says of N labelled images, prepared so that the figures of a resample cost little.

    The figures are scikit-learn's, to the last digits. They are computed from how often each image counts,
    after one sort, because a bootstrap asks for them a thousand times.

    Args:
        probabilities: `(N, K)` float, a row for each image: of K classes, at least 2, or of a yes to each of K labels.
        labels: `(N,)` int, 0 to K - 1; or of several labels an image, `(N, K)` of 1 (yes), 0 (no) and -1 (unknown).
        threshold: with two classes, the probability from which an image counts as class 1 for sensitivity and
            specificity, which are left out if it is None; chosen on other images, by `best_threshold`.
        ordinal: whether the order of the classes means something.

    Attributes:
        probabilities: as given, float64.
        labels: as given, int64.
        threshold: as given.
        ordinal: as given.
        multi_label: whether an image has several labels.

    Raises:
        UserError: a probability is NaN or infinite.
        ValueError: shapes or labels are not as above, or there is a threshold or an order with anything but classes.
    """

    def __init__(
        self, probabilities: NDArray[Any], labels: NDArray[Any], *, threshold: float | None, ordinal: bool
    ) -> None:
        probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.int64)
        number, classes = probabilities.shape
        self.multi_label = labels.ndim == 2
        if self.multi_label:
            if labels.shape != probabilities.shape or not np.isin(labels, (-1, 0, 1)).all():
                raise ValueError(f"expected labels {probabilities.shape} of 1, 0 and -1")
        elif labels.shape != (number,) or classes < 2 or not np.isin(labels, np.arange(classes)).all():
            raise ValueError(f"expected {number} labels within 0 to {classes - 1}, and two classes at least")
        if threshold is not None and (classes != 2 or self.multi_label):
            raise ValueError(f"a threshold is for two classes, not {classes}{' labels' if self.multi_label else ''}")
        if ordinal and self.multi_label:
            raise ValueError("classes have an order, labels that an image has several of do not")
        bad = number - int(np.isfinite(probabilities).all(axis=1).sum())
        if bad:
            raise UserError(
                f"The classifier gives {bad} of {number} images a probability that is NaN or infinite. "
                "Its weights are spoilt: train it again with a lower learning rate."
            )
        self.probabilities, self.labels = probabilities, labels
        self.threshold, self.ordinal = threshold, ordinal
        self._prepared = (
            LabelFigures(probabilities, labels)
            if self.multi_label
            else ClassFigures(probabilities, labels, threshold, ordinal)
        )

    def figures(self, counts: NDArray[np.float64] | None = None) -> dict[str, float]:
        """The figures where image i counts `counts[i]` times, a whole number; once each without `counts`.

        Returns:
            Of classes:

            accuracy: the share of images whose most probable class is right.
            balanced_accuracy: the mean of the classes' recalls, over the classes with images.
            auroc: of class 1 where there are two classes; else the mean over one class against the rest.
            auprc: average precision, of the same classes.
            f1: the mean of the classes' F1, over the classes with images or predictions.
            ece: expected calibration error in 15 bins of equal width (Guo et al. 2017, section 2).
            kappa_quadratic: Cohen's kappa with quadratic weights; where the classes are ordinal.
            sensitivity, specificity: the recalls of class 1 and 0 at the threshold; where there is one.

            A class without images is left out of `auroc` and `auprc`. None is ever NaN.

            Of several labels an image, where a yes is a probability above 0.5:

            accuracy: the mean of the labels' accuracies, as MedMNIST v2 has it (Yang et al. 2023).
            exact_match: the share of images of which every known label is right (subset accuracy).
            auroc, auprc, f1: the means of the labels' AUROC, average precision and F1 of yes.
            ece: as above, over all decisions on a label, with the probability of what was decided.

            An unknown label counts nowhere. One that is always yes or always no is left out of `auroc`, `auprc`
            and `f1`.

        Raises:
            UserError: the images are of fewer than two classes, or no label is both yes and no.
        """
        return self._prepared.figures(np.ones(len(self.labels)) if counts is None else counts)

    def auroc_of_labels(self) -> list[float | None]:
        """The AUROC of each label; None for one that is always yes, always no or unknown.

        Raises:
            ValueError: an image has one class, and not several labels.
        """
        if not isinstance(self._prepared, LabelFigures):
            raise ValueError("these are predictions of one class an image")
        return [None if area is None else area[0] for area in self._prepared.areas(np.ones(len(self.labels)))]


def best_threshold(probabilities: NDArray[Any], labels: NDArray[Any]) -> float:
    """The threshold with the largest sensitivity + specificity - 1 (Youden 1950), the highest of equals.

    To be chosen on validation images and used on test images: chosen on the test images, it flatters.

    Args:
        probabilities: `(N,)` float, of class 1.
        labels: `(N,)` int, 0 or 1.

    Returns:
        One of `probabilities`; images with at least as much are class 1.

    Raises:
        UserError: the images are of one class.
    """
    from sklearn.metrics import roc_curve

    if len(np.unique(labels)) != 2:
        raise UserError(
            f"The {len(labels)} images to choose a threshold on are all of one class. Give the validation split "
            "images of both classes, for instance by a larger --val-share."
        )
    false, true, thresholds = roc_curve(labels, probabilities, pos_label=1)
    # The curve starts with a threshold of infinity; rounding makes equals equal.
    return float(thresholds[1:][np.argmax(np.round(true - false, 12)[1:])])
