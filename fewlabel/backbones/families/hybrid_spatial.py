"""A CNN's map positions as the tokens of a Transformer."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from fewlabel.backbones.family import Family, Member, Notes
from fewlabel.backbones.hybrid import RESOLUTION_STEP, SCALING, Hybrid, HybridOptions, hybrid_arguments
from fewlabel.backbones.registry import register
from fewlabel.backbones.scale import Scale

__all__ = ["HYBRID_SPATIAL", "HybridSpatial", "HybridSpatialOptions"]


class HybridSpatial(Hybrid):
    """Each position of the last h x w map is a token; the mean over tokens, or a class token, is the feature.

    (B, C, S, S) -> (B, width). Images of another size than built for work: the position table is then interpolated.

    Attributes:
        project: the linear map of a position's channels, which is a 1x1 convolution.
        positions: (1, h w, width), initially truncated normal of standard deviation 0.02.
        class_token: (1, 1, width), or None if `pool` is `mean`; it has no place, so no row of `positions`.

    Source: Dosovitskiy et al. 2020, arXiv:2010.11929, section 3.1, hybrid architecture.
    """

    def __init__(self, image_size: int, pool: Literal["mean", "cls"], **arguments: Any) -> None:
        super().__init__(**arguments)
        width = self.num_features
        side = image_size
        for stride in arguments["strides"]:
            side = -(-side // stride)
        self.project = nn.Linear(arguments["channels"][-1], width)
        self.positions = nn.Parameter(torch.empty(1, side * side, width))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.class_token = None
        if pool == "cls":
            self.class_token = nn.Parameter(torch.empty(1, 1, width))
            nn.init.trunc_normal_(self.class_token, std=0.02)
        self.initialize()

    def no_weight_decay(self) -> set[str]:
        """The position table and the class token."""
        return {"positions", "class_token"}

    def tokens(self, maps: Tensor) -> Tensor:
        """Tokens (B, h w, width) of `maps` (B, channels, h, w), row by row; the class token, if any, goes first."""
        tokens: Tensor = self.project(maps.flatten(2).transpose(1, 2))
        tokens = tokens + resample_abs_pos_embed(self.positions, list(maps.shape[-2:]), num_prefix_tokens=0)
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1).to(tokens.dtype), tokens], 1)
        return tokens

    def forward(self, images: Tensor) -> Tensor:
        """Features of `images`."""
        return super().forward(images) if self.class_token is None else self.forward_features(images)[:, 0]


@dataclass(frozen=True)
class HybridSpatialOptions(HybridOptions):
    """Options of a hybrid with spatial tokens."""

    pool: Literal["mean", "cls"] = "mean"
    """What becomes the feature: the `mean` over tokens, or one more token, `cls`, that attends to all others."""


def _build(member: str, image_size: int, in_chans: int, scale: Scale, options: Any) -> HybridSpatial:
    return HybridSpatial(image_size, options.pool, **hybrid_arguments(in_chans, scale, options))


HYBRID_SPATIAL = register(
    Family(
        name="hybrid_spatial",
        title="CNN and Transformer, spatial tokens",
        paper="The hybrid architecture of Dosovitskiy et al. 2020, arXiv:2010.11929, section 3.1; a small CNN in front "
        "of the encoder: Xiao et al. 2021, arXiv:2106.14881",
        summary="A small CNN whose map positions are the tokens of a pre-norm Transformer.",
        notes=Notes(
            idea="A few strided convolutions take the place of ViT's patch embedding, so that tokens hold edges and "
            "textures before any attention. Each position of the last map is a token and gets a learned vector for its "
            "place. A pre-norm Transformer relates the places to each other, and the mean over them is the feature.",
            equation=r"X = \mathrm{CNN}(I)\in\mathbb R^{C\times h\times w}, \qquad "
            r"z_{(i,j)} = W X_{:,i,j} + b + p_{(i,j)}, \qquad z \in \mathbb R^{hw\times D}",
            use="Fewer images than a plain ViT needs, as locality need not be learned. With the channel-token hybrid "
            "it makes a matched pair: at 32 px both have 603,168 parameters.",
            scaling=SCALING,
            pitfalls=(
                "Attention grows with the fourth power of the image's side: a larger image wants one more stride of 2.",
                "The position table belongs to one image size; at another it is interpolated (bicubic).",
                "The convolutions have batch norm: its statistics in training are those of the batch.",
            ),
            errata=(
                "`torch.nn.TransformerEncoder` on (B, N, D) without `batch_first=True` attends across the batch: "
                "images see each other and their own places don't, which voids a contrastive loss. Here attention "
                "is among one image's tokens.",
                "A position table for 224 px alone fails at any other size: here it is built for the image size.",
            ),
        ),
        members={
            "hybrid_spatial_32": Member(32, "3 convolutions, 64 tokens of 128, 4 blocks"),
            "hybrid_spatial_224": Member(224, "4 convolutions, 196 tokens of 192, 6 blocks"),
        },
        small="hybrid_spatial_32",
        large="hybrid_spatial_224",
        options=HybridSpatialOptions,
        build=_build,
        convolutional=False,
        scaling_step=lambda options: RESOLUTION_STEP,
    )
)
