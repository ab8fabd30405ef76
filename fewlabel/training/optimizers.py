"""AdamW for small batches, LARS for large ones, and which parameters decay."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace

from torch import nn
from torch.optim import AdamW, Optimizer

from fewlabel.errors import UserError
from fewlabel.training.config import TrainingConfig

__all__ = ["LARS_FROM_BATCH", "build_optimizer", "settle_optimizer"]

LARS_FROM_BATCH = 1024
"""Images a step from which `auto` takes LARS: below it, plain optimisers are stable (You et al. 2017)."""


def settle_optimizer(config: TrainingConfig, batch_size: int, *, convolutional: bool) -> TrainingConfig:
    """`config` with the optimiser, peak rate and weight decay that the user left open.

    LARS as in the SimCLR paper (section 2.1). AdamW's rate is three times as high for a `convolutional` network with
    batch norms, which bear it, as for another.
    """
    kind = config.optimizer
    if kind == "auto":
        kind = "lars" if batch_size >= LARS_FROM_BATCH else "adamw"
    if kind == "lars":
        lr, decay = 0.3 * batch_size / 256, 1e-6
    else:
        lr, decay = (3e-3 if convolutional else 1e-3) * math.sqrt(batch_size / 256), 0.01
    return replace(
        config,
        optimizer=kind,
        lr=lr if config.lr is None else config.lr,
        weight_decay=decay if config.weight_decay is None else config.weight_decay,
    )


def build_optimizer(
    module: nn.Module, config: TrainingConfig, exempt: Collection[str] = (), rates: Mapping[str, float] | None = None
) -> Optimizer:
    """The optimiser of a settled `config`, its parameters in groups with and without weight decay.

    Without decay (and, under LARS, without its layer-wise rate; SimCLR, section 2.1 and its code): every
    parameter of fewer than two dimensions, and the names in `exempt` (a full name or its end, as
    `no_weight_decay()` of a backbone gives them).

    Args:
        module: its parameters that take gradients are trained.
        config: without anything left open.
        exempt: see above.
        rates: names of parameters to their share of the learning rate; the others have all of it. The groups with
            the largest share come first.

    Raises:
        UserError: LARS without weight decay.
        ValueError: the config leaves something open.
    """
    if config.lr is None or config.weight_decay is None or config.optimizer == "auto":
        raise ValueError("settle_optimizer comes first")
    found: dict[tuple[float, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            named = any(name == other or name.endswith(f".{other}") for other in exempt)
            found[(rates or {}).get(name, 1.0), parameter.ndim >= 2 and not named].append(parameter)
    groups = [
        {"params": found[key], "weight_decay": config.weight_decay * key[1], "lr": config.lr * key[0]}
        for key in sorted(found, reverse=True)
    ]
    optimizer: Optimizer
    if config.optimizer == "lars":
        from lightly.utils.lars import LARS

        if config.weight_decay == 0:
            raise UserError(
                "--weight-decay 0 would turn LARS into plain SGD, as it spares what doesn't decay. "
                "Give a small weight decay such as 1e-8, or --optimizer adamw."
            )
        optimizer = LARS(groups, lr=config.lr, momentum=0.9, weight_decay=config.weight_decay)
    else:
        optimizer = AdamW(groups, lr=config.lr, fused=True)
    for group in optimizer.param_groups:
        group["peak_lr"] = group["lr"]
    return optimizer
