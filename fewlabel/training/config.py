"""What a user can say about training; durations become steps in `schedule.plan_steps`, once."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Precision", "TrainingConfig"]

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class TrainingConfig:
    """Optimisation, duration, precision and processes."""

    epochs: int | None = None
    """Passes over the training images. Default: what the source suggests, else 100."""
    max_steps: int | None = None
    """Optimiser steps in all, instead of --epochs."""
    batch_size: int | None = None
    """Images a step, over all processes together; each gives two views. Default: 256 up to 96 px, else 64, and at
    most a sixteenth of the images."""
    optimizer: Literal["auto", "adamw", "lars"] = "auto"
    """auto: lars from 1024 images a step on, as in the SimCLR paper, adamw below."""
    lr: float | None = None
    """Peak learning rate. Default: 0.3 x batch/256 for lars, for adamw
    0.003 x sqrt(batch/256) with a convolutional backbone and 0.001 x sqrt(batch/256) with another."""
    weight_decay: float | None = None
    """Default: 1e-6 for lars, 0.01 for adamw. Biases, norms and what the backbone names are exempt."""
    warmup_epochs: float | None = None
    """Epochs of linear warm-up before the cosine. Default: 10, and at most a tenth of the run."""
    clip_grad_norm: float = 5.0
    """Largest gradient norm; 0 turns clipping off."""
    precision: Precision = "auto"
    """auto: bf16 on a GPU or CPU that computes in it, fp16 on an older GPU, else fp32."""
    compile: bool = False
    """Compile the backbone with torch.compile: a slow first step, then faster ones on most GPUs."""
    seed: int = 0
    """Of initial weights, order and views; same seed, same machine, same run."""
    processes: int | None = None
    """Processes to train with, one a GPU. Default: one, or as many as the launcher started."""
    checkpoint_steps: int | None = None
    """Steps between checkpoints. Default: an epoch, and at least 50 steps."""
    evaluate_steps: int | None = None
    """Steps between evaluations of the features. Default: a tenth of the run, and at least an epoch."""

    def __post_init__(self) -> None:
        """Check the ranges that don't depend on the data."""
        from fewlabel.errors import UserError

        if self.epochs is not None and self.max_steps is not None:
            raise UserError("--epochs and --max-steps both set the duration: give one of them.")
        for name, least in (("epochs", 1), ("max_steps", 1), ("batch_size", 2), ("processes", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name.replace('_', '-')} is {value}; it must be {least} or more.")
        for name in ("checkpoint_steps", "evaluate_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} is {value}; it must be 1 or more.")
        for name in ("lr", "weight_decay", "warmup_epochs", "clip_grad_norm"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise UserError(f"--{name.replace('_', '-')} is {value}; it must be a finite number from 0 up.")
