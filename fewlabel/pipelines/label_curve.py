"""`fewlabel label-curve`: every way of learning from few labels side by side, and whether pretraining paid."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fewlabel.console import say
from fewlabel.data.config import SourceConfig, ViewsConfig
from fewlabel.errors import UserError
from fewlabel.pipelines.labelled import find_encoder, labelled_part, open_labelled, settled_for, subsets_of, tell_leaks
from fewlabel.pipelines.resumable import recorded, require_parent, run_training
from fewlabel.pipelines.sources import shown_alike
from fewlabel.supervised.config import FewLabelsConfig, FinetuneConfig
from fewlabel.tracking.config import RunConfig

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

    from fewlabel.backbones.encoder import Encoder
    from fewlabel.data.source import Source
    from fewlabel.data.store import ImageStore
    from fewlabel.supervised.few_labels import Part
    from fewlabel.supervised.label_curve import LabelCurve
    from fewlabel.training.feature_store import Features

COMMAND = "label-curve"

Method = Literal["probe", "untrained", "finetune", "scratch", "imagenet"]


@dataclass(frozen=True)
class Config:
    """Say whether pretraining paid: every way of learning from few labels side by side, with a report."""

    encoder: Path | None = None
    """Encoder directory, or the run that made it. Default: the newest in runs/."""
    source: SourceConfig = field(default_factory=SourceConfig)
    few: FewLabelsConfig = field(default_factory=FewLabelsConfig)
    methods: tuple[Method, ...] = ("probe", "untrained", "finetune", "scratch", "imagenet")
    """probe: linear probe and nearest neighbours on the frozen encoder; untrained: the same on fresh weights; finetune:
    the whole network from the encoder; scratch: the whole network from fresh weights; imagenet: probe and fine-tuning
    from ImageNet weights, left out where they can't be had."""
    imagenet: str | None = None
    """timm's name of the network with ImageNet weights. Default: the encoder's own."""
    views: ViewsConfig = field(default_factory=ViewsConfig)
    penalty: float | None = None
    """L2 penalty of the linear probe, as for `fewlabel probe`. Default: chosen on the labelled images."""
    training: FinetuneConfig = field(default_factory=FinetuneConfig)
    run: RunConfig = field(default_factory=RunConfig)
    resume: Path | None = None
    """A stopped run's directory: go on with what it has not done yet, with its own options."""
    config: Path | None = None
    """The config.json of an earlier run: its options become the defaults."""
    json: bool = False
    """Print the result alone, as JSON, on standard output."""


def run(config: Config) -> int:
    """Run the command; its exit status."""
    return run_training(config, _check, _label_curve)


def _check(config: Config) -> Config:
    from fewlabel.data.presets import resolve_preset

    if "probe" not in config.methods and "finetune" not in config.methods:
        raise UserError("--methods must have probe or finetune: without the encoder there is nothing to compare.")
    resolve_preset(config.views.views, None, channels=1)
    return replace(config, encoder=find_encoder(config.encoder).resolve())


def _label_curve(config: Config, accelerator: "Accelerator") -> Mapping[str, Any]:
    from accelerate.utils import set_seed

    from fewlabel.backbones.encoder import load_encoder
    from fewlabel.data.loading import load
    from fewlabel.data.presets import resolve_preset
    from fewlabel.data.source import require_labels
    from fewlabel.pipelines.label_curve_report import announce, conclude
    from fewlabel.supervised.answers import AnswerFolder
    from fewlabel.supervised.few_labels import amounts_of
    from fewlabel.supervised.label_curve import LabelCurve
    from fewlabel.supervised.leaks import find_leaks

    seed, directory = config.training.seed, config.encoder
    assert directory is not None
    set_seed(seed)
    encoder = load_encoder(directory)
    config = replace(config, source=shown_alike(config.source, encoder.config.provenance))
    with accelerator.main_process_first():
        source = load(config.source)
        stores = open_labelled(source, encoder.backbone, config.source, ordinal=config.few.ordinal)
    views = config.views
    config = replace(
        config,
        source=config.source.resolved(),
        few=settled_for(source, config.few),
        views=replace(views, views=resolve_preset(views.views, source.hints.views, source.channels)),
    )
    amounts = amounts_of(subsets_of(stores["train"], config.few, seed))
    maker = str(encoder.config.provenance.get("run", directory))
    parent = f"{maker}@{encoder.hash[:16]}"
    slug = f"{encoder.config.name}-{source.name}"
    with recorded(COMMAND, config, source, stores, accelerator, slug=slug, parents={"encoder": parent}) as record:
        require_parent(record, parent, str(directory))
        record.log_input(f"encoder-{encoder.config.name}", "encoder", directory)
        images = _Images(config, source, stores, accelerator)
        answers = AnswerFolder(record.directory / "answers")
        curve = LabelCurve(
            source, require_labels(source), stores, amounts, config.few.draws, accelerator, answers, seed
        )
        announce(config, encoder, curve, accelerator.device.type, record.directory)
        leaks = find_leaks(stores, images.features(encoder))
        tell_leaks(leaks)
        left_out = _ask(config, encoder, curve, images)
        # All processes take part in finding features.
        parts = images.labelled(encoder)
        if not accelerator.is_main_process:
            return {}
        return conclude(config, encoder, curve, parts, leaks, left_out, record)


@dataclass(frozen=True)
class _Images:
    """The splits, and their features by any encoder."""

    config: Config
    source: "Source"
    stores: "dict[str, ImageStore]"
    accelerator: "Accelerator"

    def features(self, encoder: "Encoder") -> "dict[str, Tensor]":
        """Of every image, by split."""
        return {split: found.values for split, found in self._features(encoder).items()}

    def labelled(self, encoder: "Encoder") -> "dict[str, Part]":
        """The labelled images of each split that has any, with their features."""
        features = self._features(encoder)
        parts = {split: labelled_part(store, features[split]) for split, store in self.stores.items()}
        return {split: part for split, part in parts.items() if len(part.ids)}

    def _features(self, encoder: "Encoder") -> "dict[str, Features]":
        from fewlabel.data.store import cache_folder
        from fewlabel.training.feature_store import features_of

        cache = cache_folder(self.config.source)
        return features_of(encoder, self.stores, self.source.fingerprint, self.accelerator, cache_dir=cache)


def _ask(config: Config, encoder: "Encoder", curve: "LabelCurve", images: _Images) -> str | None:
    """Let every method answer that has not yet; why ImageNet weights are left out, if they are."""
    from fewlabel.backbones.encoder import untrained
    from fewlabel.supervised.config import ProbeConfig

    probe = ProbeConfig(penalty=config.penalty, class_weights=config.training.class_weights)
    tuning = config.training, config.views.views, config.views.strength
    left_out, imagenet = None, None
    if "imagenet" in config.methods:
        try:
            imagenet = _imagenet(config, encoder, images)
        except UserError as error:
            if config.imagenet is not None:
                raise
            left_out = f"ImageNet weights are left out: {error}"
            say(left_out)
    if "probe" in config.methods:
        curve.probe("", lambda: images.labelled(encoder), probe)
    if "untrained" in config.methods:
        curve.probe("_untrained", lambda: images.labelled(untrained(encoder, curve.seed)), probe)
    if imagenet is not None:
        curve.probe("_imagenet", lambda: images.labelled(imagenet), probe)
    if "finetune" in config.methods:
        curve.tune("finetune", lambda seed: encoder, *tuning)
    if "scratch" in config.methods:
        curve.tune("scratch", lambda seed: untrained(encoder, seed), *tuning)
    if imagenet is not None:
        curve.tune("finetune_imagenet", lambda seed: imagenet, *tuning)
    return left_out


def _imagenet(config: Config, encoder: "Encoder", images: _Images) -> "Encoder":
    """ImageNet weights of the network named, or of the encoder's own.

    Raises:
        UserError: they can't be had.
    """
    from fewlabel.backbones.pretrained import imagenet_encoder

    name = config.imagenet or encoder.config.name.removeprefix("timm/")
    source = images.source
    with images.accelerator.main_process_first():
        return imagenet_encoder(name, encoder.image_size, source.channels, source.bits)
