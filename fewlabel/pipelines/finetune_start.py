"""What fine-tuning begins with: an encoder of whatever kind, and the labels that may be used."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from fewlabel.errors import UserError
from fewlabel.pipelines.labelled import open_labelled, subsets_of
from fewlabel.pipelines.sources import base_image_size

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

    from fewlabel.backbones.backbone import Backbone
    from fewlabel.backbones.encoder import Encoder
    from fewlabel.data.source import Source
    from fewlabel.data.store import ImageStore
    from fewlabel.pipelines.finetune import Config

__all__ = ["SCRATCH", "TIMM", "begin", "drawn"]

SCRATCH = "scratch"
TIMM = "timm:"


def begin(
    config: "Config", source: "Source", accelerator: "Accelerator"
) -> "tuple[Config, Encoder, dict[str, ImageStore]]":
    """The encoder to start from, and the splits at the size that suits it.

    Raises:
        UserError: there are no labels to learn from or to judge by, or there is no such encoder.
    """
    from fewlabel.backbones.encoder import as_encoder, load_encoder
    from fewlabel.backbones.pretrained import imagenet_encoder
    from fewlabel.backbones.registry import create, options_from
    from fewlabel.backbones.scale import Scale
    from fewlabel.data.store import mean_and_std

    def opened(backbone: "Backbone") -> "dict[str, ImageStore]":
        with accelerator.main_process_first():
            return open_labelled(source, backbone, config.source, ordinal=config.ordinal)

    encoder, chosen = config.encoder or "", config.backbone
    if encoder == SCRATCH:
        options = options_from(chosen.backbone, chosen.backbone_option)
        size = base_image_size(source, chosen)
        backbone = create(chosen.backbone, image_size=size, in_chans=source.channels, scale=Scale.of(chosen), **options)
        stores = opened(backbone)
        mean, std = mean_and_std(stores["train"], config.training.seed)
        start = as_encoder(backbone, mean=mean, std=std, bits=source.bits, provenance={}, trained=False)
        return replace(config, backbone=replace(chosen, image_size=size)), start, stores
    if encoder.startswith(TIMM):
        with accelerator.main_process_first():
            start = imagenet_encoder(encoder.removeprefix(TIMM), chosen.image_size, source.channels, source.bits)
        chosen = replace(chosen, image_size=start.image_size)
        config = replace(config, encoder=str(start.config.provenance["run"]), backbone=chosen)
    else:
        start = load_encoder(encoder)
    return config, start, opened(start.backbone)


def drawn(config: "Config", stores: "Mapping[str, ImageStore]") -> "tuple[Tensor, Tensor | None]":
    """The positions of the labelled images in train, and of the same share in val if they are enough to judge by.

    Raises:
        UserError: there is no such draw.
    """
    from fewlabel.supervised.config import FewLabelsConfig
    from fewlabel.supervised.subsets import validation_subset

    train, val, seed = stores["train"], stores.get("val"), config.training.seed
    few = FewLabelsConfig(
        labels=() if config.shots is not None else (config.labels or 1.0,),
        shots=() if config.shots is None else (config.shots,),
        draws=config.draw + 1,
    )
    found = {subset.draw: subset.indices for subset in subsets_of(train, few, seed)}
    if config.draw not in found:
        raise UserError(
            f"There is no draw {config.draw} of so many labels that differs from the ones before. Take --draw 0, or "
            "fewer labels."
        )
    labelled = found[config.draw]
    if val is None:
        return labelled, None
    share = len(labelled) / len(train.labelled)
    return labelled, validation_subset(val.ids, val.labels, val.groups, share, seed)
