"""From epochs to steps, once; and the learning rate of each step."""

import math
from dataclasses import dataclass, replace
from typing import TypeVar

from fewlabel.errors import UserError
from fewlabel.training.config import TrainingConfig

__all__ = ["Plan", "default_batch_size", "plan_steps", "settle_durations", "warmup_cosine"]

Config = TypeVar("Config", bound=TrainingConfig)

DEFAULT_EPOCHS = 100
"""Of a source that suggests none: the shortest schedule that the SimCLR paper reports (appendix B.1)."""


@dataclass(frozen=True)
class Plan:
    """A run's durations in optimiser steps, the only unit inside the loop."""

    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    checkpoint_steps: int
    evaluate_steps: int


def default_batch_size(images: int, image_size: int, processes: int) -> int:
    """Images a step when the user names none: a power of two that leaves at least 16 steps an epoch.

    Fewer images a step mean fewer negatives, but small sets gain more from more steps.

    Args:
        images: in the training split.
        image_size: pixels; above 96 the activations of 2 x 256 views outgrow common memories, hence 64.
        processes: the result is a multiple, of at least two images for each.
    """
    largest = 256 if image_size <= 96 else 64
    wanted = min(largest, max(images // 16, 8), images)
    batch = 1 << int(math.log2(wanted))
    return max(batch // processes, 2) * processes


def plan_steps(config: TrainingConfig, steps_per_epoch: int, suggested_epochs: int | None) -> Plan:
    """Convert every duration of `config` to steps.

    Args:
        config: durations as the user gave them.
        steps_per_epoch: full batches in the training split.
        suggested_epochs: the source's own suggestion, where it has one.

    Raises:
        UserError: the warm-up is longer than the run.
    """
    if config.max_steps is not None:
        total = config.max_steps
    else:
        total = (config.epochs or suggested_epochs or DEFAULT_EPOCHS) * steps_per_epoch
    if config.warmup_epochs is None:
        warmup = min(10 * steps_per_epoch, total // 10)
    else:
        warmup = round(config.warmup_epochs * steps_per_epoch)
        if warmup > total:
            raise UserError(
                f"--warmup-epochs {config.warmup_epochs} is {warmup} steps, but the run has {total}. "
                "Shorten the warm-up or lengthen the run."
            )
    return Plan(
        steps_per_epoch=steps_per_epoch,
        total_steps=total,
        warmup_steps=warmup,
        checkpoint_steps=config.checkpoint_steps or max(steps_per_epoch, 50),
        evaluate_steps=config.evaluate_steps or max(steps_per_epoch, math.ceil(total / 10)),
    )


def settle_durations(config: Config, plan: Plan) -> Config:
    """`config` with the durations that the user left open, so that `plan_steps` gives `plan` from it again."""
    return replace(
        config,
        warmup_epochs=plan.warmup_steps / plan.steps_per_epoch,
        checkpoint_steps=plan.checkpoint_steps,
        evaluate_steps=plan.evaluate_steps,
    )


def warmup_cosine(step: int, plan: Plan) -> float:
    """The share of the peak learning rate for the step with this zero-based number.

    Linear from 1/warmup to 1, then a cosine without restarts to 0 at the end (SimCLR, section 2.1).
    """
    if step < plan.warmup_steps:
        return (step + 1) / plan.warmup_steps
    progress = (step - plan.warmup_steps) / max(1, plan.total_steps - plan.warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
