"""A CNN's feature maps as the tokens of a Transformer."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.layers import SEModule
from torch import Tensor, nn

from fewlabel.backbones.family import Family, Member, Notes
from fewlabel.backbones.hybrid import RESOLUTION_STEP, SCALING, Hybrid, HybridOptions, hybrid_arguments
from fewlabel.backbones.options import SMALL_IMAGE, check_whole
from fewlabel.backbones.registry import register
from fewlabel.backbones.scale import Scale
from fewlabel.errors import UserError

__all__ = ["HYBRID_CHANNEL", "HybridChannel", "HybridChannelOptions"]


class HybridChannel(Hybrid):
    """Each of the n feature maps, averaged to a grid x grid map, is a token: (B, C, S, S) -> (B, width).

    Nothing depends on the image size, as the pooling adapts to it.

    Args:
        grid: side of the pooled map.
        project: map a token's grid^2 values to `width`; otherwise `width` must be grid^2.
        squeeze_excite: weigh the maps by a gate before they become tokens (Hu et al. 2017, arXiv:1709.01507).
        arguments: those of `Hybrid`.

    Attributes:
        embedding: (1, n, width), which tells channels apart; initially truncated normal of standard deviation 0.02.
    """

    def __init__(self, grid: int, project: bool, squeeze_excite: bool, **arguments: Any) -> None:
        super().__init__(**arguments)
        channels, width = arguments["channels"][-1], self.num_features
        self.gate = SEModule(channels) if squeeze_excite else nn.Identity()
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.project = nn.Linear(grid * grid, width) if project else nn.Identity()
        self.embedding = nn.Parameter(torch.empty(1, channels, width))
        nn.init.trunc_normal_(self.embedding, std=0.02)
        self.initialize()

    def no_weight_decay(self) -> set[str]:
        """The channel embedding."""
        return {"embedding"}

    def tokens(self, maps: Tensor) -> Tensor:
        """Tokens (B, n, width) of `maps` (B, n, h, w)."""
        tokens: Tensor = self.project(self.pool(self.gate(maps)).flatten(2)) + self.embedding
        return tokens


@dataclass(frozen=True)
class HybridChannelOptions(HybridOptions):
    """Options of a hybrid with channel tokens."""

    grid: int | None = None
    """Side of the map that each channel is averaged to. 1 leaves one number of a channel and nothing of where it was.
    None: 8 up to 64 px, else 14."""

    project: bool = True
    """Map a token's grid x grid values to the token width; otherwise they are the token, whose width is then the
    grid's square, which scaling leaves alone and the heads must divide."""

    squeeze_excite: bool = False
    """Weigh the maps by a squeeze-and-excitation gate before they become tokens."""

    def completed(self, member: str, image_size: int) -> "HybridChannelOptions":
        """With the grid, the CNN and the encoder decided.

        Raises:
            UserError: as `HybridOptions.completed`; a width beside the grid's square without a projection.
        """
        grid = (8 if image_size <= SMALL_IMAGE else 14) if self.grid is None else self.grid
        check_whole("grid", grid, 1, 64)
        width = self.width
        if not self.project:
            if width not in (None, grid * grid):
                raise UserError(
                    f"Without a projection a token has the {grid} x {grid} = {grid * grid} values of its map, not "
                    f"{width}: leave width out."
                )
            check_whole("grid without a projection", grid, 3, 64)
            width = grid * grid
        base = HybridOptions.completed(replace(self, width=width), member, image_size)
        assert isinstance(base, HybridChannelOptions)
        return replace(base, grid=grid)


def _build(member: str, image_size: int, in_chans: int, scale: Scale, options: Any) -> HybridChannel:
    arguments = hybrid_arguments(in_chans, scale, options)
    if not options.project:
        arguments["width"] = options.width
    return HybridChannel(options.grid, options.project, options.squeeze_excite, **arguments)


HYBRID_CHANNEL = register(
    Family(
        name="hybrid_channel",
        title="CNN and Transformer, channel tokens",
        paper="No paper of its own; the encoder of Dosovitskiy et al. 2020, arXiv:2010.11929. Attention among channels "
        "as in XCiT: Ali et al. 2021, arXiv:2106.09681",
        summary="A small CNN whose feature maps are the tokens of a pre-norm Transformer.",
        notes=Notes(
            idea="A convolutional network's every feature map answers where one pattern is. Each map, averaged to a "
            "small grid and projected, is a token with a learned vector for its channel. A pre-norm Transformer then "
            "relates patterns to patterns instead of places to places, and the mean over channels is the feature.",
            equation=r"X = \mathrm{CNN}(I)\in\mathbb R^{n\times h\times w}, \qquad "
            r"z_c = W\,\mathrm{vec}(\mathrm{pool}_{g\times g}(X_c)) + b + e_c, \qquad z \in \mathbb R^{n\times D}",
            use="An experiment: what attention among channels does where attention among places is usual. Its cost "
            "does not grow with the image beyond the CNN. At 32 px it has as many parameters as the spatial-token "
            "hybrid, 603,168.",
            scaling=SCALING + " The grid stays; the number of tokens follows the last convolution.",
            pitfalls=(
                "A grid of 1 leaves one number of each map: no place survives.",
                "The grid does not grow with the image, so a larger image adds detail to the CNN alone.",
                "Maps may be redundant; `squeeze_excite=True` lets the network silence some before they are tokens.",
                "The convolutions have batch norm: its statistics in training are those of the batch.",
            ),
            errata=(
                "Pooling each map to a scalar and then applying a linear layer to the vector of channels gives one "
                "token an image and nothing to attend to. Here there are n tokens, one a channel.",
                "Maps of 14 x 14 as tokens without a projection have width 196, which 8 heads don't divide: 7 or 14 "
                "do, or a projection to a width of choice (the default).",
            ),
        ),
        members={
            "hybrid_channel_32": Member(32, "3 convolutions, 64 tokens of 128, 4 blocks"),
            "hybrid_channel_224": Member(224, "4 convolutions, 64 tokens of 192, 6 blocks"),
            "hybrid_channel_224_n256": Member(224, "4 convolutions, 256 tokens of 192, 6 blocks"),
        },
        small="hybrid_channel_32",
        large="hybrid_channel_224",
        options=HybridChannelOptions,
        build=_build,
        convolutional=False,
        scaling_step=lambda options: RESOLUTION_STEP,
    )
)
