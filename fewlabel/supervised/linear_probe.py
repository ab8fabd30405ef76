"""The linear probe: logistic regression on frozen features, solved to convergence, its penalty chosen without test."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fewlabel.data.splits import strata_of
from fewlabel.errors import UserError
from fewlabel.supervised.config import ClassWeights
from fewlabel.supervised.logistic import ClassTargets, LabelTargets, Regression

__all__ = ["LinearProbe", "Penalty", "choose_penalty", "constant_labels", "fit_probe", "targets_of"]

_GRID: Final = np.logspace(0, -7, 8)
"""Penalties to choose from, per column, as the squared length of a standardised feature is D on average."""

_DEFAULT: Final = 1e-3
"""The penalty per column where nothing can be held out: near the best for one image a class of handwritten digits."""

_FOLDS: Final = 5

_ABSENT: Final = -1e4
"""A logit that softmax and sigmoid turn into exactly 0, and that half precision can hold."""

_EXACT: Final = 1e-7
"""The gradient, in units of `Regression.fit`, below which a solution is one: the objective is then minimal to 1e-12."""

_COMPARABLE: Final = 1e-4
"""The same where solutions are only compared by their losses."""


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier of raw features; made by `fit_probe`."""

    weight: Tensor
    """(K, D) float64."""
    bias: Tensor
    """(K,) float64."""
    multi_label: bool = False
    """Whether the K outputs are labels, of which an image may have several, and not classes."""

    def probabilities(self, features: Tensor) -> Tensor:
        """`(M, K)` float64 probabilities for `(M, D)` float features.

        Of classes they have the sum 1, and one without labels has 0; of labels each is that of a yes.
        """
        logits = features.double() @ self.weight.T + self.bias
        return logits.sigmoid() if self.multi_label else logits.softmax(dim=1)

    def as_linear(self) -> nn.Linear:
        """The same classifier as a float32 layer, to start fine-tuning from (Kumar et al. 2022, LP-FT).

        Its logits are those of `probabilities`. A class without labels has weights of 0 and a bias of -10,000.
        """
        classes, width = self.weight.shape
        linear = nn.Linear(width, classes)
        linear.load_state_dict({"weight": self.weight, "bias": self.bias})
        return linear


class Penalty(NamedTuple):
    """A penalty for `fit_probe`, and what it was chosen by."""

    value: float
    how: str
    """"validation", "5-fold cross-validation" (of as many folds as there were), "fixed" where no image could be held
    out, or "given" by the user."""


def fit_probe(
    features: Tensor, labels: Tensor, classes: int, *, penalty: float, class_weights: ClassWeights
) -> LinearProbe:
    """Logistic regression on standardised features, to convergence: multinomial, or a binary one for each label.

    Minimises the mean cross-entropy + penalty / 2 * ||W||^2, with W the weights of the features less their mean
    and divided by their standard deviation, both of `features`; the biases go free. A constant column has no
    weight. That is scikit-learn's `LogisticRegression` on `StandardScaler` with C = 1 / (penalty * N), where N are
    the images whose label is known; with two classes, where it has a single row of weights, C = 2 / (penalty * N).

    Args:
        features: `(N, D)` float, on the CPU.
        labels: `(N,)` int64, 0 to classes - 1: a class may be absent, and its probability is 0. Or, of several labels
            an image, `(N, K)` of 1 (yes), 0 (no) and -1 (unknown): one that is always yes or always no gets that
            rate, 1 or 0, as its probability for any image, and one that is never known 0.5.
        classes: K.
        penalty: above 0.
        class_weights: "balanced" weights an image by N / (present classes * images of its class).

    Raises:
        UserError: the labels are of one class, or a feature is NaN or infinite.
        ValueError: the labels or the penalty are not as above.
    """
    if not 0 < penalty < inf:
        raise ValueError(f"the penalty must be above 0, not {penalty}")
    _check(features, labels)
    multi_label = labels.ndim == 2
    if multi_label and labels.shape[1] != classes:
        raise ValueError(f"expected labels (N, {classes}), not {tuple(labels.shape)}")
    if not multi_label and labels.max() >= classes:
        raise ValueError(f"a label is {labels.max()}, and there are {classes} classes")
    weight = torch.zeros(classes, features.shape[1], dtype=torch.float64)
    bias = torch.full((classes,), _ABSENT, dtype=torch.float64)
    if multi_label:
        bias[(labels == 1).any(dim=0)] = -_ABSENT
        bias[(labels < 0).all(dim=0)] = 0
    else:
        _check_classes(labels)
    targets = targets_of(labels, class_weights)
    if targets is not None:
        regression = Regression(features.double().numpy(), targets)
        rows, biases = map(torch.from_numpy, regression.raw(regression.fit(penalty, _EXACT)))
        if not multi_label:
            # Softmax is blind to what all classes have in common.
            rows, biases = rows - rows.mean(dim=0), biases - biases.mean()
        weight[targets.outputs], bias[targets.outputs] = rows, biases
    return LinearProbe(weight, bias, multi_label)


def constant_labels(labels: Tensor) -> list[int]:
    """Those of K labels that are always yes, always no or unknown in `labels`, (N, K) of 1, 0 and -1."""
    both = (labels == 1).any(dim=0) & (labels == 0).any(dim=0)
    return [int(place) for place in (~both).nonzero().flatten()]


def choose_penalty(
    features: Tensor,
    labels: Tensor,
    groups: Sequence[str] | None,
    *,
    class_weights: ClassWeights,
    validation: tuple[Tensor, Tensor] | None,
    seed: int,
) -> Penalty:
    """The penalty for `fit_probe` with the least log loss on held-out images, from a logarithmic grid.

    Held out are the `validation` images, or where there are none, five folds of the labelled images, stratified
    by class and with each group in one fold; fewer where only one class has so many groups. Images of several labels
    are stratified by their rarest, and the losses of all labels are summed. An image of a class that isn't trained
    on tells nothing and is left out, and so is a label that is always yes or no. Where none is left, as with one
    image a class, the penalty is a fixed one. Of equals, the largest is taken.

    Args:
        features: `(N, D)` float, of the labelled images alone, in an order that is always the same.
        labels: as for `fit_probe`.
        groups: the group of each image, or None where each stands for itself.
        class_weights: as for `fit_probe`; the log loss is weighted likewise.
        validation: `(M, D)` features and labels of M images to choose by, never those of test.
        seed: of the folds.

    Raises:
        UserError: the labels are of one class, or a feature is NaN or infinite.
        ValueError: the labels are not as above.
    """
    _check(features, labels)
    if labels.ndim == 1:
        _check_classes(labels)
    if validation is not None:
        _check(*validation)
    width = features.shape[1]
    losses, used = np.zeros(len(_GRID)), 0
    held_out = _folds(features, labels, groups, seed) if validation is None else [(features, labels, *validation)]
    for train, train_labels, held, held_labels in held_out:
        targets = targets_of(train_labels, class_weights)
        if targets is None:
            continue
        held_targets = targets.for_others(held_labels.numpy())
        if held_targets.weights.any():
            regression = Regression(train.double().numpy(), targets)
            losses += regression.path_losses(width * _GRID, _COMPARABLE, held.double().numpy(), held_targets)
            used += 1
    if not used:
        return Penalty(width * _DEFAULT, "fixed")
    how = f"{used}-fold cross-validation" if validation is None else "validation"
    return Penalty(float(width * _GRID[np.argmin(losses)]), how)


def targets_of(labels: Tensor, class_weights: ClassWeights) -> ClassTargets | LabelTargets | None:
    """What to train towards, from labels as for `fit_probe`; None where all images say the same."""
    if labels.ndim == 2:
        several = LabelTargets.trained_on(labels.numpy(), class_weights)
        return several if len(several.outputs) else None
    single = ClassTargets.trained_on(labels.numpy(), class_weights)
    return single if len(single.outputs) > 1 else None


def _folds(
    features: Tensor, labels: Tensor, groups: Sequence[str] | None, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Features and labels to train on and to hold out."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    strata = labels.numpy() if labels.ndim == 1 else strata_of(labels.numpy())
    units = np.arange(len(strata)) if groups is None else np.asarray(groups)
    group_counts = sorted(len(np.unique(units[strata == stratum])) for stratum in np.unique(strata))
    folds = min(_FOLDS, group_counts[-2]) if len(group_counts) > 1 else 0
    if folds < 2:
        return
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    splitter = kind(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        divided = list(splitter.split(strata, strata, groups))
    for kept, held in divided:
        yield features[kept], labels[kept], features[held], labels[held]


def _check(features: Tensor, labels: Tensor) -> None:
    least, most = (0, inf) if labels.ndim == 1 else (-1, 1)
    if features.ndim != 2 or len(labels) != len(features) or not bool(((labels >= least) & (labels <= most)).all()):
        raise ValueError(
            f"expected (N, D) features and N labels of {least} to {most}, not {tuple(features.shape)} and "
            f"{tuple(labels.shape)} from {labels.min()} to {labels.max()}"
        )
    bad = int((~features.isfinite().all(dim=1)).sum())
    if bad:
        raise UserError(
            f"The features of {bad} of {len(features)} images are NaN or infinite. The encoder's weights are spoilt: "
            "go back to an earlier checkpoint or train with a lower --lr."
        )


def _check_classes(labels: Tensor) -> None:
    if len(np.unique(labels)) < 2:
        raise UserError(
            f"The {len(labels)} labelled images are all of one class; a classifier needs two at least. "
            "Label images of another class, or draw more: a larger share of --labels or more --shots."
        )
