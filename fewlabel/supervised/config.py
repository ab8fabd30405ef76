"""What a user can say about learning with few labels; importing this loads no torch."""

from dataclasses import dataclass, replace
from math import inf
from typing import Final, Literal, Self

from fewlabel.errors import UserError
from fewlabel.training.config import TrainingConfig

__all__ = ["ClassWeights", "FewLabelsConfig", "FinetuneConfig", "ProbeConfig"]

ClassWeights = Literal["none", "balanced"]

_SHARES: Final = ((0.01, 0.1), (0.5,))
"""Of the training labels beside all of them, where the user names none; the second where there are too few for the
first."""
_LEAST_OF_A_CLASS: Final = 2
"""Labels that a share should hold of each class on average."""


@dataclass(frozen=True)
class FewLabelsConfig:
    """How many labels to learn from.

    Raises:
        UserError: a value out of its range, or two that contradict each other.
    """

    labels: tuple[float, ...] = ()
    """Shares of the training labels to learn from. Default: 0.01 0.1 1.0, without what would be fewer than two labels a
    class; 0.5 1.0 where that leaves all of them alone."""
    shots: tuple[int, ...] = ()
    """Labelled images a class, in place of shares, e.g. 1 5 20."""
    draws: int = 5
    """How often each share is drawn, each time other images."""
    ordinal: bool = False
    """The classes are grades in the order of their names: report the quadratic kappa too. Not with several labels an
    image."""

    def __post_init__(self) -> None:
        """Check the ranges, so that a typing error shows before anything is computed."""
        for share in self.labels:
            if not 0 < share <= 1:
                raise UserError(f"--labels has {share:g}; give shares above 0 and at most 1 (0.1 is 10 %).")
        for shots in self.shots:
            if shots < 1:
                raise UserError(f"--shots has {shots}; give numbers of images from 1 on.")
        if self.draws < 1:
            raise UserError(f"--draws is {self.draws}; it must be 1 or more.")
        if self.labels and self.shots:
            raise UserError("--labels and --shots both say how many labels: give one of them.")

    def settled(self, labelled: int, classes: int) -> Self:
        """The same with the default shares filled in, so that a record of it says what was asked.

        Args:
            labelled: training images with a label.
            classes: or labels, where an image may have several.
        """
        if self.labels or self.shots:
            return self
        first, second = (
            [share for share in shares if share * labelled >= _LEAST_OF_A_CLASS * classes] for shares in _SHARES
        )
        return replace(self, labels=(*(first or second), 1.0))


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


@dataclass(frozen=True)
class FinetuneConfig(TrainingConfig):
    """Training of the whole network on the labelled images.

    Raises:
        UserError: a value out of its range.
    """

    epochs: int | None = None
    """Passes over the labelled images. Default: what makes 300 steps, and at least 10 and at most 100."""
    batch_size: int | None = None
    """Images a step, over all processes together. Default: a quarter of the labelled images, and at least 16 and at
    most 64; rounded down to a power of two."""
    optimizer: Literal["auto", "adamw", "lars"] = "auto"
    """auto: adamw."""
    lr: float | None = None
    """Peak learning rate, of the classifier; layers before it have less (see --layer-decay). Default:
    0.003 x sqrt(batch/64) with a convolutional backbone and 0.001 x sqrt(batch/64) with another."""
    weight_decay: float | None = None
    """Default: 0.05. Biases, norms and what the backbone names are exempt."""
    warmup_epochs: float | None = None
    """Epochs of linear warm-up before the cosine. Default: 10, and at most a tenth of the run."""
    seed: int = 0
    """Of the draw of labels, fresh weights, order and views; same seed, same machine, same run."""
    evaluate_steps: int | None = None
    """Steps between evaluations on the validation labels. Default: a twentieth of the run."""
    layer_decay: float | None = None
    """How many times the learning rate of a twelfth of the network's depth is that of the next twelfth. Default: 0.85
    from a trained encoder, 1 from scratch."""
    label_smoothing: float = 0.1
    """Share of each label that is spread evenly over all classes."""
    class_weights: ClassWeights = "none"
    """What an image counts in training: each the same, or "balanced", where each class counts the same."""
    ema_decay: float = 0.999
    """Decay a step of the moving average of the weights, which is the result; smaller in the first steps. 0: no
    average."""
    patience: int = 10
    """Evaluations without better weights, the start's aside, after which training ends early."""
    head: Literal["auto", "probe", "zero"] = "auto"
    """Where the classifier starts: the linear probe of the views' features, or zero weights. auto: probe from a trained
    encoder, zero from scratch."""

    def __post_init__(self) -> None:
        """Check the ranges that don't depend on the data."""
        super().__post_init__()
        for name, value, fits, expected in (
            (
                "layer-decay",
                self.layer_decay,
                self.layer_decay is None or 0 < self.layer_decay <= 1,
                "above 0, up to 1",
            ),
            (
                "label-smoothing",
                self.label_smoothing,
                0 <= self.label_smoothing < 1,
                "from 0 up to, but not including, 1",
            ),
            ("ema-decay", self.ema_decay, 0 <= self.ema_decay < 1, "from 0 up to, but not including, 1"),
            ("patience", self.patience, self.patience >= 1, "from 1 on"),
        ):
            if not fits:
                raise UserError(f"--{name} is {value}; it must be a number {expected}.")
