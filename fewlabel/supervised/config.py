"""What a user can say about learning with few labels; importing this loads no torch."""

from dataclasses import dataclass
from math import inf
from typing import Literal

from fewlabel.errors import UserError

__all__ = ["ClassWeights", "ProbeConfig"]

ClassWeights = Literal["none", "balanced"]


@dataclass(frozen=True)
class ProbeConfig:
    """The linear probe: logistic regression on the frozen encoder's features.

    Raises:
        UserError: a value out of its range.
    """

    penalty: float | None = None
    """L2 penalty on the weights, above 0; 1 / (penalty x labelled images) is scikit-learn's C. Default: the one
    with the least log loss on the validation labels, or without any, in cross-validation on the labelled images."""
    class_weights: ClassWeights = "none"
    """What an image counts in training: each the same, or "balanced", where each class counts the same."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.penalty is not None and not 0 < self.penalty < inf:
            raise UserError(f"--penalty is {self.penalty}; it must be a number above 0, e.g. 0.1.")
