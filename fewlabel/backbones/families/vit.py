"""ViT: the Vision Transformer."""

import re
from dataclasses import dataclass, replace
from typing import Literal

from fewlabel.backbones.family import SMALL_IMAGE, Family, Member, check_rate
from fewlabel.backbones.registry import register
from fewlabel.backbones.timm_call import TimmCall
from fewlabel.errors import UserError

__all__ = ["VIT", "ViTOptions"]

SMALL_PATCH = 4
"""Patch side for images up to `SMALL_IMAGE` pixels: 32 px make 64 tokens; patches of 16 would leave 4."""


@dataclass(frozen=True)
class ViTOptions:
    """Options of a Vision Transformer."""

    patch_size: int | None = None
    """Side of a patch in pixels, a divisor of the image size. None: 4 up to 64 px, else the member's own."""

    pool: Literal["cls", "gap"] = "cls"
    """What becomes the feature: `cls`, the class token after the last layer norm; `gap`, the layer norm of
    the mean over patch tokens, and there is no class token."""

    drop_path_rate: float = 0.0
    """Probability that the last block's branches are skipped in training; earlier ones less, linearly."""

    def completed(self, member: str, image_size: int) -> "ViTOptions":
        """With the patch size decided.

        Raises:
            UserError: the patches don't tile the image.
        """
        check_rate("drop_path_rate", self.drop_path_rate)
        patch = self.patch_size
        if patch is None:
            named = re.search(r"patch(\d+)", member)
            patch = SMALL_PATCH if image_size <= SMALL_IMAGE or named is None else int(named[1])
        if not 1 <= patch <= image_size:
            raise UserError(f"patch_size is {patch}: give 1 to {image_size}, the image size.")
        if image_size % patch:
            below = image_size // patch * patch
            raise UserError(
                f"{member} cuts images into patches of {patch} px, which don't tile {image_size} px. "
                f"The nearest image sizes that work are {below} and {below + patch}; "
                "or give a patch_size that divides the image size."
            )
        return replace(self, patch_size=patch)


def _call(member: str, image_size: int, in_chans: int, options: ViTOptions) -> TimmCall:
    rates = ("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate")
    arguments = {
        "in_chans": in_chans,
        "img_size": image_size,
        "patch_size": options.patch_size,
        "class_token": options.pool == "cls",
        "global_pool": "token" if options.pool == "cls" else "avg",
        "drop_path_rate": options.drop_path_rate,
        **dict.fromkeys(rates, 0.0),
    }
    return TimmCall(member, arguments)


VIT = register(
    Family(
        name="vit",
        title="ViT",
        paper="Dosovitskiy et al. 2020, arXiv:2010.11929",
        summary="A pre-norm Transformer over linearly embedded patches with a learned position table.",
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
    )
)
