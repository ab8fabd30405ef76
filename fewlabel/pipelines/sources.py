"""What commands do alike with a source: loading all of it, and the size of its images for a network."""

from dataclasses import replace
from typing import TYPE_CHECKING

from fewlabel.backbones.config import BackboneConfig
from fewlabel.data.config import SourceConfig
from fewlabel.errors import UserError

if TYPE_CHECKING:
    from fewlabel.data.source import Source

__all__ = ["base_image_size", "load_all"]


def load_all(config: SourceConfig) -> "Source":
    """The source, divided as for training, so that its splits are those; undivided where it is too small for that.

    Raises:
        UserError: there is no such source, or it can't be read.
    """
    from fewlabel.data.source import load

    try:
        return load(config)
    except UserError:
        # Whatever else is wrong is wrong with one part too, and then told.
        return load(replace(config, val_share=0.0, test_share=0.0), least=1)


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
