"""How long a search trains: the full length of the winner, and the proxy that a trial makes do with."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from fewlabel.data.loader import Loader
from fewlabel.data.store import ImageStore
from fewlabel.search.config import ProxyConfig
from fewlabel.search.cost import Model
from fewlabel.search.images import some_of
from fewlabel.ssl.pretraining import settle_training
from fewlabel.supervised.config import FinetuneConfig
from fewlabel.supervised.finetune_plan import settle_finetuning
from fewlabel.supervised.subsets import fractions_of
from fewlabel.training.config import TrainingConfig
from fewlabel.training.schedule import Plan, plan_steps

__all__ = ["Length", "finetuning_lengths", "labelled_of", "pretraining_lengths"]


@dataclass(frozen=True, eq=False)
class Length:
    """What all trainings of one length share, whatever the candidate: so that values at a step can be compared."""

    model: Model
    """At scale 1."""
    training: TrainingConfig
    """With the batch size, the duration and the steps between evaluations as numbers; rates may be open."""
    images: Tensor
    """(n,) int64 positions in the training store of the images to train on."""
    plan: Plan


def pretraining_lengths(
    train: ImageStore, model: Model, training: TrainingConfig, proxy: ProxyConfig, suggested_epochs: int | None
) -> tuple[Length, Length]:
    """The full length of SimCLR pretraining, as `fewlabel pretrain` has it, and the proxy's.

    The proxy's images are a random part of all. Its batch size and warm-up follow from these anew where the user left
    them open; a warm-up that was given is that of the full length, and the proxy's is as if it were open.

    Args:
        train: the training images.
        model: at full length.
        training: with the number of processes.
        proxy: what it does with less of.
        suggested_epochs: the source's own suggestion, where it has one.

    Raises:
        UserError: a batch is larger than the images, or doesn't divide by the processes.
    """

    def length(model: Model, training: TrainingConfig, images: Tensor) -> Length:
        settled = settle_training(
            training, images=len(images), image_size=model.image_size, suggested_epochs=suggested_epochs
        )
        world, batch_size = settled.processes or 1, settled.batch_size or 0
        steps = Loader(train, batch_size // world, settled.seed, world=world, indices=images).steps_per_epoch
        return _length(model, settled, images, steps)

    full = length(model, training, torch.arange(len(train)))
    part = some_of(full.images, proxy.proxy_images or len(train), training.seed)
    return full, length(_smaller(model, proxy), _shorter(training, full.training, proxy), part)


def finetuning_lengths(
    train: ImageStore, model: Model, training: TrainingConfig, proxy: ProxyConfig, labels: float
) -> tuple[Length, Length]:
    """The full length of training on labels from scratch, as `fewlabel finetune --encoder scratch` has it, and the
    proxy's, on a part of the labelled images that has the same classes.

    Arguments and errors are as of `pretraining_lengths`; `labels` is the share of the labelled images at full length.
    """
    options: dict[str, Any] = {field.name: getattr(training, field.name) for field in fields(TrainingConfig)}
    given = FinetuneConfig(**options)

    def length(model: Model, training: FinetuneConfig, images: Tensor) -> Length:
        # Of a kind that the settled rates don't matter for: those stay as they were given.
        settled, plan = settle_finetuning(
            training, len(images), trained=False, convolutional=True, processes=training.processes or 1
        )
        batch, epochs = settled.batch_size, settled.epochs
        return _length(model, replace(training, batch_size=batch, epochs=epochs), images, plan.steps_per_epoch)

    seed, known = training.seed, len(train.labelled)
    full = length(model, given, labelled_of(train, labels, seed))
    share = min(labels, (proxy.proxy_images or known) / known)
    shorter = _shorter(given, full.training, proxy)
    assert isinstance(shorter, FinetuneConfig)
    return full, length(_smaller(model, proxy), shorter, labelled_of(train, share, seed))


def labelled_of(train: ImageStore, share: float, seed: int) -> Tensor:
    """(n,) int64 positions of a share of the labelled images, of each class alike; a smaller share is part of it."""
    return fractions_of(train.ids, train.labels, train.groups, [share], 1, seed)[0].indices


def _length(model: Model, training: TrainingConfig, images: Tensor, steps_per_epoch: int) -> Length:
    plan = plan_steps(training, steps_per_epoch, None)
    return Length(model, replace(training, evaluate_steps=plan.evaluate_steps), images, plan)


def _smaller(model: Model, proxy: ProxyConfig) -> Model:
    return replace(model, image_size=proxy.proxy_image_size or model.image_size)


def _shorter(given: TrainingConfig, full: TrainingConfig, proxy: ProxyConfig) -> TrainingConfig:
    """`given` with the proxy's duration, which is a tenth of that of `full` unless the user said more."""
    epochs, steps = proxy.proxy_epochs, None
    if epochs is None and full.max_steps is not None:
        steps = max(1, full.max_steps // 10)
    elif epochs is None:
        epochs = max(1, (full.epochs or 0) // 10)
    return replace(given, epochs=epochs, max_steps=steps, warmup_epochs=None)
