"""SimCLR: two views of each image must find each other among those of all other images of the batch."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fewlabel.ssl.config import SimCLRConfig
from fewlabel.ssl.nt_xent import nt_xent

if TYPE_CHECKING:
    from fewlabel.backbones.backbone import Backbone
    from fewlabel.data.store import ImageBatch

__all__ = ["SimCLR", "Views"]

Views = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Pixels `(B, C, S, S)`, aspect ratios `(B,)` and a generator to two views `(B, C, H, W)`: a `TwoViews`."""


class SimCLR(nn.Module):
    """A backbone with a projection head, trained by NT-Xent on two views of each image.

    Args:
        backbone: `(B, C, H, W)` to `(B, num_features)`; put into channels-last format where that suits it.
        views: what makes two views of a batch.
        config: temperature and projection head.

    Attributes:
        backbone: what is kept after training.
        head: lightly's `SimCLRProjectionHead`, thrown away.

    Source: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations,
    arXiv 2002.05709, algorithm 1.
    """

    def __init__(self, backbone: "Backbone", views: Views, config: SimCLRConfig) -> None:
        super().__init__()
        # Imported here for its weight: this loads all of lightly's models.
        from lightly.models.modules.heads import SimCLRProjectionHead

        width = backbone.num_features
        if backbone.convolutional:
            # Convolutions take the format from their weights and hand it on, so the images need no change.
            backbone.to(memory_format=torch.channels_last)
        self.backbone = backbone
        self.head = SimCLRProjectionHead(
            input_dim=width,
            hidden_dim=config.projection_hidden or width,
            output_dim=config.projection_dim,
            num_layers=config.projection_layers,
        )
        self.views = views
        self.temperature = config.temperature

    def forward(self, batch: "ImageBatch", generator: torch.Generator) -> dict[str, Tensor]:
        """The loss of a batch of N images.

        Args:
            batch: raw pixels and aspect ratios, on the module's device.
            generator: of the same device; where the views' random numbers come from.

        Returns:
            `loss`: a scalar of float32, over all processes' images (see `nt_xent`).
        """
        return {"loss": nt_xent(*self.project(batch, generator), self.temperature)}

    def project(self, batch: "ImageBatch", generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The projections of two views of each image, `(N, projection_dim)` each: what the loss compares."""
        device = batch.pixels.device.type
        with torch.no_grad(), torch.autocast(device, enabled=False):
            views = torch.cat(self.views(batch.pixels, batch.aspect, generator))
        # Both views in one pass, so that they share the batch statistics.
        first, second = self.head(self.backbone(views)).chunk(2)
        return first, second
