"""What a trained model is worth on images that it did not learn from: one figure, with its interval."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from fewlabel.backbones.featurizer import Featurizer
from fewlabel.data.store import ImageStore
from fewlabel.data.views import TwoViews
from fewlabel.search.images import Images
from fewlabel.ssl.agreement import agreement_on
from fewlabel.supervised.bootstrap import Replicates, difference, interval, replicates, resamples
from fewlabel.supervised.classifier import Classifier
from fewlabel.supervised.linear_probe import choose_penalty, fit_probe
from fewlabel.supervised.metrics import Predictions
from fewlabel.supervised.subsets import fractions_of
from fewlabel.training.features import Interval, extract_features

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Comparison", "Judge", "Judgement", "Kind", "Probe", "by_agreement", "by_labels", "compare"]

Kind = Literal["probe", "supervised", "knn"]

_FOLDED: Final = 1000
"""Labelled images from which a fifth of them, held out once, chooses the probe's penalty: five folds of so many would
take as long as the training that is judged."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """A model's figure on some images."""

    value: float
    """The greater the better, at most 1."""
    figures: dict[str, float]
    """Others of the same images, by name."""
    replicates: Callable[[], Replicates]
    """The bootstrap of `value` over images, or over groups of them; the same draws for every model."""

    def interval(self) -> Interval:
        """`value` with its 95 % interval."""
        mean, values = self.replicates()
        return interval(values, mean)


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images."""

    figure: str
    """What is compared: "accuracy", "auroc" or "agreement"."""
    winner: Interval
    base: Interval
    difference: Interval
    """By how much the winner is above the base, each resample of the images judging both."""
    images: int


def compare(figure: str, winner: Judgement, base: Judgement, images: int) -> Comparison:
    """Two judgements of the same images side by side."""
    mine, other = winner.replicates(), base.replicates()
    return Comparison(figure, winner.interval(), base.interval(), difference(mine, other), images)


def by_labels(probabilities: Tensor, images: Images, seed: int) -> Judgement:
    """Accuracy, or the mean AUROC of several labels an image.

    Args:
        probabilities: `(N, K)`, as `Predictions` takes them.
        images: N labelled ones, fit to judge.
        seed: of the bootstrap.
    """
    labels, groups = images.labels.numpy(), images.groups
    said = Predictions(probabilities.double().numpy(), labels, threshold=None, ordinal=False)
    figures = said.figures()
    if labels.ndim == 2:
        return Judgement(figures["auroc"], figures, lambda: replicates([said], groups, seed=seed)["auroc"])
    hits = (said.probabilities.argmax(axis=1) == labels).astype(np.float64)
    return Judgement(figures["accuracy"], figures, lambda: _means(hits, groups, labels, seed))


def by_agreement(shares: Tensor, images: Images, seed: int) -> Judgement:
    """The mean of `shares` (N,), as `agreement_on` has them, of N images.

    That the images are each other's neighbours is left out of the interval, which is therefore somewhat narrow.
    """
    values = shares.double().numpy()
    alike = np.zeros(len(values), np.int64)
    return Judgement(float(values.mean()), {}, lambda: _means(values, images.groups, alike, seed))


def _means(values: NDArray[np.float64], groups: list[str] | None, labels: NDArray[np.int64], seed: int) -> Replicates:
    drawn = resamples(len(values), groups, labels, seed=seed)
    return float(values.mean()), np.array([values[places].mean() for places in drawn])


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear probe of any features, always on the same labelled images."""

    labelled: Tensor
    """(n,) int64 positions in the training store."""
    held_out: Tensor | None
    """(m,) int64 places among these that choose the penalty; None: cross-validation does."""
    seed: int

    @classmethod
    def on(cls, train: ImageStore, labelled: Tensor, seed: int) -> Self:
        """The probe on the images `labelled` of `train`; a fifth of many is held out, by class and by group."""
        if len(labelled) < _FOLDED:
            return cls(labelled, None, seed)
        few = Images(train, labelled)
        names = [train.ids[place] for place in labelled.tolist()]
        return cls(labelled, fractions_of(names, few.labels, few.groups, [0.2], 1, seed)[0].indices, seed)

    def probabilities(
        self, featurizer: nn.Module, train: ImageStore, images: Images, classes: int, accelerator: "Accelerator"
    ) -> Tensor:
        """What the probe of `featurizer`'s features says of `images`: `(N, K)` float64.

        Args:
            featurizer: raw pixels to features; every process must call this, and gets the same.
            train: the store of the labelled images, of any side.
            images: to judge by; their labels are not looked at.
            classes: K, of classes or labels.
            accelerator: its processes share the work.

        Raises:
            Diverged: a feature is not finite.
            UserError: the labelled images are of one class.
        """
        few = Images(train, self.labelled)
        features = extract_features(featurizer, train, self.labelled, accelerator)
        asked = extract_features(featurizer, images.store, images.places, accelerator)
        # How many threads share a sum decides its last bits, and a search is to find the same beside other workers.
        with threadpool_limits(1):
            penalty = self._penalty(features, few)
            fitted = fit_probe(features, few.labels, classes, penalty=penalty, class_weights="none")
        return fitted.probabilities(asked)

    def _penalty(self, features: Tensor, few: Images) -> float:
        labels, groups = few.labels, few.groups
        validation = None
        if self.held_out is not None:
            kept = torch.ones(len(labels), dtype=torch.bool)
            kept[self.held_out] = False
            validation = features[~kept], labels[~kept]
            features, labels, groups = features[kept], labels[kept], None
        chosen = choose_penalty(features, labels, groups, class_weights="none", validation=validation, seed=self.seed)
        return chosen.value


@dataclass(frozen=True, eq=False)
class Judge:
    """Judges every model in the same way, at a step of its training as at its end."""

    kind: Kind
    """See `Objective`."""
    classes: int
    """Classes or labels; 0 where they don't matter."""
    probe: Probe | None
    """Of kind "probe"."""
    views: Callable[[int], TwoViews]
    """Of kind "knn": what makes views of so many pixels a side, on the scale from 0 to 1."""
    accelerator: "Accelerator"
    seed: int
    """Of views, folds and the bootstrap."""

    def __call__(self, model: Featurizer | Classifier, train: ImageStore, images: Images) -> Judgement:
        """What `model` is worth on `images`; every process must call this, and gets the same.

        Args:
            model: a classifier of kind "supervised", else what has the features; on the accelerator's device.
            train: the training images, of any side.
            images: fit to judge.

        Raises:
            Diverged: it has features or probabilities that are no finite numbers.
        """
        accelerator, seed = self.accelerator, self.seed
        if isinstance(model, Classifier):
            return by_labels(extract_features(model, images.store, images.places, accelerator), images, seed)
        if self.probe is not None:
            said = self.probe.probabilities(model, train, images, self.classes, accelerator)
            return by_labels(said, images, seed)
        views = self.views(model.image_size)
        shares = agreement_on(model, views, images.store, images.places, accelerator, seed=seed)
        return by_agreement(shares, images, seed)
