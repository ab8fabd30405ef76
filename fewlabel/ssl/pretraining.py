"""SimCLR pretraining from a fresh backbone: everything that one training needs, put together in one place."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from accelerate.utils import set_seed
from torch import Tensor
from torch.optim import Optimizer

from fewlabel.backbones.backbone import Backbone
from fewlabel.backbones.featurizer import Featurizer
from fewlabel.console import console
from fewlabel.data.config import ViewsConfig
from fewlabel.data.loader import Loader
from fewlabel.data.store import ImageStore, mean_and_std
from fewlabel.data.views import TwoViews
from fewlabel.errors import UserError
from fewlabel.ssl.config import SimCLRConfig
from fewlabel.ssl.evaluation import health_on
from fewlabel.ssl.health import collapse_warning
from fewlabel.ssl.simclr import SimCLR
from fewlabel.training.batch_norm import synchronize_batch_norm
from fewlabel.training.checkpoint import Checkpoint
from fewlabel.training.config import TrainingConfig
from fewlabel.training.loop import RunLog, fit
from fewlabel.training.optimizers import build_optimizer, settle_optimizer
from fewlabel.training.schedule import DEFAULT_EPOCHS, Plan, default_batch_size, plan_steps, settle_durations

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Pretraining", "fresh_backbone", "prepare", "settle_training"]


def fresh_backbone(make: Callable[[], Backbone], seed: int) -> Backbone:
    """What `make` builds, with the weights of `seed`: every random state of the process is set to it first.

    What is drawn next, such as the projection head, follows from the seed and the backbone.
    """
    set_seed(seed)
    return make()


def settle_training(
    training: TrainingConfig, *, images: int, image_size: int, suggested_epochs: int | None
) -> TrainingConfig:
    """`training` with its batch size and duration as numbers.

    Args:
        training: as the user gave it; with the number of processes.
        images: to train on.
        image_size: side of the views in pixels, before scaling, so that it is the same for all scales of a backbone.
        suggested_epochs: the source's own suggestion, where it has one.

    Raises:
        UserError: the batch size doesn't divide by the processes.
    """
    world = training.processes or 1
    batch_size = training.batch_size or default_batch_size(images, image_size, world)
    if batch_size % world:
        raise UserError(
            f"--batch-size {batch_size} does not divide by {world} processes: "
            f"take {batch_size // world * world or world} or {(batch_size // world + 1) * world}."
        )
    epochs = training.epochs
    if epochs is None and training.max_steps is None:
        epochs = suggested_epochs or DEFAULT_EPOCHS
    return replace(training, batch_size=batch_size, epochs=epochs)


@dataclass(frozen=True)
class Pretraining:
    """A pretraining that is ready to run; made by `prepare`."""

    task: SimCLR
    optimizer: Optimizer
    loader: Loader
    plan: Plan
    featurizer: Featurizer
    """The backbone in training behind its preprocessing, on the accelerator's device."""
    views: TwoViews
    training: TrainingConfig
    """With nothing left open, as the next two: what repeats the training."""
    views_config: ViewsConfig
    simclr: SimCLRConfig
    accelerator: "Accelerator"

    def health(self, store: ImageStore, step: int) -> dict[str, float]:
        """Health figures on images of `store`, as `health_on` has them; says so where the features have collapsed."""
        figures = health_on(self.task, store, self.accelerator, seed=self.training.seed)
        if figures and (warning := collapse_warning(figures)):
            console.print(f"[bold yellow]Step {step}:[/] {warning}", soft_wrap=True)
        return figures

    def tell(self, figures: Mapping[str, float], step: int) -> None:
        """Print figures of a step."""
        shown = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items())
        console.print(f"Step {step:,} of {self.plan.total_steps:,}: {shown}", highlight=False, soft_wrap=True)

    def fit(self, log: RunLog, evaluate: Callable[[int], dict[str, float]], checkpoint: Checkpoint | None) -> None:
        """Train, from `checkpoint` on where there is one; arguments and errors as of `fewlabel.training.loop.fit`."""
        fit(
            self.task,
            self.optimizer,
            self.loader,
            self.plan,
            self.accelerator,
            log,
            seed=self.training.seed,
            clip_grad_norm=self.training.clip_grad_norm,
            evaluate=evaluate,
            checkpoint=checkpoint,
        )


def prepare(
    backbone: Backbone,
    store: ImageStore,
    *,
    views: ViewsConfig,
    simclr: SimCLRConfig,
    training: TrainingConfig,
    accelerator: "Accelerator",
    indices: Tensor | None = None,
) -> Pretraining:
    """Put together the pretraining of `backbone`, just made by `fresh_backbone`, on the images of `store`.

    Args:
        backbone: trained in place; its image size is that of the views.
        store: the training images.
        views: with the preset's name.
        simclr: loss and projection head.
        training: see `settle_training`; optimiser, rates and durations may be open.
        accelerator: every process must call this.
        indices: (n,) int64 positions in the store of the images to train on; all by default.

    Raises:
        UserError: the images are fewer than a batch, or options contradict the images or one another.
    """
    seed, world, batch_size = training.seed, accelerator.num_processes, training.batch_size or 0
    loader = Loader(
        store,
        batch_size // world,
        seed=seed,
        rank=accelerator.process_index,
        world=world,
        indices=indices,
        partners=simclr.positives == "group",
    )
    plan = plan_steps(training, loader.steps_per_epoch, None)
    mean, std = mean_and_std(store, seed)
    two_views = TwoViews(views.views, backbone.image_size, mean, std, views.strength)
    task = SimCLR(backbone, two_views, simclr)
    if world > 1:
        synchronize_batch_norm(task, accelerator.device)
    training = settle_optimizer(training, batch_size, convolutional=backbone.convolutional)
    optimizer = build_optimizer(task, training, backbone.no_weight_decay())
    if training.compile:
        backbone.compile()
    return Pretraining(
        task,
        optimizer,
        loader,
        plan,
        Featurizer(backbone, mean, std).to(accelerator.device),
        two_views,
        settle_durations(training, plan),
        replace(views, strength=two_views.strength),
        replace(simclr, projection_hidden=simclr.projection_hidden or backbone.num_features),
        accelerator,
    )
