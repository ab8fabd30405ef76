"""Logistic regression with an L2 penalty, solved to convergence: one of several classes, or several yes or no."""

from typing import Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from fewlabel.console import console
from fewlabel.supervised.config import ClassWeights

__all__ = ["ClassTargets", "LabelTargets", "Regression", "Targets"]

_RESTARTS: Final = 40
_ITERATIONS: Final = 50


class Targets(Protocol):
    """What the logits of N images should say."""

    outputs: NDArray[np.int64]
    """(R,) numbers of the classes or labels that were trained on: each has a row of weights."""
    weights: NDArray[np.float64]
    """(N, 1) or (N, R): what each image counts, 0 where it tells nothing of the outputs."""

    def losses_and_slopes(self, logits: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The log losses, of the shape of `weights`, and their derivatives by the `(N, R)` logits."""

    def for_others(self, labels: NDArray[np.int64]) -> Self:
        """The targets of other images, which count as those trained on do."""


class ClassTargets:
    """One class an image, by softmax; made by `trained_on`."""

    def __init__(
        self, labels: NDArray[np.int64], outputs: NDArray[np.int64], class_weights: NDArray[np.float64]
    ) -> None:
        self.outputs, self._class_weights = outputs, class_weights
        self._places = np.minimum(np.searchsorted(outputs, labels), len(outputs) - 1)
        self.weights = np.where(outputs[self._places] == labels, class_weights[self._places], 0)[:, None]

    @classmethod
    def trained_on(cls, labels: NDArray[np.int64], class_weights: ClassWeights) -> Self:
        """The targets of images with the class numbers `labels`, (N,)."""
        outputs, counts = np.unique(labels, return_counts=True)
        balanced = class_weights == "balanced"
        return cls(labels, outputs, len(labels) / len(counts) / counts if balanced else np.ones(len(counts)))

    def for_others(self, labels: NDArray[np.int64]) -> Self:
        """The targets of other images; one of a class that was not trained on counts nothing."""
        return type(self)(labels, self.outputs, self._class_weights)

    def losses_and_slopes(self, logits: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """As `Targets` has it; the losses are `(N, 1)`."""
        shifted = logits - logits.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        rows, slopes = np.arange(len(logs)), np.exp(logs)
        slopes[rows, self._places] -= 1
        return -logs[rows, self._places][:, None], slopes


class LabelTargets:
    """Several labels an image, yes or no, by a sigmoid each; made by `trained_on`."""

    def __init__(
        self, labels: NDArray[np.int64], outputs: NDArray[np.int64], value_weights: NDArray[np.float64]
    ) -> None:
        self.outputs, self._value_weights = outputs, value_weights
        labels = labels[:, outputs]
        self._yes = (labels == 1).astype(np.float64)
        self.weights = np.where(labels < 0, 0, np.where(labels == 1, value_weights[1], value_weights[0]))

    @classmethod
    def trained_on(cls, labels: NDArray[np.int64], class_weights: ClassWeights) -> Self:
        """The targets of images with `labels`, (N, K) of 1, 0 and -1; one that is always yes or no has no row."""
        counts = np.stack([(labels == value).sum(axis=0) for value in (0, 1)])
        outputs = np.flatnonzero(counts.all(axis=0))
        counts = counts[:, outputs]
        balanced = class_weights == "balanced"
        return cls(labels, outputs, counts.sum(axis=0) / 2 / counts if balanced else np.ones(counts.shape))

    def for_others(self, labels: NDArray[np.int64]) -> Self:
        """The targets of other images."""
        return type(self)(labels, self.outputs, self._value_weights)

    def losses_and_slopes(self, logits: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """As `Targets` has it; the losses are `(N, R)`."""
        return np.logaddexp(0, logits) - self._yes * logits, expit(logits) - self._yes


class Regression:
    """Features with their targets, standardised and turned onto their principal axes.

    The objective is the mean loss of the images that count, summed over the columns of `targets.weights`, and the
    penalty. The penalty is the same on any orthonormal axes, and where N < D the weights lie in the span of the rows
    (Hastie et al. 2009, section 18.3.5), so the solution is the same. Columns without correlation are what a
    diagonal preconditioner needs, and with it few steps do.

    Args:
        features: `(N, D)`.
        targets: of these images.
    """

    def __init__(self, features: NDArray[np.float64], targets: Targets) -> None:
        self.targets = targets
        self._weights = targets.weights / np.count_nonzero(targets.weights, axis=0)
        self._mean, deviation = features.mean(axis=0), features.std(axis=0)
        # A deviation within float32's rounding is none.
        constant = deviation <= 1e-6 * np.abs(self._mean)
        self._scale = np.where(constant, 0, 1 / np.where(constant, 1, deviation))
        standard = (features - self._mean) * self._scale
        if len(standard) < standard.shape[1]:
            self._axes = np.linalg.svd(standard, full_matrices=False)[2].T
        else:
            self._axes = np.linalg.eigh(standard.T @ standard)[1]
        self._columns = _with_ones(standard @ self._axes)
        self._moments = np.square(self._columns).mean(axis=0)

    def fit(self, penalty: float, tolerance: float, start: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """The `(R, axes + 1)` weights and, last, biases that minimise the objective.

        L-BFGS from `start`, in units that bring the Hessian near the identity and are taken anew every 50 steps,
        until no element of the gradient in these units is above `tolerance`.
        """
        shape = len(self.targets.outputs), self._columns.shape[1]
        penalties = np.append(np.full(shape[1] - 1, penalty), 0)
        found = np.zeros(shape) if start is None else start
        for _ in range(_RESTARTS):
            slopes = np.abs(self.targets.losses_and_slopes(self._columns @ found.T)[1])
            # A slope is p or p - 1, and p (1 - p) the curvature.
            spread = (self._weights * slopes * (1 - slopes)).sum(axis=0)
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
        return found

    def path_losses(
        self, penalties: NDArray[np.float64], tolerance: float, features: NDArray[np.float64], held: Targets
    ) -> NDArray[np.float64]:
        """The summed, weighted log loss on `held`, the targets of other `features`, by penalty from large to small."""
        columns = _with_ones((features - self._mean) * self._scale @ self._axes)
        found, losses = None, []
        for penalty in penalties:
            found = self.fit(penalty, tolerance, found)
            losses.append((held.weights * held.losses_and_slopes(columns @ found.T)[0]).sum())
        return np.array(losses)

    def raw(self, found: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weights `(R, D)` and biases `(R,)` for features as they come, from those of `fit`."""
        weight = found[:, :-1] @ self._axes.T * self._scale
        return weight, found[:, -1] - weight @ self._mean

    def _objective(
        self, point: NDArray[np.float64], units: NDArray[np.float64], penalties: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64]]:
        """The objective and its gradient by `point`, which is the weights times `units`."""
        found = point.reshape(units.shape) / units
        losses, slopes = self.targets.losses_and_slopes(self._columns @ found.T)
        value = (self._weights * losses).sum() + (penalties * found**2).sum() / 2
        slopes *= self._weights
        return value, ((slopes.T @ self._columns + penalties * found) / units).ravel()


def _with_ones(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([columns, np.ones(len(columns))])
