"""The linear probe: logistic regression on frozen features, solved to convergence, its penalty chosen without test."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewlabel.console import console
from fewlabel.errors import UserError
from fewlabel.supervised.config import ClassWeights

__all__ = ["LinearProbe", "choose_penalty", "fit_probe"]

_GRID: Final = np.logspace(0, -7, 8)
"""Penalties to choose from, per column, as the squared length of a standardised feature is D on average."""

_DEFAULT: Final = 1e-3
"""The penalty per column where nothing can be held out: near the best for one image a class of handwritten digits."""

_FOLDS: Final = 5

_ABSENT: Final = -1e4
"""A logit that softmax turns into exactly 0, and that half precision can hold."""

_EXACT: Final = 1e-7
"""The gradient, in units of `_Training.fit`, below which a solution is one: the objective is then minimal to 1e-12."""

_COMPARABLE: Final = 1e-4
"""The same where solutions are only compared by their losses."""

_RESTARTS: Final = 40
_ITERATIONS: Final = 50


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier of raw features; made by `fit_probe`."""

    weight: Tensor
    """(K, D) float64."""
    bias: Tensor
    """(K,) float64."""

    def probabilities(self, features: Tensor) -> Tensor:
        """`(M, K)` float64 probabilities of the classes for `(M, D)` float features; 0 for one without labels."""
        return torch.softmax(features.double() @ self.weight.T + self.bias, dim=1)

    def as_linear(self) -> nn.Linear:
        """The same classifier as a float32 layer, to start fine-tuning from (Kumar et al. 2022, LP-FT).

        Its logits are those of `probabilities`. A class without labels has weights of 0 and a bias of -10,000.
        """
        classes, width = self.weight.shape
        linear = nn.Linear(width, classes)
        linear.load_state_dict({"weight": self.weight, "bias": self.bias})
        return linear


def fit_probe(
    features: Tensor, labels: Tensor, classes: int, *, penalty: float, class_weights: ClassWeights
) -> LinearProbe:
    """Multinomial logistic regression on standardised features, to convergence.

    Minimises the mean cross-entropy + penalty / 2 * ||W||^2, with W the weights of the features less their mean
    and divided by their standard deviation, both of `features`; the biases go free. A constant column has no
    weight. That is scikit-learn's `LogisticRegression` on `StandardScaler` with C = 1 / (penalty * N); with two
    classes, where it has a single row of weights, C = 2 / (penalty * N).

    Args:
        features: `(N, D)` float, on the CPU.
        labels: `(N,)` int64, 0 to classes - 1. A class may be absent: its probability is 0.
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
    if labels.max() >= classes:
        raise ValueError(f"a label is {labels.max()}, and there are {classes} classes")
    _check_classes(labels)
    training = _Training(features, labels, class_weights)
    weight = torch.zeros(classes, features.shape[1], dtype=torch.float64)
    bias = torch.full((classes,), _ABSENT, dtype=torch.float64)
    weight[training.present], bias[training.present] = training.raw(training.fit(penalty, _EXACT))
    return LinearProbe(weight, bias)


def choose_penalty(
    features: Tensor,
    labels: Tensor,
    groups: Sequence[str] | None,
    *,
    class_weights: ClassWeights,
    validation: tuple[Tensor, Tensor] | None,
    seed: int,
) -> float:
    """The penalty for `fit_probe` with the least log loss on held-out images, from a logarithmic grid.

    Held out are the `validation` images, or where there are none, five folds of the labelled images, stratified
    by class and with each group in one fold; fewer where only one class has so many groups. An image of a class
    that isn't trained on tells nothing and is left out. Where none is left, as with one image a class, the
    penalty is a fixed one. Of equals, the largest is taken.

    Args:
        features: `(N, D)` float, of the labelled images alone, in an order that is always the same.
        labels: `(N,)` int64, at least 0.
        groups: the group of each image, or None where each stands for itself.
        class_weights: as for `fit_probe`; the log loss is weighted likewise.
        validation: `(M, D)` features and `(M,)` labels of images to choose by, never those of test.
        seed: of the folds.

    Raises:
        UserError: the labels are of one class, or a feature is NaN or infinite.
        ValueError: a label is below 0.
    """
    _check(features, labels)
    _check_classes(labels)
    if validation is not None:
        _check(*validation)
    width = features.shape[1]
    losses, weight = np.zeros(len(_GRID)), 0.0
    held_out = _folds(features, labels, groups, seed) if validation is None else [(features, labels, *validation)]
    for train, train_labels, held, held_labels in held_out:
        known = torch.isin(held_labels, train_labels)
        if not known.any() or len(np.unique(train_labels)) < 2:
            continue
        training = _Training(train, train_labels, class_weights)
        fold_losses, fold_weight = training.path_losses(width * _GRID, held[known], held_labels[known])
        losses, weight = losses + fold_losses, weight + fold_weight
    return float(width * (_GRID[np.argmin(losses)] if weight else _DEFAULT))


class _Training:
    """Labelled features, standardised and turned onto their principal axes.

    The penalty is the same on any orthonormal axes, and where N < D the weights lie in the span of the rows
    (Hastie et al. 2009, section 18.3.5), so the solution is the same. Columns without correlation are what a
    diagonal preconditioner needs, and with it few steps do.
    """

    def __init__(self, features: Tensor, labels: Tensor, class_weights: ClassWeights) -> None:
        self.present, self._targets = np.unique(labels.numpy(), return_inverse=True)
        number, counts = len(labels), np.bincount(self._targets)
        self._class_weights = number / len(counts) / counts if class_weights == "balanced" else np.ones(len(counts))
        self._weights = self._class_weights[self._targets] / number
        columns = features.double().numpy()
        self._mean, deviation = columns.mean(axis=0), columns.std(axis=0)
        # A deviation within float32's rounding is none.
        constant = deviation <= 1e-6 * np.abs(self._mean)
        self._scale = np.where(constant, 0, 1 / np.where(constant, 1, deviation))
        standard = (columns - self._mean) * self._scale
        if number < standard.shape[1]:
            self._axes = np.linalg.svd(standard, full_matrices=False)[2].T
        else:
            self._axes = np.linalg.eigh(standard.T @ standard)[1]
        self._columns = _with_ones(standard @ self._axes)
        self._moments = np.square(self._columns).mean(axis=0)

    def fit(self, penalty: float, tolerance: float, start: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """The `(present classes, axes + 1)` weights and, last, biases that minimise the objective.

        L-BFGS from `start`, in units that bring the Hessian near the identity and are taken anew every 50 steps,
        until no element of the gradient in these units is above `tolerance`.
        """
        from scipy.optimize import minimize

        shape = len(self.present), self._columns.shape[1]
        penalties = np.append(np.full(shape[1] - 1, penalty), 0)
        found = np.zeros(shape) if start is None else start
        for _ in range(_RESTARTS):
            probabilities = np.exp(_log_softmax(self._columns @ found.T))
            spread = self._weights @ (probabilities * (1 - probabilities))
            units = np.sqrt(np.maximum(spread, 1e-6)[:, None] * self._moments + penalties)
            result = minimize(
                self._objective,
                (found * units).ravel(),
                (units, penalties),
                method="L-BFGS-B",
                jac=True,
                options={"maxiter": _ITERATIONS, "gtol": tolerance, "ftol": 0, "maxcor": 20, "maxls": 50},
            )
            found = result.x.reshape(shape) / units
            if np.abs(result.jac).max() <= tolerance:
                break
        else:
            console.print(
                f"The linear probe has not converged in {_RESTARTS * _ITERATIONS} steps with a penalty of {penalty:g}: "
                "its figures may be off. Give it a larger --penalty.",
                style="yellow",
            )
        centred: NDArray[np.float64] = found - found.mean(axis=0)
        return centred

    def path_losses(
        self, penalties: NDArray[np.float64], features: Tensor, labels: Tensor
    ) -> tuple[NDArray[np.float64], float]:
        """The summed log loss on images of the classes present, by penalty from large to small; and their weight."""
        columns = _with_ones((features.double().numpy() - self._mean) * self._scale @ self._axes)
        targets = np.searchsorted(self.present, labels.numpy())
        weights = self._class_weights[targets]
        found, losses = None, []
        for penalty in penalties:
            found = self.fit(penalty, _COMPARABLE, found)
            losses.append(-weights @ _log_softmax(columns @ found.T)[np.arange(len(targets)), targets])
        return np.array(losses), float(weights.sum())

    def raw(self, found: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """Weights and biases for features as they come, from those of `fit`."""
        weight = found[:, :-1] @ self._axes.T * self._scale
        return torch.from_numpy(weight), torch.from_numpy(found[:, -1] - weight @ self._mean)

    def _objective(
        self, point: NDArray[np.float64], units: NDArray[np.float64], penalties: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64]]:
        """The objective and its gradient by `point`, which is the weights times `units`."""
        found = point.reshape(units.shape) / units
        logs = _log_softmax(self._columns @ found.T)
        rows = np.arange(len(logs))
        value = -self._weights @ logs[rows, self._targets] + (penalties * found**2).sum() / 2
        residuals = np.exp(logs)
        residuals[rows, self._targets] -= 1
        residuals *= self._weights[:, None]
        return value, ((residuals.T @ self._columns + penalties * found) / units).ravel()


def _with_ones(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([columns, np.ones(len(columns))])


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))  # type: ignore[no-any-return]


def _folds(
    features: Tensor, labels: Tensor, groups: Sequence[str] | None, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Features and labels to train on and to hold out."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    units = np.arange(len(labels)) if groups is None else np.asarray(groups)
    group_counts = sorted(len(np.unique(units[labels.numpy() == label])) for label in np.unique(labels))
    folds = min(_FOLDS, group_counts[-2])
    if folds < 2:
        return
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    splitter = kind(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        divided = list(splitter.split(labels, labels, groups))
    for kept, held in divided:
        yield features[kept], labels[kept], features[held], labels[held]


def _check(features: Tensor, labels: Tensor) -> None:
    if features.ndim != 2 or labels.shape != features.shape[:1] or bool((labels < 0).any()):
        raise ValueError(
            f"expected (N, D) features and N labels of 0 or more, not {tuple(features.shape)} and "
            f"{tuple(labels.shape)} from {labels.min()}"
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
