"""ResNet, plain and pre-activated, with its wide and grouped variants; SENet builds on the same file."""

from dataclasses import dataclass, replace
from typing import Any

from fewlabel.backbones.convolutional import RESOLUTION_STEP, ConvolutionalOptions, convolutional_arguments
from fewlabel.backbones.family import Family, Member, Notes
from fewlabel.backbones.options import check_stages
from fewlabel.backbones.registry import register
from fewlabel.backbones.scale import Scale
from fewlabel.backbones.timm_call import TimmCall, create_model

__all__ = ["RESNET", "SCALING", "ResNetOptions", "residual_call"]

WIDTHS = (64, 128, 256, 512)
SCALING = (
    "Depth multiplies the blocks of each stage (rounded to the nearest: two blocks stay two at phi = 1), width the "
    "channels of the stages in multiples of 8; the stem stays as it is."
)

STAGES = {
    "resnet10t": (1, 1, 1, 1),
    "resnet18": (2, 2, 2, 2),
    "resnet26": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet50d": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
    "resnetv2_18": (2, 2, 2, 2),
    "resnetv2_50": (3, 4, 6, 3),
    "wide_resnet50_2": (3, 4, 6, 3),
    "resnext50_32x4d": (3, 4, 6, 3),
    "seresnet18": (2, 2, 2, 2),
    "seresnet34": (3, 4, 6, 3),
    "seresnet50": (3, 4, 6, 3),
    "seresnet101": (3, 4, 23, 3),
    "seresnet152": (3, 8, 36, 3),
    "seresnext26t_32x4d": (2, 2, 2, 2),
    "seresnext50_32x4d": (3, 4, 6, 3),
}


@dataclass(frozen=True)
class ResNetOptions(ConvolutionalOptions):
    """Options of a residual network."""

    layers: tuple[int, ...] | None = None
    """Blocks of each of the four stages before scaling. None: the member's."""

    channels: tuple[int, ...] | None = None
    """Width of each of the four stages before scaling and before a bottleneck's expansion by 4. None: the
    member's."""

    zero_init_last: bool | None = None
    """Start every residual branch at zero, by its last batch norm (Goyal et al. 2017). None: yes, except in a
    pre-activated network."""

    def completed(self, member: str, image_size: int) -> "ResNetOptions":
        """With the stem and the stages decided."""
        layers, channels = self.layers or STAGES[member], self.channels or WIDTHS
        check_stages(member, "layers", layers, 4, 512)
        check_stages(member, "channels", channels, 4, 8192)
        base = super().completed(member, image_size)
        assert isinstance(base, ResNetOptions)
        zero = not member.startswith("resnetv2") if self.zero_init_last is None else self.zero_init_last
        return replace(base, layers=layers, channels=channels, zero_init_last=zero)


def residual_call(member: str, image_size: int, in_chans: int, scale: Scale, options: Any) -> TimmCall:
    """The timm call for `member`; arguments that are the member's own are left out."""
    arguments: dict[str, Any] = convolutional_arguments(in_chans, options)
    layers = tuple(map(scale.blocks, options.layers))
    channels = tuple(map(scale.channels, options.channels))
    if layers != STAGES[member]:
        arguments["layers"] = layers
    if channels != WIDTHS:
        # timm counts a pre-activated bottleneck's channels after its expansion.
        arguments["channels"] = tuple(4 * width for width in channels) if member == "resnetv2_50" else channels
    arguments["zero_init_last"] = options.zero_init_last
    return TimmCall(create_model(member, **arguments), small_stem=bool(options.small_stem))


RESNET = register(
    Family(
        name="resnet",
        title="ResNet",
        paper="He et al. 2015, arXiv:1512.03385; pre-activation: He et al. 2016, arXiv:1603.05027",
        summary="Convolutional blocks that learn a correction to their input: y = x + F(x).",
        notes=Notes(
            idea="Each block adds a learned correction to its input, so that a deep network starts near the identity "
            "and its gradient reaches every layer. Four stages halve the map and double the channels. The mean of the "
            "last map is the feature.",
            equation=r"y = x + F(x), \qquad F = \mathrm{BN}\,W_3\,\sigma\,\mathrm{BN}\,W_2\,\sigma\,\mathrm{BN}\,W_1",
            use="The first choice on a few thousand images, and SimCLR's own backbone: robust to the learning rate, "
            "quick on a CPU, any image size. ResNet-18 for small images, ResNet-50 from 96 px.",
            scaling=SCALING,
            pitfalls=(
                "ImageNet's stem reduces 32 px fourfold before the first block and ends in a 1x1 map. Up to 64 px the "
                "stem is a 3x3 convolution of stride 1 without max-pool (SimCLR, appendix B.9): 4x4 at 32 px.",
                "Batch norm leaks between views when each process has its own statistics: over several processes they "
                "are synchronised.",
            ),
        ),
        members={
            "resnet10t": Member(176, "10 layers, tiered 3x3 stem"),
            "resnet18": Member(224, "18 layers, basic blocks"),
            "resnet26": Member(224, "26 layers, bottleneck blocks"),
            "resnet34": Member(224, "34 layers, basic blocks"),
            "resnet50": Member(224, "50 layers, bottleneck blocks"),
            "resnet50d": Member(224, "ResNet-50 with a deep stem and pooled shortcuts"),
            "resnet101": Member(224, "101 layers"),
            "resnet152": Member(224, "152 layers"),
            "resnetv2_18": Member(224, "pre-activated ResNet-18"),
            "resnetv2_50": Member(224, "pre-activated ResNet-50"),
            "wide_resnet50_2": Member(224, "bottlenecks twice as wide"),
            "resnext50_32x4d": Member(224, "3x3 convolutions in 32 groups"),
        },
        small="resnet18",
        large="resnet50",
        options=ResNetOptions,
        build=residual_call,
        convolutional=True,
        scaling_step=lambda options: RESOLUTION_STEP,
    )
)
