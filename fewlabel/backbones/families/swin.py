"""Swin: attention within windows that shift; GCViT builds on the same options."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from fewlabel.backbones.family import Family, Member, Notes
from fewlabel.backbones.options import SMALL_IMAGE, check_heads, check_rate, check_whole
from fewlabel.backbones.registry import register
from fewlabel.backbones.scale import Scale
from fewlabel.backbones.timm_call import Call, TimmCall, create_model
from fewlabel.errors import UserError

__all__ = ["SWIN", "StagedOptions", "SwinOptions", "staged_arguments"]

SMALL_PATCH, PATCH = 2, 4
SMALL_WINDOW, WINDOW = 4, 7
"""Sides up to `SMALL_IMAGE` pixels, and as published above."""

WINDOWS = range(4, 13)
"""Sides that the rule chooses from: smaller windows see next to nothing, larger ones cost as much as the whole map."""

SHAPES = {
    "swin_tiny_32": (48, 3, (2, 6, 4)),
    "swin_tiny_patch4_window7_224": (96, 3, (2, 2, 6, 2)),
    "swin_small_patch4_window7_224": (96, 3, (2, 2, 18, 2)),
    "swin_base_patch4_window7_224": (128, 4, (2, 2, 18, 2)),
    "swin_large_patch4_window7_224": (192, 6, (2, 2, 18, 2)),
}
"""Width and heads of the first stage, and the blocks of every stage."""


@dataclass(frozen=True)
class StagedOptions:
    """Options of attention in stages, each at half the map's side, twice the width and twice the heads."""

    shapes: ClassVar[dict[str, tuple[int, int, tuple[int, ...]]]]
    """Width and heads of the first stage, and the blocks of every stage, for each member."""

    width: int | None = None
    """Width of the first stage before scaling, a multiple of its heads. None: the member's."""

    heads: int | None = None
    """Attention heads of the first stage. None: the member's."""

    depths: tuple[int, ...] | None = None
    """Blocks of each stage before scaling, one to four stages. None: the member's."""

    drop_path_rate: float = 0.0
    """Probability that the last block's branches are skipped in training; earlier ones less, linearly."""

    def completed(self, member: str, image_size: int) -> Self:
        """With the shape decided.

        Raises:
            UserError: values out of range, or heads that don't divide the width.
        """
        own_width, own_heads, own_depths = self.shapes[member]
        width = own_width if self.width is None else self.width
        heads = own_heads if self.heads is None else self.heads
        depths = own_depths if self.depths is None else self.depths
        check_whole("width", width, 8, 2048)
        check_heads(width, heads)
        if not 1 <= len(depths) <= 4:
            raise UserError(f"depths has {len(depths)} numbers: give one for each of one to four stages.")
        for depth in depths:
            check_whole("depths", depth, 1, 256)
        check_rate("drop_path_rate", self.drop_path_rate)
        return replace(self, width=width, heads=heads, depths=depths)


def staged_arguments(image_size: int, in_chans: int, scale: Scale, options: Any, multiple: int) -> dict[str, Any]:
    """Arguments for timm; every stochastic rate is stated, as timm's Swin drops a tenth of its branches by default.

    Args:
        multiple: what a scaled number of blocks is a multiple of.
    """
    return {
        "img_size": image_size,
        "in_chans": in_chans,
        "embed_dim": scale.channels(options.width, 8 * options.heads),
        "num_heads": tuple(options.heads * 2**stage for stage in range(len(options.depths))),
        "depths": tuple(scale.blocks(depth, multiple) for depth in options.depths),
        "drop_path_rate": options.drop_path_rate,
        **dict.fromkeys(("drop_rate", "proj_drop_rate", "attn_drop_rate"), 0.0),
    }


@dataclass(frozen=True)
class SwinOptions(StagedOptions):
    """Options of a Swin Transformer."""

    shapes = SHAPES

    patch_size: int | None = None
    """Side of a patch in pixels; the image's side is a multiple of it and of 2 for each stage but the first. None: 2 up
    to 64 px, else 4."""

    window_size: int | None = None
    """Side of a window in tokens; a smaller map is one window, and one that windows don't divide is padded. None: from
    4 to 12, what pads least; of equals, the nearest to 4 up to 64 px, else to 7."""

    def completed(self, member: str, image_size: int) -> Self:
        """With the patch size, the window and the shape decided.

        Raises:
            UserError: values out of range, or heads that don't divide the width.
        """
        shaped = super().completed(member, image_size)
        assert shaped.depths is not None
        small = image_size <= SMALL_IMAGE
        patch = (SMALL_PATCH if small else PATCH) if self.patch_size is None else self.patch_size
        check_whole("patch_size", patch, 1, 256)
        window = self.window_size
        if window is None:
            maps = [max(1, (image_size // patch) >> stage) for stage in range(len(shaped.depths))]
            wanted = SMALL_WINDOW if small else WINDOW
            window = min(WINDOWS, key=lambda side: (_padded(maps, side), abs(side - wanted)))
        check_whole("window_size", window, 1, 64)
        return replace(shaped, patch_size=patch, window_size=window)


def _padded(maps: list[int], window: int) -> float:
    """How many times larger each of `maps` gets by padding to whole windows, summed."""
    windows = [min(side, window) for side in maps]
    return sum((-(-side // own) * own / side) ** 2 for side, own in zip(maps, windows, strict=True))


def _call(member: str, image_size: int, in_chans: int, scale: Scale, options: Any) -> TimmCall:
    arguments = {
        **staged_arguments(image_size, in_chans, scale, options, multiple=2),
        "patch_size": options.patch_size,
        "window_size": options.window_size,
    }
    if member == "swin_tiny_32":
        return TimmCall(Call("timm.models.SwinTransformer", (), {"num_classes": 0, **arguments}))
    return TimmCall(create_model(member, **arguments))


SWIN = register(
    Family(
        name="swin",
        title="Swin Transformer",
        paper="Liu et al. 2021, arXiv:2103.14030",
        summary="Attention within small windows, shifted by half a window in every second block.",
        notes=Notes(
            idea="Attention over all tokens costs their square, so here each token attends within its window alone, "
            "which is linear in the image's area. Every second block shifts the windows by half their side, so that "
            "what was apart comes together, and a learned bias tells how far two tokens lie from each other. Between "
            "stages four tokens are merged into one, as a convolutional network halves its map.",
            equation=r"\mathrm{Attention}(Q, K, V) = \mathrm{softmax}\left(\frac{Q K^\top}{\sqrt d} + B\right) V, "
            r"\qquad \mathrm{merge}: \mathbb R^{H \times W \times C} \to \mathbb R^{H/2 \times W/2 \times 2C}",
            use="Large images on a GPU, where a ViT's cost hurts; up to 64 px the form of three stages with patches "
            "of 2 px and small windows.",
            scaling="Depth multiplies the blocks of each stage, to even numbers, as every second block shifts; width "
            "the channels, in multiples of 8 a head; the heads and the window stay.",
            pitfalls=(
                "A map no larger than the window is one window and is never shifted; with patches of 4 px and 32 px "
                "images only the first stage would shift.",
                "Windows that don't divide the map pad it: the published 7 at 64 px would waste 42 % of the first "
                "stage. The rule chooses a window that divides where there is one.",
                "timm skips up to a tenth of the branches in training by default; here `drop_path_rate` is 0 unless "
                "asked for.",
                "An odd number of blocks in a stage leaves one without its shifted partner.",
            ),
        ),
        members={
            "swin_tiny_32": Member(32, "width 48, 2-6-4 blocks, patches of 2 px, window 4"),
            "swin_tiny_patch4_window7_224": Member(224, "width 96, 2-2-6-2 blocks"),
            "swin_small_patch4_window7_224": Member(224, "width 96, 2-2-18-2 blocks"),
            "swin_base_patch4_window7_224": Member(224, "width 128, 2-2-18-2 blocks"),
            "swin_large_patch4_window7_224": Member(224, "width 192, 2-2-18-2 blocks"),
        },
        small="swin_tiny_32",
        large="swin_tiny_patch4_window7_224",
        options=SwinOptions,
        build=_call,
        convolutional=False,
        step=lambda options: options.patch_size * 2 ** (len(options.depths) - 1),
    )
)
