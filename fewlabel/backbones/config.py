"""What a command is told about the backbone. Imports nothing heavy: `--help` reads it."""

from dataclasses import dataclass

from tyro.conf import UseAppendAction

__all__ = ["ArchitectureConfig", "BackboneConfig"]


@dataclass(frozen=True)
class ArchitectureConfig:
    """The form of a backbone: its options, image size and scale."""

    backbone_option: UseAppendAction[tuple[str, ...]] = ()
    """An option of the backbone as NAME=VALUE, such as pool=gap for vit; may be given several times.
    `fewlabel backbones NAME` lists them."""

    image_size: int | None = None
    """Side of the square images that the backbone sees, in pixels, before scaling. None: what suits the
    source and the backbone."""

    scale_phi: float = 0.0
    """EfficientNet's compound scaling of any backbone: depth x 1.2^phi, width x 1.1^phi, image size x 1.15^phi,
    for about 1.92^phi times the cost."""

    scale_depth: float | None = None
    """Multiplier of depth. None: as phi says."""

    scale_width: float | None = None
    """Multiplier of width. None: as phi says."""

    scale_resolution: float | None = None
    """Multiplier of the image size. None: as phi says."""


@dataclass(frozen=True)
class BackboneConfig(ArchitectureConfig):
    """Which network turns an image into a feature vector, and in which form."""

    backbone: str = "resnet50"
    """A family (resnet, vit, ...: its member then follows from the image size), a member (resnet18,
    efficientnet_b0, ...), or any timm model as timm/NAME; `fewlabel backbones` lists them."""
