"""ViT: the Vision Transformer."""

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from fewlabel.backbones.family import Family, Member, Notes
from fewlabel.backbones.options import SMALL_IMAGE, check_heads, check_rate, check_whole
from fewlabel.backbones.registry import register
from fewlabel.backbones.scale import Scale
from fewlabel.backbones.timm_call import TimmCall, create_model

__all__ = ["VIT", "ViTOptions"]

SMALL_PATCH = 4
"""Patch side for images up to `SMALL_IMAGE` pixels: 32 px make 64 tokens; patches of 16 would leave 4."""

SHAPES = {"tiny": (192, 3, 12), "small": (384, 6, 12), "base": (768, 12, 12), "large": (1024, 16, 24)}
"""Width, heads and blocks of each size."""

POOLS = {"cls": "token", "gap": "avg", "max": "max", "avgmax": "avgmax", "map": "map"}


@dataclass(frozen=True)
class ViTOptions:
    """Options of a Vision Transformer."""

    patch_size: int | None = None
    """Side of a patch in pixels, a divisor of the image size. None: 4 up to 64 px, else the member's own."""

    pool: Literal["cls", "gap", "max", "avgmax", "map"] = "cls"
    """What becomes the feature: `cls`, the class token after the last layer norm; `gap`, the layer norm of
    the mean over patch tokens; `max`, `avgmax`, of their maximum or of the mean of both; `map`, one more attention
    that pools them. Only `cls` has a class token."""

    positions: Literal["learned", "none"] = "learned"
    """A learned vector for each patch's place, or none: the patches are then a bag."""

    width: int | None = None
    """Width of a token before scaling, a multiple of the heads. None: the member's."""

    heads: int | None = None
    """Attention heads of each block. None: the member's."""

    depth: int | None = None
    """Blocks before scaling. None: the member's."""

    drop_path_rate: float = 0.0
    """Probability that the last block's branches are skipped in training; earlier ones less, linearly."""

    def completed(self, member: str, image_size: int) -> "ViTOptions":
        """With the patch size and the shape decided.

        Raises:
            UserError: values out of range, or heads that don't divide the width.
        """
        check_rate("drop_path_rate", self.drop_path_rate)
        size, own_patch = re.fullmatch(r"vit_([a-z]+)_patch(\d+)_\d+", member).groups()  # type: ignore[union-attr]
        patch = self.patch_size
        if patch is None:
            patch = SMALL_PATCH if image_size <= SMALL_IMAGE else int(own_patch)
        own_width, own_heads, own_depth = SHAPES[size]
        width = own_width if self.width is None else self.width
        heads = own_heads if self.heads is None else self.heads
        depth = own_depth if self.depth is None else self.depth
        check_whole("patch_size", patch, 1, 256)
        check_whole("width", width, 8, 8192)
        check_whole("depth", depth, 1, 256)
        check_heads(width, heads)
        return replace(self, patch_size=patch, width=width, heads=heads, depth=depth)


def _call(member: str, image_size: int, in_chans: int, scale: Scale, options: Any) -> TimmCall:
    rates = ("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate")
    arguments = {
        "in_chans": in_chans,
        "img_size": image_size,
        "patch_size": options.patch_size,
        "embed_dim": scale.channels(options.width, 8 * options.heads),
        "num_heads": options.heads,
        "depth": scale.blocks(options.depth),
        "class_token": options.pool == "cls",
        "global_pool": POOLS[options.pool],
        "pos_embed": "learn" if options.positions == "learned" else "none",
        "drop_path_rate": options.drop_path_rate,
        **dict.fromkeys(rates, 0.0),
    }
    return TimmCall(create_model(member, **arguments))


VIT = register(
    Family(
        name="vit",
        title="ViT",
        paper="Dosovitskiy et al. 2020, arXiv:2010.11929",
        summary="A pre-norm Transformer over linearly embedded patches with a learned position table.",
        notes=Notes(
            idea="The image is cut into patches, each patch becomes a token by one linear map, and a learned vector "
            "tells its place. Every block lets each token attend to all others, then passes it through a small MLP. "
            "A class token, or the mean over patches, is the feature.",
            equation=r"z' = \mathrm{MSA}(\mathrm{LN}(z)) + z, \qquad z'' = \mathrm{MLP}(\mathrm{LN}(z')) + z'",
            use="Where there are many unlabelled images and a GPU; on a few thousand images a convolutional network "
            "learns more from each.",
            scaling="Depth multiplies the blocks; width the token width, in multiples of 8 a head, the number of heads "
            "stays.",
            pitfalls=(
                "At 32 px patches of 16 leave four tokens, so up to 64 px patches are 4 px: 64 tokens.",
                "Cost grows with the square of the tokens: halving the patch side costs 4 to 16 times.",
                "The image size is built in through the position table; a model for another size is another model.",
            ),
            errata=(
                "ViT is pre-norm, z' = MSA(LN(z)) + z with one more layer norm at the end, not LN(z + MSA(z)).",
                "The position table is added to the tokens, not concatenated.",
            ),
        ),
        members={
            "vit_tiny_patch16_224": Member(224, "width 192, 3 heads, 12 blocks"),
            "vit_small_patch8_224": Member(224, "ViT-S with patches of 8 px"),
            "vit_small_patch16_224": Member(224, "width 384, 6 heads, 12 blocks"),
            "vit_small_patch32_224": Member(224, "ViT-S with patches of 32 px"),
            "vit_base_patch8_224": Member(224, "ViT-B with patches of 8 px"),
            "vit_base_patch16_224": Member(224, "width 768, 12 heads, 12 blocks"),
            "vit_base_patch32_224": Member(224, "ViT-B with patches of 32 px"),
            "vit_large_patch16_224": Member(224, "width 1024, 16 heads, 24 blocks"),
        },
        small="vit_tiny_patch16_224",
        large="vit_small_patch16_224",
        options=ViTOptions,
        build=_call,
        convolutional=False,
        step=lambda options: options.patch_size,
    )
)
