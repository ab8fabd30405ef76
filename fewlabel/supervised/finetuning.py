"""Fine-tuning: the whole network learns from the labelled images, and the weights worth most are kept."""

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional

from fewlabel.backbones.depth import DEPTHS, depths_of
from fewlabel.backbones.encoder import Encoder
from fewlabel.backbones.featurizer import Featurizer
from fewlabel.console import console
from fewlabel.data.loader import Loader
from fewlabel.data.presets import ViewPreset, preset_named
from fewlabel.data.store import ImageStore
from fewlabel.data.views import TwoViews
from fewlabel.errors import UserError
from fewlabel.supervised.classifier import Classifier
from fewlabel.supervised.config import ClassWeights, FinetuneConfig
from fewlabel.supervised.finetune_plan import settle_finetuning
from fewlabel.supervised.linear_probe import choose_penalty, fit_probe, targets_of
from fewlabel.supervised.logistic import Targets
from fewlabel.training.batch_norm import GlobalBatchNorm, synchronize_batch_norm
from fewlabel.training.checkpoint import Checkpoint
from fewlabel.training.features import extract_features
from fewlabel.training.loop import RunLog, fit, step_seed
from fewlabel.training.optimizers import build_optimizer
from fewlabel.training.task import Task

if TYPE_CHECKING:
    from accelerate import Accelerator

    from fewlabel.data.store import ImageBatch

__all__ = ["BATCH_NORM_FROM", "FineTuning", "fine_tune"]

BATCH_NORM_FROM = 16
"""Images a step from which a trained encoder's batch norms learn: of fewer, batch statistics are worse than its own."""

_PROBED_VIEWS: Final = 2048
_PROBED_PASSES: Final = 8
_PROBED_AT_ONCE: Final = 256
"""Views that the first probe is fitted to: so many in all, where each image gives at least one and at most eight."""


class FineTuning(Task):
    """A classifier in training, the moving average of its weights, and the best of these averages so far.

    All three are modules, so that checkpoints hold them.

    Args:
        classifier: what is trained; in channels-last format where that suits its backbone.
        targets: what its logits should say of the labelled images.
        labels: of the whole store, as its `labels`.
        views: one view of each image of a batch, on the scale from 0 to 1.
        config: settled.
        freeze_batch_norm: whether batch norms keep the statistics that they have.
    """

    best_loss: Tensor
    """() float32: of the best weights on the validation labels; infinite before there are any."""
    trained_loss: Tensor
    """() float32: the same without the weights that training began with."""
    stale: Tensor
    """() int64: evaluations since that one."""
    _outputs: Tensor
    _wanted: Tensor
    _weights: Tensor

    def __init__(
        self,
        classifier: Classifier,
        targets: Targets,
        labels: Tensor,
        views: TwoViews,
        config: FinetuneConfig,
        *,
        freeze_batch_norm: bool,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.average = copy.deepcopy(classifier).requires_grad_(False)
        self.best = copy.deepcopy(classifier).requires_grad_(False)
        self.register_buffer("best_loss", torch.tensor(torch.inf))
        self.register_buffer("trained_loss", torch.tensor(torch.inf))
        self.register_buffer("stale", torch.tensor(0))
        self.views = views
        self._config, self._freeze_batch_norm = config, freeze_batch_norm
        self._targets = targets
        wanted, weights = self._goal(labels)
        # What follows from the data is no state of the training.
        self.register_buffer("_outputs", torch.from_numpy(targets.outputs), persistent=False)
        self.register_buffer("_wanted", wanted, persistent=False)
        self.register_buffer("_weights", weights, persistent=False)
        self.train()

    def _goal(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What the outputs' probabilities should be for images with these labels, and what each counts."""
        outputs = torch.from_numpy(self._targets.outputs)
        known = labels[:, outputs] if labels.ndim == 2 else labels[:, None] == outputs
        smoothing, spread = self._config.label_smoothing, 2 if self.classifier.multi_label else len(outputs)
        weights = torch.from_numpy(self._targets.for_others(labels.numpy()).weights)
        return (known == 1).float() * (1 - smoothing) + smoothing / spread, weights.float()

    def _losses(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """The loss of each image, or of each of its labels, from the logits of the outputs."""
        if self.classifier.multi_label:
            return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        return functional.cross_entropy(logits, wanted, reduction="none")[:, None]

    def forward(self, batch: "ImageBatch", generator: torch.Generator) -> dict[str, Tensor]:
        """The loss of a batch: cross-entropy over the classes that have labelled images, or binary over labels.

        A class or label without labels to learn from is in no loss, so that its logit stays where it starts.
        """
        with torch.no_grad(), torch.autocast(batch.pixels.device.type, enabled=False):
            views = self.classifier.featurizer.normalize(self.views.one(batch.pixels, batch.aspect, generator))
        logits = self.classifier.logits_of(views).float()[:, self._outputs]
        losses = self._losses(logits, self._wanted[batch.index])
        return {"loss": (losses * self._weights[batch.index]).mean()}

    def loss_of(self, logits: Tensor, labels: Tensor) -> float:
        """The mean loss, as in training, of `logits` (N, K) for images with `labels`; both on the CPU.

        Smoothing included: without it the start, which was fitted to the labels as they are, would look better than
        whatever training makes of it.
        """
        wanted, weights = self._goal(labels)
        losses = self._losses(logits.float()[:, torch.from_numpy(self._targets.outputs)], wanted)
        return float((losses * weights).double().sum() / weights.double().sum())

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the average towards the weights: as their mean at first, then with the decay of the configuration."""
        decay = min(self._config.ema_decay, (1 + step) / (10 + step))
        current = self.classifier.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(current[name], 1 - decay)
            else:
                value.copy_(current[name])

    @torch.no_grad()
    def judge(self, loss: float, step: int) -> None:
        """Note the average's `loss` on the validation labels, and keep a copy of it where it is the best so far.

        Patience is with training alone: from a good start, large learning rates lead to worse weights first, and to
        better ones only as the rates fall.
        """
        if loss < float(self.best_loss):
            self.best_loss.fill_(loss)
            kept = self.best.state_dict()
            for name, value in self.average.state_dict().items():
                kept[name].copy_(value)
        if step and loss < float(self.trained_loss):
            self.trained_loss.fill_(loss)
            self.stale.zero_()
        elif step:
            self.stale += 1

    def is_done(self) -> bool:
        """Whether so many evaluations as the configuration's `patience` have brought no improvement."""
        return int(self.stale) >= self._config.patience

    def result(self) -> Classifier:
        """The best weights; where nothing was judged, the average as it is."""
        return self.best if bool(self.best_loss.isfinite()) else self.average

    def train(self, mode: bool = True) -> "FineTuning":
        """Put what is trained into training mode, but for batch norms that are frozen; the copies never are."""
        super().train(mode)
        self.average.eval()
        self.best.eval()
        if self._freeze_batch_norm:
            for module in self.classifier.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm | GlobalBatchNorm):
                    module.eval()
        return self


def fine_tune(
    start: Encoder,
    train_store: ImageStore,
    labelled: Tensor,
    *,
    classes: Sequence[str],
    multi_label: bool,
    validation: tuple[ImageStore, Tensor] | None,
    config: FinetuneConfig,
    preset: ViewPreset | str,
    strength: float | None = None,
    accelerator: "Accelerator",
    log: RunLog,
    seed: int,
    checkpoint: Checkpoint | None = None,
    measure: Callable[[Classifier], dict[str, float]] | None = None,
    quiet: bool = False,
) -> Classifier:
    """Train a classifier of `start`'s features, and these features with it, on few labels.

    From a trained encoder the classifier begins as the linear probe of features (LP-FT, Kumar et al. 2022), and
    learning rates fall towards the input (BEiT, Bao et al. 2022, appendix H). Images are seen through views half
    as strong as in pretraining and not cropped (`ViewPreset.mild`). The result is the moving average of the weights:
    where its loss on the validation labels was best, or without any of classes that are trained on, at the end of the
    schedule. The loss judges because it changes with every image's probability, where accuracy and AUROC of few images
    stand still and jump.

    Batch norms keep the statistics of a trained encoder where a step has fewer than `BATCH_NORM_FROM` images; those
    of an untrained one have none to keep.

    Args:
        start: left as it is. If untrained, its weights are where training starts.
        train_store: with labels.
        labelled: (n,) int64 positions in it, 2 or more; its labels elsewhere are not looked at.
        classes: names.
        multi_label: whether an image may have several.
        validation: a store with labels and the (m,) positions of those that may be used.
        config: settled or not.
        preset: of the views, in pretraining's strength.
        strength: of the colour distortion, as for `TwoViews`.
        accelerator: all of its processes must call this, and get the same.
        log: the record; checkpoints go to its directory.
        seed: of order, views and folds.
        checkpoint: where to go on from, of a run with the same arguments.
        measure: figures of the average, to be logged at each evaluation. It is shown as it is, not as it was best:
            early its loss may rise while it learns to tell more images apart.
        quiet: print no evaluations.

    Returns:
        On the accelerator's device, in eval mode.

    Raises:
        Interrupted: as `fit`.
        UserError: as `fit`; or the labels are of one class, or contradict the configuration.
    """
    if train_store.labels is None:
        raise UserError("The training images have no labels to learn from.")
    world = accelerator.num_processes
    config, plan = settle_finetuning(
        config, len(labelled), trained=start.trained, convolutional=start.backbone.convolutional, processes=world
    )
    targets = targets_of(train_store.labels[labelled], config.class_weights)
    if targets is None:
        raise UserError(
            f"The {len(labelled)} labelled images all have the same label; a classifier needs two at least. "
            "Label images of another class, or draw more: a larger share of --labels or more --shots."
        )
    if validation is not None and not _judges(*validation, targets):
        validation = None
    batch_size = config.batch_size or 0
    unit = ((0.0,) * train_store.channels, (1.0,) * train_store.channels)
    mild = (preset_named(preset) if isinstance(preset, str) else preset).mild()
    views = TwoViews(mild, start.image_size, *unit, strength)
    head = _head(train_store.labels[labelled], start.num_features, len(classes), config.class_weights)
    # The weights of one that a checkpoint is to replace are not needed.
    if config.head == "probe" and checkpoint is None:
        head = _probe(start, train_store, labelled, len(classes), views, config, accelerator, seed)
    rates = _rates(start, config.layer_decay or 1.0)
    featurizer = Featurizer(copy.deepcopy(start.backbone), start.mean, start.std)
    classifier = Classifier(featurizer, head, classes, multi_label=multi_label, bits=train_store.bits)
    if world > 1:
        synchronize_batch_norm(classifier, accelerator.device)
    task = FineTuning(
        classifier,
        targets,
        train_store.labels,
        views,
        config,
        freeze_batch_norm=start.trained and batch_size < BATCH_NORM_FROM,
    )
    optimizer = build_optimizer(
        classifier, config, {f"featurizer.backbone.{name}" for name in start.backbone.no_weight_decay()}, rates
    )
    if config.compile:
        featurizer.backbone.compile()

    def judge(step: int) -> dict[str, float]:
        if validation is None:
            return {}
        store, places = validation
        assert store.labels is not None
        loss = task.loss_of(extract_features(_Logits(task.average), store, places, accelerator), store.labels[places])
        task.judge(loss, step)
        if not quiet:
            console.print(f"Step {step:,} of {plan.total_steps:,}: validation loss {loss:.4f}", highlight=False)
        return {"validation_loss": loss}

    def evaluate(step: int) -> dict[str, float]:
        figures = judge(step)
        return figures if measure is None else figures | measure(task.average)

    task.to(accelerator.device)
    if checkpoint is None:
        # The start may be the best there is, and is then what is kept.
        judge(0)
    loader = Loader(
        train_store, batch_size // world, seed, accelerator.process_index, world, indices=labelled.sort().values
    )
    fit(
        task,
        optimizer,
        loader,
        plan,
        accelerator,
        log,
        seed=seed,
        clip_grad_norm=config.clip_grad_norm,
        evaluate=evaluate,
        checkpoint=checkpoint,
    )
    # Else the accelerator would keep every network that it has ever prepared.
    accelerator.free_memory()
    return task.result()


def _head(labels: Tensor, features: int, classes: int, weights: ClassWeights) -> nn.Linear:
    """A classifier that says of every image how frequent the classes are: the probe of features that say nothing."""
    blank = fit_probe(torch.zeros(len(labels), 1), labels, classes, penalty=1.0, class_weights=weights)
    head = nn.Linear(features, classes)
    nn.init.zeros_(head.weight)
    head.bias.data.copy_(blank.bias)
    return head


@torch.no_grad()
def _probe(
    start: Encoder,
    store: ImageStore,
    labelled: Tensor,
    classes: int,
    views: TwoViews,
    config: FinetuneConfig,
    accelerator: "Accelerator",
    seed: int,
) -> nn.Linear:
    """The linear probe of the views that training will show.

    That of whole images is too sure of itself for views: the first steps of training would throw it far off, and the
    network with it.
    """
    assert store.labels is not None
    start.to(accelerator.device)
    generator = torch.Generator(accelerator.device).manual_seed(step_seed(seed, -1, 0))
    passes = max(1, min(_PROBED_PASSES, _PROBED_VIEWS // len(labelled)))
    places = labelled.repeat(passes)
    features = []
    for chunk in torch.split(places, _PROBED_AT_ONCE):
        batch = store.batch(chunk)
        pixels, aspect = batch.pixels.to(accelerator.device), batch.aspect.to(accelerator.device)
        normal = start.normalize(views.one(pixels, aspect, generator))
        with accelerator.autocast():
            features.append(start.backbone(normal).float().cpu())
    seen, labels, weights = torch.cat(features), store.labels[places], config.class_weights
    # Views of one image are no more independent of each other than images of one group.
    groups = [(store.groups or store.ids)[place] for place in places.tolist()]
    # How many threads share a sum decides its last bits, and the same run is to give the same bits anywhere.
    with threadpool_limits(1):
        penalty = choose_penalty(seen, labels, groups, class_weights=weights, validation=None, seed=seed).value
        return fit_probe(seen, labels, classes, penalty=penalty, class_weights=weights).as_linear()


def _rates(start: Encoder, decay: float) -> dict[str, float]:
    """The share of the learning rate for each parameter of the backbone; the classifier's is 1."""
    if decay == 1:
        return {}
    return {
        f"featurizer.backbone.{name}": decay ** (DEPTHS - depth) for name, depth in depths_of(start.backbone).items()
    }


def _judges(store: ImageStore, places: Tensor, targets: Targets) -> bool:
    """Whether any of the validation images has a label that was trained on."""
    return store.labels is not None and bool(targets.for_others(store.labels[places].numpy()).weights.any())


class _Logits(nn.Module):
    """A classifier as a module that returns its logits."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier.logits(images)
