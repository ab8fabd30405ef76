"""SENet: ResNets with squeeze-and-excitation."""

from fewlabel.backbones.convolutional import ConvolutionalOptions, convolutional_call
from fewlabel.backbones.family import Family, Member
from fewlabel.backbones.registry import register

__all__ = ["SENET"]

SENET = register(
    Family(
        name="senet",
        title="SENet",
        paper="Hu et al. 2017, arXiv:1709.01507",
        summary="A ResNet whose every block weighs its channels by a gate computed from their means: "
        "s = sigmoid(W2 relu(W1 mean(u) + b1) + b2).",
        members={
            "seresnet18": Member(224, "SE-ResNet-18; squeeze widths are multiples of 8"),
            "seresnet34": Member(224, "SE-ResNet-34"),
            "seresnet50": Member(224, "SE-ResNet-50, squeeze 16 as in the paper"),
            "seresnet101": Member(224, "SE-ResNet-101"),
            "seresnet152": Member(224, "SE-ResNet-152"),
            "seresnext26t_32x4d": Member(224, "26 layers in 32 groups, tiered 3x3 stem"),
            "seresnext50_32x4d": Member(224, "SE-ResNeXt-50"),
            "senet154": Member(224, "the paper's largest network"),
        },
        small="seresnet18",
        large="seresnet50",
        options=ConvolutionalOptions,
        build=convolutional_call,
    )
)
