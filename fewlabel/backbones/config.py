"""What a command is told about the backbone. Imports nothing heavy: `--help` reads it."""

from dataclasses import dataclass

__all__ = ["BackboneConfig"]


@dataclass(frozen=True)
class BackboneConfig:
    """Which network turns an image into a feature vector, and at which image size."""

    backbone: str = "resnet50"
    """A family (resnet, senet, mobilenet, efficientnet, vit: its member follows from the image size), a
    member (resnet18, efficientnet_b0, ...), or any timm model as timm/NAME; see `fewlabel backbones`."""

    image_size: int | None = None
    """Side of the square images that the backbone sees, in pixels. None: what suits the source."""
