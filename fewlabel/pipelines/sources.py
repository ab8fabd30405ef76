"""What commands do alike with a source: loading all of it, the size of its images for a network, and its record."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabel.backbones.config import BackboneConfig
from fewlabel.console import say
from fewlabel.data.config import SourceConfig
from fewlabel.data.window import AUTO
from fewlabel.errors import UserError

if TYPE_CHECKING:
    from fewlabel.data.origin import BadImage
    from fewlabel.data.source import Source

__all__ = ["base_image_size", "keep_left_out", "load_all", "record_of", "shown_alike"]


def load_all(config: SourceConfig) -> "Source":
    """The source, divided as for training, so that its splits are those; undivided where it is too small for that.

    Raises:
        UserError: there is no such source, or it can't be read.
    """
    from fewlabel.data.loading import load

    try:
        return load(config)
    except UserError:
        # Whatever else is wrong is wrong with one part too, and then told.
        return load(replace(config, val_share=0.0, test_share=0.0), least=1)


def shown_alike(config: SourceConfig, made_of: Mapping[str, Any]) -> SourceConfig:
    """`config` with the window that the images of an encoder or classifier were shown by; another one stays, and is
    told.

    Args:
        config: as given.
        made_of: the encoder's or classifier's provenance.
    """
    source = made_of.get("source")
    window = str(source.get("window", AUTO)) if isinstance(source, Mapping) else AUTO
    if config.window is None:
        return replace(config, window=window)
    if config.window != window:
        say(f"--window is {config.window}, but this network's images were shown by {window}: it may be misled.")
    return config


def base_image_size(source: "Source", config: BackboneConfig) -> int:
    """Side of the images for the network, in pixels, before scaling: as given, else what suits both.

    Raises:
        UserError: an unknown backbone or option.
    """
    from fewlabel.backbones.registry import fit_image_size, options_from
    from fewlabel.data.sizes import view_side

    if config.image_size is not None:
        return config.image_size
    suits_source = source.hints.image_size or view_side(source.median_side)
    return fit_image_size(config.backbone, suits_source, **options_from(config.backbone, config.backbone_option))


def record_of(source: "Source", config: SourceConfig) -> dict[str, Any]:
    """What a run records of its source; the names of images that a list left out are for `keep_left_out`."""
    from fewlabel.data.exclusion import count_reasons

    about: dict[str, Any] = {"name": source.name, "data": config.data, "fingerprint": source.fingerprint}
    about["window"] = source.window
    if source.group_counts is not None:
        about["groups"] = source.group_counts
    if source.exclusion is not None:
        counts = count_reasons([image.reason for image in source.excluded])
        about["exclusion"] = {
            "list": str(source.exclusion.path),
            "hash": source.exclusion.digest,
            "images": len(source.excluded),
        }
        # A list, of which W&B gets the length alone: the words are whoever's who wrote the list.
        about["excluded_because"] = [{"reason": reason, "images": count} for reason, count in counts.items()]
    return about


def keep_left_out(source: "Source", bad: "Sequence[BadImage]", directory: Path) -> None:
    """Write which images a run left out, and why, to `left_out.csv` in its directory; nothing where it left none out.

    Args:
        source: its `excluded` were left out by a list.
        bad: those that couldn't be read.
        directory: the run's.
    """
    from fewlabel.pipelines.outputs import write_table

    causes = {"excluded": source.excluded, "unreadable": bad}
    rows = [(image.id, cause, image.reason) for cause, images in causes.items() for image in images]
    if rows:
        ids, why, reasons = map(list, zip(*rows, strict=True))
        write_table({"id": ids, "cause": why, "reason": reasons}, directory / "left_out.csv")
