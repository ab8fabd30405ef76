"""The module that every backbone is, whoever wrote the network inside."""

from typing import Any

import torch
from torch import Tensor, nn

from fewlabel.backbones.scale import Scale
from fewlabel.backbones.small_maps import multiply_small_maps

__all__ = ["Backbone"]


class Backbone(nn.Module):
    """Image -> feature vector: (B, in_chans, image_size, image_size) float -> (B, num_features) float.

    Made by `fewlabel.backbones.create`. Every attribute is as chosen, nothing is left to a rule:
    `create(name, image_size=image_size, in_chans=in_chans, scale=scale, **options)` makes the same architecture again.
    """

    def __init__(
        self,
        body: nn.Module,
        *,
        name: str,
        options: dict[str, Any],
        image_size: int,
        in_chans: int,
        scale: Scale,
        timm_call: dict[str, Any] | None,
        convolutional: bool | None,
    ) -> None:
        super().__init__()
        self.body = body
        """The network itself; for one of timm's, its state dict is what plain timm loads."""
        self.name = name
        """The exact member, or timm/NAME."""
        self.options = options
        """Every option of the family, as JSON values."""
        self.image_size = image_size
        """Side of the square input in pixels, scaled already."""
        self.in_chans = in_chans
        self.scale = scale
        """The multipliers of depth and width that are in the network; that of resolution is in `image_size`."""
        self.timm_call = timm_call
        """How plain timm makes `body` (see `TimmCall.build`), or None for a network written here."""
        # timm's `num_features` is the width before the head's last convolution in MobileNetV3 and V4.
        self.num_features = int(body.head_hidden_size)  # type: ignore[arg-type]
        """Width of the features that really come out."""
        self.convolutional = _is_convolutional(body) if convolutional is None else convolutional
        """Whether it is a convolutional network rather than one of tokens (see `Family.convolutional`)."""

    @property
    def source(self) -> str:
        """Whose network it is: `timm` or `own`."""
        return "own" if self.timm_call is None else "timm"

    def no_weight_decay(self) -> set[str]:
        """Names, as in `named_parameters()`, that ask for no weight decay beside all one-dimensional ones.

        Position tables and class tokens, as timm lists them for the network.
        """
        listed: set[str] = getattr(self.body, "no_weight_decay", set)()
        return {f"body.{name}" for name, _ in self.body.named_parameters() if name in listed}

    def arrange(self) -> None:
        """Make convolutions fast, in place: channels last in memory, and small maps multiplied (`SmallMapConv2d`).

        Parameters, their names and, but for rounding, features stay as they are. A network of tokens isn't changed.
        """
        if self.convolutional:
            # Convolutions take the format from their weights and hand it on, so images need no change.
            self.to(memory_format=torch.channels_last)
            multiply_small_maps(self.body)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, num_features) of normalised `images` (B, in_chans, image_size, image_size)."""
        features: Tensor = self.body(images)
        return features


def _is_convolutional(body: nn.Module) -> bool:
    spatial = [m for m in body.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
    # One or two may be a token network's patch embedding.
    return len([m for m in spatial if m.kernel_size != m.stride]) > 2
