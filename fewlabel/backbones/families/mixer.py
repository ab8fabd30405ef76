"""MLP-Mixer: one MLP over tokens, one over channels; gMLP builds on the same file."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from fewlabel.backbones.family import Family, Member, Notes
from fewlabel.backbones.options import SMALL_IMAGE, check_number, check_rate, check_whole
from fewlabel.backbones.registry import register
from fewlabel.backbones.scale import Scale
from fewlabel.backbones.timm_call import Call, TimmCall

__all__ = ["MIXER", "MixerOptions", "TokenMlpOptions", "token_mlp_call"]

SMALL_PATCH = 4
"""Patch side for images up to `SMALL_IMAGE` pixels: 32 px make 64 tokens; patches of 16 would leave 4."""

SHAPES = {
    "mixer_tiny_32": (256, 8, 16),
    "mixer_s32_224": (512, 8, 32),
    "mixer_s16_224": (512, 8, 16),
    "mixer_b32_224": (768, 12, 32),
    "mixer_b16_224": (768, 12, 16),
    "mixer_l16_224": (1024, 24, 16),
}
"""Width, blocks and patch."""


@dataclass(frozen=True)
class TokenMlpOptions:
    """Options of a network of MLPs over patch tokens."""

    shapes: ClassVar[dict[str, tuple[int, int, int]]]
    """Width, blocks and patch of each member."""

    patch_size: int | None = None
    """Side of a patch in pixels, a divisor of the image size. None: 4 up to 64 px, else the member's."""

    width: int | None = None
    """Width of a token before scaling. None: the member's."""

    depth: int | None = None
    """Blocks before scaling. None: the member's."""

    drop_path_rate: float = 0.0
    """Probability that a residual branch is skipped in training, the same in all blocks."""

    def completed(self, member: str, image_size: int) -> Self:
        """With the patch size and the shape decided.

        Raises:
            UserError: values out of range.
        """
        own_width, own_depth, own_patch = self.shapes[member]
        if image_size <= SMALL_IMAGE:
            own_patch = SMALL_PATCH
        patch = own_patch if self.patch_size is None else self.patch_size
        width = own_width if self.width is None else self.width
        depth = own_depth if self.depth is None else self.depth
        check_whole("patch_size", patch, 1, 256)
        check_whole("width", width, 8, 8192)
        check_whole("depth", depth, 1, 256)
        check_rate("drop_path_rate", self.drop_path_rate)
        return replace(self, patch_size=patch, width=width, depth=depth)


def token_mlp_call(image_size: int, in_chans: int, scale: Scale, options: Any, **arguments: Any) -> TimmCall:
    """The call of timm's class for both families; `arguments` are the blocks' own."""
    shared = {
        "num_classes": 0,
        "img_size": image_size,
        "in_chans": in_chans,
        "patch_size": options.patch_size,
        "num_blocks": scale.blocks(options.depth),
        "embed_dim": scale.channels(options.width),
        "drop_path_rate": options.drop_path_rate,
        **dict.fromkeys(("drop_rate", "proj_drop_rate"), 0.0),
    }
    return TimmCall(Call("timm.models.MlpMixer", (), {**shared, **arguments}))


@dataclass(frozen=True)
class MixerOptions(TokenMlpOptions):
    """Options of an MLP-Mixer."""

    shapes = SHAPES

    token_mlp_ratio: float = 0.5
    """Hidden width of the MLP over tokens, over the token width: it doesn't depend on the number of tokens."""

    channel_mlp_ratio: float = 4.0
    """Hidden width of the MLP over channels, over the token width."""

    def completed(self, member: str, image_size: int) -> Self:
        """With the patch size and the shape decided.

        Raises:
            UserError: values out of range.
        """
        # 1/8 of the least width is one unit.
        check_number("token_mlp_ratio", self.token_mlp_ratio, 0.125, 16)
        check_number("channel_mlp_ratio", self.channel_mlp_ratio, 0.125, 16)
        return super().completed(member, image_size)


def _call(member: str, image_size: int, in_chans: int, scale: Scale, options: Any) -> TimmCall:
    ratios = (options.token_mlp_ratio, options.channel_mlp_ratio)
    return token_mlp_call(image_size, in_chans, scale, options, mlp_ratio=ratios)


MIXER = register(
    Family(
        name="mixer",
        title="MLP-Mixer",
        paper="Tolstikhin et al. 2021, arXiv:2105.01601",
        summary="Two MLPs a block and nothing else: one mixes tokens, channel by channel, one mixes channels.",
        notes=Notes(
            idea="Attention is replaced by an MLP over tokens whose weights don't depend on the image. Each block "
            "applies it to every channel alone, then an ordinary MLP to every token alone. The mean over tokens is the "
            "feature.",
            equation=r"U = X + \left(W_2\,\sigma(W_1\,\mathrm{LN}(X))\right), \qquad "
            r"Y = U + \sigma(\mathrm{LN}(U)\,W_3)\,W_4, \qquad X \in \mathbb R^{S \times D}",
            use="Quick on any device, as it is matrix products alone; wants many images, since nothing tells it that "
            "neighbours belong together.",
            scaling="Depth multiplies the blocks; width the token width, in multiples of 8, and both MLPs with it.",
            pitfalls=(
                "The image size is built into the weights over tokens: another size is another model, with another "
                "number of parameters.",
                "With many tokens the MLP over them grows: halving the patch side makes it four times as large.",
                "The MLP over channels is 8 times as wide as that over tokens, by the paper.",
            ),
            errata=("There is no position table: the MLP over tokens tells places apart by itself.",),
        ),
        members={
            "mixer_tiny_32": Member(32, "width 256, 8 blocks, patches of 4 px"),
            "mixer_s32_224": Member(224, "width 512, 8 blocks, patches of 32 px"),
            "mixer_s16_224": Member(224, "width 512, 8 blocks, patches of 16 px"),
            "mixer_b32_224": Member(224, "width 768, 12 blocks, patches of 32 px"),
            "mixer_b16_224": Member(224, "width 768, 12 blocks, patches of 16 px"),
            "mixer_l16_224": Member(224, "width 1024, 24 blocks, patches of 16 px"),
        },
        small="mixer_tiny_32",
        large="mixer_s16_224",
        options=MixerOptions,
        build=_call,
        convolutional=False,
        step=lambda options: options.patch_size,
    )
)
