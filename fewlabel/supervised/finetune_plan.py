"""What fine-tuning does where the user said nothing: batch, duration, rates and where the classifier starts."""

import math
from dataclasses import replace

from fewlabel.errors import UserError
from fewlabel.supervised.config import FinetuneConfig
from fewlabel.training.schedule import Plan, plan_steps, settle_durations

__all__ = ["settle_finetuning"]

STEPS = 300
"""Optimiser steps that few labels are worth."""

EVALUATIONS = 20


def settle_finetuning(
    config: FinetuneConfig, labelled: int, *, trained: bool, convolutional: bool, processes: int
) -> tuple[FinetuneConfig, Plan]:
    """`config` with nothing left open, and its durations in steps. Settling what is settled changes nothing.

    Args:
        config: as the user gave it.
        labelled: images to train on.
        trained: whether the encoder is, or begins from scratch.
        convolutional: see `Backbone.convolutional`.
        processes: the batch is a multiple.

    Raises:
        UserError: fewer images than processes, or a batch that these don't divide or that is larger than the set.
    """
    if labelled < processes:
        raise UserError(
            f"{labelled} labelled images are too few for {processes} processes: each needs one. Take more labels "
            f"or --processes {max(1, labelled)}."
        )
    batch = config.batch_size
    if batch is None:
        wanted = min(64, max(16, labelled // 4), labelled)
        batch = max(1, (1 << int(math.log2(wanted))) // processes) * processes
    if batch > labelled:
        raise UserError(
            f"--batch-size {batch} is more than the {labelled} labelled images. Set it to {labelled} or less, or "
            "leave it out."
        )
    if batch % processes:
        raise UserError(f"--batch-size {batch} does not divide by {processes} processes.")
    steps_per_epoch = labelled // batch
    epochs = config.epochs
    if epochs is None and config.max_steps is None:
        epochs = min(100, max(10, math.ceil(STEPS / steps_per_epoch)))
    lr = (3e-3 if convolutional else 1e-3) * math.sqrt(batch / 64)
    head = config.head if config.head != "auto" else "probe" if trained else "zero"
    settled = replace(
        config,
        batch_size=batch,
        epochs=epochs,
        optimizer="adamw" if config.optimizer == "auto" else config.optimizer,
        lr=lr if config.lr is None else config.lr,
        weight_decay=0.05 if config.weight_decay is None else config.weight_decay,
        layer_decay=config.layer_decay or (0.85 if trained else 1.0),
        head=head,
    )
    plan = plan_steps(settled, steps_per_epoch, None)
    if config.evaluate_steps is None:
        plan = replace(plan, evaluate_steps=math.ceil(plan.total_steps / EVALUATIONS))
    return settle_durations(settled, plan), plan
