"""MobileViT: Transformers between the convolutions of a MobileNet."""

from dataclasses import dataclass
from typing import Any

from fewlabel.backbones.convolutional import ConvolutionalOptions, convolutional_arguments
from fewlabel.backbones.family import Family, Member, Notes
from fewlabel.backbones.registry import register
from fewlabel.backbones.scale import Scale
from fewlabel.backbones.timm_call import Call, TimmCall, create_model

__all__ = ["MOBILEVIT"]

DEPTHS = (2, 4, 3)
"""Transformer layers of the last three stages."""


@dataclass(frozen=True)
class Shape:
    """A published MobileViT."""

    stem: int
    widths: tuple[int, ...]
    """Channels of the five stages."""
    repeats: tuple[int, int]
    """Inverted residuals of the first two stages."""
    expansion: float
    """Hidden width of an inverted residual over its input's."""
    tokens: tuple[int, ...] = ()
    """Widths of the Transformers of the last three stages; V2 has none: half of the channels."""
    head: int = 0
    """Channels of the last 1x1 convolution; 0: there is none."""


def _v2(width: float) -> Shape:
    channels = [int(width * channels) for channels in (32, 64, 128, 256, 384, 512)]
    return Shape(channels[0], tuple(channels[1:]), (1, 2), 2.0)


SHAPES = {
    "mobilevit_xxs": Shape(16, (16, 24, 48, 64, 80), (1, 3), 2.0, (64, 80, 96), 320),
    "mobilevit_xs": Shape(16, (32, 48, 64, 80, 96), (1, 3), 4.0, (96, 120, 144), 384),
    "mobilevit_s": Shape(16, (32, 64, 96, 128, 160), (1, 3), 4.0, (144, 192, 240), 640),
    "mobilevitv2_050": _v2(0.5),
    "mobilevitv2_100": _v2(1.0),
    "mobilevitv2_200": _v2(2.0),
}


def _inverted_residuals(shape: Shape, repeats: int, channels: int, stride: int) -> Call:
    keywords = {"d": repeats, "c": channels, "s": stride, "gs": 1, "br": shape.expansion}
    extra = {"bottle_in": True, "linear_out": True}
    return Call("timm.models.ByoBlockCfg", ("bottle",), {**keywords, "block_kwargs": extra})


def _transformers(shape: Shape, stage: int, channels: int, scale: Scale) -> Call:
    extra = {"transformer_depth": scale.blocks(DEPTHS[stage]), "patch_size": 2}
    if not shape.tokens:
        keywords = {"d": 1, "c": channels, "s": 1, "br": 0.5, "gs": 1}
        return Call("timm.models.ByoBlockCfg", ("mobilevit2",), {**keywords, "block_kwargs": extra})
    extra["transformer_dim"] = scale.channels(shape.tokens[stage])
    return Call("timm.models.ByoBlockCfg", ("mobilevit",), {"d": 1, "c": channels, "s": 1, "block_kwargs": extra})


def _call(member: str, image_size: int, in_chans: int, scale: Scale, options: Any) -> TimmCall:
    arguments: dict[str, Any] = convolutional_arguments(in_chans, options)
    if (scale.depth, scale.width) != (1, 1):
        shape = SHAPES[member]
        first, second, *others = map(scale.channels, shape.widths)
        arguments["stem_chs"] = scale.channels(shape.stem)
        arguments["blocks"] = (
            _inverted_residuals(shape, scale.blocks(shape.repeats[0]), first, 1),
            _inverted_residuals(shape, scale.blocks(shape.repeats[1]), second, 2),
            *(
                (_inverted_residuals(shape, 1, channels, 2), _transformers(shape, stage, channels, scale))
                for stage, channels in enumerate(others)
            ),
        )
        if shape.head:
            arguments["num_features"] = scale.channels(shape.head)
    return TimmCall(create_model(member, **arguments), small_stem=bool(options.small_stem))


def _scaling_step(options: Any) -> int:
    stride: int = options.output_stride // (4 if options.small_stem else 1)
    # Patches are 2x2, also in the last map.
    return 2 * max(1, stride)


MOBILEVIT = register(
    Family(
        name="mobilevit",
        title="MobileViT",
        paper="Mehta and Rastegari 2021, arXiv:2110.02178; V2: arXiv:2206.02680",
        summary="A MobileNet whose last three stages let pixels attend across the image, in place of a convolution.",
        notes=Notes(
            idea="A convolution looks at its neighbours, projects, multiplies and folds back; in a MobileViT block the "
            "multiplication in the middle is a Transformer over the whole map. The map is cut into patches of 2x2 "
            "pixels, and pixels at the same place of all patches attend to one another, while convolutions before and "
            "after carry what is near. V2 replaces attention by one context vector, at linear cost.",
            equation=r"X_U(p) = \mathrm{Transformer}(X_L(p)), \quad 1 \le p \le P = 4, \qquad "
            r"Y = \mathrm{Conv}_{3 \times 3}\left[X,\; \mathrm{Conv}_{1 \times 1}(\mathrm{fold}(X_U))\right]",
            use="A small encoder that sees the whole image and, having convolutions, learns from few of them.",
            scaling="Depth multiplies the Transformers' layers and the inverted residuals of the first two stages; the "
            "strided one that leads into each later stage stays single. Width multiplies all channels and the "
            "Transformers' widths, in multiples of 8; the four heads stay.",
            pitfalls=(
                "A map of odd side is stretched to an even one and back, which blurs it; multiples of 64 px (16 with "
                "the small stem) avoid it.",
                "At 32 px the strides leave a 1x1 map; up to 64 px stem and first strided block keep the resolution, "
                "and the last map is 4x4.",
                "A plain reshape into patches groups bands of rows, not equal places of patches, and folds back just "
                "as exactly: only the order of pixels tells the two apart.",
            ),
            errata=(
                "A patch is not one token: each of its P places is a sequence over the N patches, in all P x N x d.",
            ),
        ),
        members={
            "mobilevit_xxs": Member(256, "widths 16 to 80, Transformers of 64 to 96"),
            "mobilevit_xs": Member(256, "widths 32 to 96, Transformers of 96 to 144"),
            "mobilevit_s": Member(256, "widths 32 to 160, Transformers of 144 to 240"),
            "mobilevitv2_050": Member(256, "linear attention, half as wide"),
            "mobilevitv2_100": Member(256, "linear attention, widths 64 to 512"),
            "mobilevitv2_200": Member(256, "linear attention, twice as wide"),
        },
        small="mobilevit_xxs",
        large="mobilevit_s",
        options=ConvolutionalOptions,
        build=_call,
        convolutional=True,
        scaling_step=_scaling_step,
    )
)
