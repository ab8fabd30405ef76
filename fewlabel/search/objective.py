"""What a candidate is worth: it is trained, for a short while or at full length, and judged on validation images.

A short training is a proxy: it ranks candidates cheaply, and may rank them otherwise than training at full length
would, for a large network gains more from more epochs. So the best of a search are trained at full length too, and it
is reported whether the ranking held.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from fewlabel.backbones.encoder import as_encoder, load_encoder, save_encoder
from fewlabel.data.config import SourceConfig, ViewsConfig
from fewlabel.data.presets import preset_named, resolve_preset
from fewlabel.data.source import Source, require_labels
from fewlabel.data.store import ImageStore, mean_and_std
from fewlabel.data.views import TwoViews
from fewlabel.errors import UserError
from fewlabel.search.candidate import Candidate
from fewlabel.search.config import ProxyConfig
from fewlabel.search.cost import Model
from fewlabel.search.images import Images, Splits, some_of
from fewlabel.search.judging import Comparison, Judge, Judgement, Kind, Probe, compare
from fewlabel.search.lengths import finetuning_lengths, labelled_of, pretraining_lengths
from fewlabel.search.memory import giving_memory_back
from fewlabel.ssl.config import SimCLRConfig
from fewlabel.ssl.pretraining import fresh_backbone, prepare
from fewlabel.supervised.classifier import Classifier, load_classifier, save_classifier
from fewlabel.supervised.config import FinetuneConfig
from fewlabel.supervised.finetuning import fine_tune
from fewlabel.training.checkpoint import Checkpoint
from fewlabel.training.config import TrainingConfig
from fewlabel.training.schedule import Plan

if TYPE_CHECKING:
    from accelerate import Accelerator

    from fewlabel.tracking.run import Run

__all__ = ["VALUE", "Objective", "Outcome"]

VALUE = "objective"
"""Name of the value among the figures of a step."""

_MOST_PROBED = 5_000
"""Labelled images that a probe is fitted to: of more, a random part."""

_MOST_JUDGED = 5_000
"""Validation images that a trial is judged by: of more, a random part."""

_MOST_COMPARED = 2_000
"""Images among which neighbours are looked for."""

Report = Callable[[int, float], None]

Config = TypeVar("Config", bound=ViewsConfig | SimCLRConfig | TrainingConfig)


@dataclass(frozen=True)
class Outcome:
    """What a training came to, on validation images."""

    value: float
    """The objective: the greater the better."""
    low: float
    """Ends of its 95 % interval."""
    high: float
    figures: dict[str, float]
    """Others of the same model."""
    seconds: float
    """Of this sitting."""


class Objective:
    """Trains candidates on one source and judges them all alike; made once, on every process of a worker.

    Args:
        kind: "probe": SimCLR pretraining, then a linear probe on the labelled training images. "supervised": training
            on these from scratch. "knn": SimCLR pretraining, then how far two views of an image agree on its nearest
            images (see `mutual_neighbours`), without any label.
        source: the images.
        model: the network at scale 1 and full length.
        source_config: how the source was loaded.
        views: of the training. Judging by neighbours takes these for all candidates, without blur.
        simclr: loss and projection head.
        training: at full length, with precision and processes; the rest may be open.
        proxy: what a trial does with less of.
        labels: share of the labelled training images that may be used.
        accelerator: of this process.

    Raises:
        UserError: the source can't be judged by, as it has no validation images or too few labels; or the options
            contradict it or one another.
    """

    def __init__(
        self,
        kind: Kind,
        source: Source,
        model: Model,
        *,
        source_config: SourceConfig,
        views: ViewsConfig,
        simclr: SimCLRConfig,
        training: TrainingConfig,
        proxy: ProxyConfig,
        labels: float,
        accelerator: "Accelerator",
    ) -> None:
        self.kind, self.accelerator, self._source, self._simclr = kind, accelerator, source, simclr
        self._views = replace(views, views=resolve_preset(views.views, source.hints.views, source.channels))
        if "val" not in source:
            raise UserError(f"{source.name} has no validation images to compare models by: give a --val-share above 0.")
        if kind != "knn":
            require_labels(source)
        self._splits = Splits(source, source_config, accelerator)
        self._seed = seed = training.seed
        size = proxy.proxy_image_size or model.image_size
        train, val = (self._splits.at(split, size, size) for split in ("train", "val"))
        judged = self._fit_to_judge(val, _MOST_JUDGED)
        if judged is None:
            raise UserError(
                f"The validation images of {source.name} are too few to compare models by, or all of one class or "
                "group: give a larger --val-share, or a val split with images of every class."
            )
        self._judged = judged.places
        if kind == "supervised":
            full, short = finetuning_lengths(train, model, training, proxy, labels)
        else:
            full, short = pretraining_lengths(train, model, training, proxy, source.hints.epochs)
        self._lengths = {True: full, False: short}
        probe = None
        if kind == "probe":
            share = min(labels, _MOST_PROBED / max(1, len(train.labelled)))
            probe = Probe.on(train, labelled_of(train, share, seed), seed)
        # The same for all candidates, or they would be asked for less as their own views are weaker or blurred less.
        unit = (0.0,) * source.channels, (1.0,) * source.channels
        still = replace(preset_named(self._views.views), blur=0.0)
        strength = TwoViews(still, size, *unit, self._views.strength).strength
        views_of = partial(TwoViews, still, mean=unit[0], std=unit[1], strength=strength)
        self._judge = Judge(kind, len(source.class_names or ()), probe, views_of, accelerator, seed)
        scaler = accelerator.scaler
        self._fresh_scaler = None if scaler is None else copy.deepcopy(scaler.state_dict())

    @property
    def figure(self) -> str:
        """What the value is: "accuracy", "auroc" where an image may have several labels, or "agreement"."""
        if self.kind == "knn":
            return "agreement"
        return "auroc" if self._source.multi_label else "accuracy"

    def model(self, *, full: bool) -> Model:
        """The network at scale 1, as it is trained at full length or in a trial."""
        return self._lengths[full].model

    def training(self, *, full: bool) -> TrainingConfig:
        """How it is trained, with batch size and duration as numbers."""
        return self._lengths[full].training

    def images(self, *, full: bool) -> Tensor:
        """`(n,)` int64 positions in the training split of the images to train on."""
        return self._lengths[full].images

    def plan(self, *, full: bool) -> Plan:
        """The steps of a training: values are reported after multiples of `evaluate_steps` and at the end."""
        return self._lengths[full].plan

    def train(
        self, candidate: Candidate, log: "Run", report: Report, *, full: bool, checkpoint: Checkpoint | None
    ) -> Outcome:
        """Train `candidate` from scratch or from `checkpoint` on, and judge it on validation images.

        A training at full length leaves its `encoder` or, of kind "supervised", its `classifier` in the run directory.

        Args:
            candidate: what is tried.
            log: its record, on this process; a step's figures have the value as "objective".
            report: gets the step and the value at each evaluation after `checkpoint`, on every process, once they are
                in the record. What it raises ends the training.
            full: at full length, else as long as a trial is.
            checkpoint: of an earlier sitting with the same arguments.

        Raises:
            Diverged: loss or features are no finite numbers any more.
            OutOfMemory: on this process. Of several, the others may wait for it for ever.
            Interrupted: as `fewlabel.training.loop.fit`.
            UserError: the network can't take the candidate's scale.
        """
        started = time.monotonic()
        if self._fresh_scaler is not None:
            self.accelerator.scaler.load_state_dict(self._fresh_scaler)
        learn = self._learn_from_labels if self.kind == "supervised" else self._pretrain
        with giving_memory_back(self.accelerator):
            judgement, figures = learn(candidate, _Reporting(log, report), full=full, checkpoint=checkpoint)
        interval = judgement.interval()
        seconds = round(time.monotonic() - started, 3)
        return Outcome(interval.mean, interval.low, interval.high, judgement.figures | figures, seconds)

    def judge_on_test(self, winner: Path, base: Path) -> Comparison | None:
        """Two trainings at full length side by side on test images, which nothing else looks at.

        Args:
            winner: its run directory; every process must call this.
            base: likewise.

        Returns:
            None where there are no test images to judge by.

        Raises:
            UserError: a directory lacks what training at full length leaves there, or it is damaged.
        """
        if "test" not in self._source:
            return None
        judged: list[tuple[Judgement, Images]] = []
        for run in (winner, base):
            model = load_classifier(run / "classifier") if self.kind == "supervised" else load_encoder(run / "encoder")
            size = (model.featurizer if isinstance(model, Classifier) else model).image_size
            images = self._fit_to_judge(self._store("test", size, full=True))
            if images is None:
                return None
            train = self._store("train", size, full=True)
            judged.append((self._judge(model.to(self.accelerator.device), train, images), images))
        (mine, images), (other, _) = judged
        return compare(self.figure, mine, other, len(images))

    def _store(self, split: str, image_size: int, *, full: bool) -> ImageStore:
        return self._splits.at(split, image_size, self._lengths[full].model.image_size)

    def _fit_to_judge(self, store: ImageStore, most: int | None = None) -> Images | None:
        """The images of `store` to judge by, at most so many; None where nothing can be told from them."""
        places = torch.arange(len(store)) if self.kind == "knn" else store.labelled
        most = _MOST_COMPARED if self.kind == "knn" else most
        images = Images(store, places if most is None else some_of(places, most, self._seed))
        return images if images.fit_to_judge(labelled=self.kind != "knn") else None

    def _pretrain(
        self, candidate: Candidate, log: "_Reporting", *, full: bool, checkpoint: Checkpoint | None
    ) -> tuple[Judgement, dict[str, float]]:
        length = self._lengths[full]
        backbone = fresh_backbone(partial(length.model.create, candidate.scale), self._seed)
        train, val = (self._store(split, backbone.image_size, full=full) for split in ("train", "val"))
        pretraining = prepare(
            backbone,
            train,
            views=_with(self._views, strength=candidate.view_strength),
            simclr=_with(self._simclr, temperature=candidate.temperature),
            training=_with(length.training, lr=candidate.lr, weight_decay=candidate.weight_decay),
            accelerator=self.accelerator,
            indices=length.images,
        )
        images, featurizer = Images(val, self._judged), pretraining.featurizer
        last: list[tuple[Judgement, dict[str, float]]] = []

        def judge(step: int) -> dict[str, float]:
            health = pretraining.health(val, step)
            judgement = self._judge(featurizer, train, images)
            last[:] = [(judgement, health)]
            figures = {VALUE: judgement.value, **health}
            pretraining.tell(figures, step)
            return figures

        pretraining.fit(log, judge, checkpoint)
        if not last:
            # The checkpoint was that of the last step.
            judge(length.plan.total_steps)
        if full and self.accelerator.is_main_process:
            save_encoder(
                log.directory / "encoder",
                backbone,
                mean=featurizer.mean,
                std=featurizer.std,
                bits=self._source.bits,
                provenance=self._provenance(log, last[0][0]),
            )
        return last[0]

    def _learn_from_labels(
        self, candidate: Candidate, log: "_Reporting", *, full: bool, checkpoint: Checkpoint | None
    ) -> tuple[Judgement, dict[str, float]]:
        length, source = self._lengths[full], self._source
        backbone = fresh_backbone(partial(length.model.create, candidate.scale), self._seed)
        train, val = (self._store(split, backbone.image_size, full=full) for split in ("train", "val"))
        mean, std = mean_and_std(train, self._seed)
        start = as_encoder(backbone, mean=mean, std=std, bits=source.bits, provenance={}, trained=False)
        training, images = length.training, Images(val, self._judged)
        assert isinstance(training, FinetuneConfig)

        def measure(classifier: Classifier) -> dict[str, float]:
            return {VALUE: self._judge(classifier, train, images).value}

        classifier = fine_tune(
            start,
            train,
            length.images,
            classes=source.class_names or [],
            multi_label=source.multi_label,
            validation=(val, self._judged),
            config=_with(training, lr=candidate.lr, weight_decay=candidate.weight_decay),
            preset=self._views.views,
            strength=self._views.strength if candidate.view_strength is None else candidate.view_strength,
            accelerator=self.accelerator,
            log=log,
            seed=self._seed,
            checkpoint=checkpoint,
            measure=measure,
        )
        judgement = self._judge(classifier, train, images)
        if full and self.accelerator.is_main_process:
            provenance = self._provenance(log, judgement) | {"labelled_images": len(length.images)}
            save_classifier(log.directory / "classifier", classifier, provenance=provenance)
        return judgement, {}

    def _provenance(self, log: "_Reporting", judgement: Judgement) -> dict[str, Any]:
        known = {name: log.record[name] for name in ("run", "command", "created", "source", "provenance")}
        return {**known, "metrics": {f"validation_{self.figure}": asdict(judgement.interval())}}


class _Reporting:
    """A record that hands each value on once the step's figures are written."""

    def __init__(self, log: "Run", report: Report) -> None:
        self._log, self._report = log, report
        self.directory, self.wandb_id, self.record = log.directory, log.wandb_id, log.record

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._log.log(step, metrics)
        if VALUE in metrics:
            self._report(step, metrics[VALUE])


def _with(config: Config, **given: float | None) -> Config:
    """`config` with those values that are given."""
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(config, **values)
