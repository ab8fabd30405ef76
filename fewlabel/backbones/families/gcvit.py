"""GCViT: attention within windows, in turn by the window's own queries and by queries from the whole image."""

from dataclasses import dataclass, replace
from typing import Any, Self

from fewlabel.backbones.families.swin import StagedOptions, staged_arguments
from fewlabel.backbones.family import Family, Member, Notes
from fewlabel.backbones.options import SMALL_IMAGE
from fewlabel.backbones.registry import register
from fewlabel.backbones.scale import Scale
from fewlabel.backbones.timm_call import Call, TimmCall
from fewlabel.errors import UserError

__all__ = ["GCVIT", "GCViTOptions"]

STRIDES = (4, 8, 16, 32)
"""Pixels of a token's side in each stage."""

RATIOS = (32, 32, 16, 32)
"""The image's side over the window's, as published: windows of 7, 7, 14 and 7 at 224 px."""

SMALL_WINDOW = 4
"""The largest window for images up to `SMALL_IMAGE` pixels, where the published ratios leave 1 and 2."""

SHAPES = {
    "gcvit_tiny_32": (64, 2, (2, 2, 6)),
    "gcvit_xxtiny": (64, 2, (2, 2, 6, 2)),
    "gcvit_xtiny": (64, 2, (3, 4, 6, 5)),
    "gcvit_tiny": (64, 2, (3, 4, 19, 5)),
    "gcvit_small": (96, 3, (3, 4, 19, 5)),
    "gcvit_base": (128, 4, (3, 4, 19, 5)),
}
"""Width and heads of the first stage, and the blocks of every stage."""


@dataclass(frozen=True)
class GCViTOptions(StagedOptions):
    """Options of a Global Context ViT."""

    shapes = SHAPES

    window_ratio: tuple[int, ...] | None = None
    """The image's side over a window's side in tokens, for each stage: 4, 8, 16 and 32 make the whole map one window;
    twice as much halves the window, and so on. None: up to 64 px, windows of at most 4; else 32, 32, 16 and 32."""

    def completed(self, member: str, image_size: int) -> Self:
        """With the windows and the shape decided.

        Raises:
            UserError: values out of range, heads that don't divide the width, or a ratio that leaves a global query
                without its place.
        """
        shaped = super().completed(member, image_size)
        assert shaped.depths is not None
        strides = STRIDES[: len(shaped.depths)]
        ratios = self.window_ratio
        if ratios is None:
            ratios = RATIOS[: len(strides)]
            if image_size <= SMALL_IMAGE:
                least = 2 ** (-(-image_size // SMALL_WINDOW) - 1).bit_length()
                ratios = tuple(max(stride, least) for stride in strides)
        if len(ratios) != len(strides):
            raise UserError(f"There are {len(strides)} stages: give window_ratio as many numbers, not {len(ratios)}.")
        for ratio, stride in zip(ratios, strides, strict=True):
            # The global queries come from the map by halving it.
            legal = [stride * 2**halvings for halvings in range(6)]
            if ratio not in legal:
                raise UserError(f"window_ratio has {ratio} for the stage of stride {stride}: take one of {legal}.")
        return replace(shaped, window_ratio=ratios)


def _call(member: str, image_size: int, in_chans: int, scale: Scale, options: Any) -> TimmCall:
    arguments = {
        "num_classes": 0,
        **staged_arguments(image_size, in_chans, scale, options, multiple=1),
        "window_ratio": options.window_ratio,
    }
    if min(arguments["depths"]) < 2:
        raise UserError(
            f"{member} would have {arguments['depths']} blocks in its stages: give each two or more, as every second "
            "one is global."
        )
    if member in ("gcvit_small", "gcvit_base"):
        arguments |= {"mlp_ratio": 2.0, "layer_scale": 1e-5}
    return TimmCall(Call("timm.models.GlobalContextVit", (), arguments))


GCVIT = register(
    Family(
        name="gcvit",
        title="GCViT",
        paper="Hatamizadeh et al. 2022, arXiv:2206.09959",
        summary="Window attention in turn by the window's own queries and by queries pooled from the whole image.",
        notes=Notes(
            idea="Instead of shifting windows, every second block asks each window the same questions, which come from "
            "the whole image. A small convolutional network reduces the stage's map to the size of one window, and "
            "those features are the queries, while keys and values are the window's own. Fused inverted residuals with "
            "a strided convolution lead from stage to stage.",
            equation=r"\mathrm{Attention}(Q_g, K, V) = \mathrm{softmax}\left(\frac{Q_g K^\top}{\sqrt d} + B\right) V, "
            r"\qquad Q_g = \mathrm{pool}^{L}(x), \quad L = \log_2 \frac{\mathrm{map}}{\mathrm{window}}",
            use="As Swin, with fewer parameters for the result; slower on a CPU.",
            scaling="Depth multiplies the blocks of each stage, width the channels, in multiples of 8 a head; the "
            "heads and the ratio of image to window stay, so that windows grow with the resolution.",
            pitfalls=(
                "The queries fit a window only if map over window is a power of two, so windows are given as ratios "
                "and the side must be a multiple of 32 px (16 with three stages).",
                "The published ratios leave windows of 1 and 2 tokens at 32 px: up to 64 px windows of 4 are kept.",
                "timm before 1.0.31 gave windows the queries of other images of the batch, which lets one view see "
                "another; this version of timm or a later one is required.",
                "A stage of a single block would have no global one and leave the query network without gradient.",
            ),
            errata=(
                "Between stages: layer norm, x + FusedMBConv(x), a strided 3x3 convolution from C to 2C, layer norm. "
                "Max-pooling belongs to the global queries alone.",
                "The pooled features are the queries as they are; only keys and values have a linear map.",
            ),
        ),
        members={
            "gcvit_tiny_32": Member(32, "width 64, 2-2-6 blocks"),
            "gcvit_xxtiny": Member(224, "width 64, 2-2-6-2 blocks"),
            "gcvit_xtiny": Member(224, "width 64, 3-4-6-5 blocks"),
            "gcvit_tiny": Member(224, "width 64, 3-4-19-5 blocks"),
            "gcvit_small": Member(224, "width 96, 3-4-19-5 blocks, layer scale"),
            "gcvit_base": Member(224, "width 128, 3-4-19-5 blocks, layer scale"),
        },
        small="gcvit_tiny_32",
        large="gcvit_xxtiny",
        options=GCViTOptions,
        build=_call,
        convolutional=False,
        # All are powers of two, so the greatest is a multiple of the others.
        step=lambda options: max(*options.window_ratio, STRIDES[len(options.depths) - 1]),
    )
)
