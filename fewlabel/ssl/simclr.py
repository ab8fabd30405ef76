"""SimCLR: two views of each image must find each other among those of all other images of the batch."""

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from fewlabel.ssl.config import SimCLRConfig
from fewlabel.ssl.nt_xent import nt_xent
from fewlabel.training.task import Task

if TYPE_CHECKING:
    from fewlabel.backbones.backbone import Backbone
    from fewlabel.data.store import ImageBatch

__all__ = ["SimCLR", "Views"]


class Views(Protocol):
    """What makes views of pixels `(B, C, S, S)` with aspect ratios `(B,)`: a `TwoViews`."""

    def __call__(self, pixels: Tensor, aspect: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two views `(B, C, H, W)` of each image."""

    def one(self, pixels: Tensor, aspect: Tensor, generator: torch.Generator) -> Tensor:
        """One view `(B, C, H, W)` of each image."""


class SimCLR(Task):
    """A backbone with a projection head, trained by NT-Xent on two views of each image.

    Args:
        backbone: `(B, C, H, W)` to `(B, num_features)`; put into channels-last format where that suits it.
        views: what makes two views of a batch.
        config: temperature, projection head and what counts as positive.

    Attributes:
        backbone: what is kept after training.
        head: lightly's `SimCLRProjectionHead`, thrown away.

    Source: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations,
    arXiv 2002.05709, algorithm 1.
    """

    views_per_image = 2

    def __init__(self, backbone: "Backbone", views: Views, config: SimCLRConfig) -> None:
        super().__init__()
        # Imported here for its weight: this loads all of lightly's models.
        from lightly.models.modules.heads import SimCLRProjectionHead

        width = backbone.num_features
        backbone.arrange()
        self.backbone = backbone
        self.head = SimCLRProjectionHead(
            input_dim=width,
            hidden_dim=config.projection_hidden or width,
            output_dim=config.projection_dim,
            num_layers=config.projection_layers,
        )
        self.views = views
        self.temperature = config.temperature
        self.positives = config.positives

    def forward(self, batch: "ImageBatch", generator: torch.Generator) -> dict[str, Tensor]:
        """The loss of a batch of N images.

        Args:
            batch: raw pixels and aspect ratios, on the module's device. Where positives are of one group, 2N
                images, the partner of image i at N + i (see `Loader`); their first and second views are one of each.
            generator: of the same device; where the views' random numbers come from.

        Returns:
            `loss`: a scalar of float32, over all processes' images (see `nt_xent`).
        """
        if self.positives == "image":
            return {"loss": nt_xent(*self.project(batch, generator), self.temperature)}
        with torch.no_grad(), torch.autocast(batch.pixels.device.type, enabled=False):
            views = self.views.one(batch.pixels, batch.aspect, generator)
        return {"loss": nt_xent(*self._embed(views), self.temperature)}

    def project(self, batch: "ImageBatch", generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The projections of two views of each image, `(N, projection_dim)` each: what the loss compares."""
        device = batch.pixels.device.type
        with torch.no_grad(), torch.autocast(device, enabled=False):
            views = torch.cat(self.views(batch.pixels, batch.aspect, generator))
        return self._embed(views)

    def _embed(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """The projections of the first and of the second half of `views`."""
        # Both in one pass, so that they share the batch statistics.
        first, second = self.head(self.backbone(views)).chunk(2)
        return first, second
