"""What the convolutional families from timm share: options, and networks of inverted residuals at any scale."""

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from fewlabel.backbones.options import SMALL_IMAGE, check_rate
from fewlabel.backbones.scale import Scale
from fewlabel.backbones.timm_call import Call, Name, TimmCall, create_model
from fewlabel.errors import UserError

__all__ = [
    "RESOLUTION_STEP",
    "ConvolutionalOptions",
    "InvertedResiduals",
    "convolutional_arguments",
    "inverted_residuals",
]

RESOLUTION_STEP = 8
"""Any image size works; scaled ones are multiples of this, so that few pixels are lost to strides."""


@dataclass(frozen=True)
class ConvolutionalOptions:
    """Options of a convolutional network."""

    small_stem: bool | None = None
    """Start at full resolution, for small images (see `stem.use_small_stem`). None: up to 64 px."""

    output_stride: Literal[8, 16, 32] = 32
    """How much smaller than the image the last map is, without the small stem; below 32 later stages dilate
    their kernels instead of striding, at the same number of parameters."""

    pool: Literal["avg", "max", "avgmax", "catavgmax"] = "avg"
    """How the last map becomes a vector: mean, maximum, the mean of both, or both side by side (twice as wide)."""

    drop_path_rate: float = 0.0
    """Probability that the last residual branch is skipped in training; earlier ones less, linearly
    (stochastic depth, Huang et al. 2016)."""

    def completed(self, member: str, image_size: int) -> "ConvolutionalOptions":
        """With the stem decided."""
        check_rate("drop_path_rate", self.drop_path_rate)
        small_stem = image_size <= SMALL_IMAGE if self.small_stem is None else self.small_stem
        return replace(self, small_stem=small_stem)


def convolutional_arguments(in_chans: int, options: ConvolutionalOptions) -> dict[str, Any]:
    """Arguments for timm; every stochastic rate is stated, so that timm's defaults don't matter."""
    return {
        "in_chans": in_chans,
        "output_stride": options.output_stride,
        "global_pool": options.pool,
        "drop_rate": 0.0,
        "drop_path_rate": options.drop_path_rate,
    }


@dataclass(frozen=True)
class InvertedResiduals:
    """A published network of timm's block strings, as multiplied to begin with."""

    network: str
    """The class in `timm.models`."""
    stages: tuple[tuple[str, ...], ...]
    """Block strings of each stage: type, repeats, kernel, stride, expansion, channels (timm's notation)."""
    stem: int
    """Channels of the stem at width 1."""
    head: int
    """Channels of the last 1x1 convolution at width 1; 0, with a fixed rule: there is none."""
    head_rule: Literal["scaled", "at least", "fixed"]
    """What the width does to the head: multiplies it; multiplies it but never makes it narrower; nothing."""
    activation: str
    """The class."""
    width: float = 1.0
    depth: float = 1.0
    fix_first_last: bool = False
    """Whether the first and the last stage keep their depth."""
    fix_stem_below: float = 0.0
    """Below this width the stem keeps its channels."""
    extra: tuple[tuple[str, Any], ...] = ()
    """Further arguments of the class."""


def inverted_residuals(
    table: dict[str, InvertedResiduals], member: str, in_chans: int, scale: Scale, options: ConvolutionalOptions
) -> TimmCall:
    """The timm call for `member`: by name where unscaled, else by the class's own constructor.

    Repeats round up (`ceil`) and widths go to multiples of 8, as EfficientNet B1 to B7 came about.

    Raises:
        UserError: a width that rounds a stage to nothing, or an option that `member` doesn't have.
    """
    arguments = convolutional_arguments(in_chans, options)
    net = table[member]
    if net.network == "MobileNetV3" and arguments.pop("output_stride") != 32:
        raise UserError(f"{member} has a fixed output_stride of 32: leave that option out, or take mobilenetv2_100.")
    if (scale.depth, scale.width) == (1, 1):
        return TimmCall(create_model(member, **arguments), small_stem=bool(options.small_stem))
    total = Scale(net.depth * scale.depth, net.width * scale.width)
    widths = [int(width) for stage in net.stages for text in stage for width in re.findall(r"_c(\d+)", text)]
    # Refuses a width that makes nothing of the narrowest stage.
    total.channels(min(widths))
    head = net.head if net.head_rule == "fixed" else total.channels(net.head)
    if net.head_rule == "at least":
        head = max(net.head, head)
    rounding = Call(
        "functools.partial", (Name("timm.models._efficientnet_builder.round_channels"),), {"multiplier": total.width}
    )
    call = Call(
        f"timm.models.{net.network}",
        (),
        {
            "block_args": Call(
                "timm.models._efficientnet_builder.decode_arch_def",
                ([list(stage) for stage in net.stages],),
                {"depth_multiplier": total.depth, "fix_first_last": net.fix_first_last},
            ),
            "num_classes": 0,
            "num_features": head,
            "stem_size": net.stem,
            "fix_stem": total.width < net.fix_stem_below,
            "round_chs_fn": rounding,
            "act_layer": Name(net.activation),
            **dict(net.extra),
            **arguments,
        },
    )
    return TimmCall(call, small_stem=bool(options.small_stem))
