"""MobileNet V1 to V4."""

from fewlabel.backbones.convolutional import ConvolutionalOptions, convolutional_call
from fewlabel.backbones.family import Family, Member
from fewlabel.backbones.registry import register

__all__ = ["MOBILENET"]

MOBILENET = register(
    Family(
        name="mobilenet",
        title="MobileNet",
        paper="Howard et al. 2017, arXiv:1704.04861; V2: arXiv:1801.04381; V3: arXiv:1905.02244; V4: arXiv:2404.10518",
        summary="A convolution split into one per channel and 1x1 over channels, at 1/N + 1/K^2 of the cost.",
        members={
            "mobilenetv1_100": Member(224, "13 depthwise-separable blocks, no residuals"),
            "mobilenetv1_125": Member(224, "V1, 1.25 times as wide"),
            "mobilenetv2_035": Member(224, "V2, 0.35 times as wide"),
            "mobilenetv2_050": Member(224, "V2, half as wide"),
            "mobilenetv2_100": Member(224, "inverted residuals"),
            "mobilenetv2_140": Member(224, "V2, 1.4 times as wide"),
            "mobilenetv3_small_050": Member(224, "V3 small, half as wide"),
            "mobilenetv3_small_100": Member(224, "V3 small: squeeze-and-excitation, hard swish"),
            "mobilenetv3_large_100": Member(224, "V3 large"),
            "mobilenetv4_conv_small": Member(224, "V4 small, convolutions only"),
        },
        small="mobilenetv2_100",
        large="mobilenetv2_100",
        options=ConvolutionalOptions,
        build=convolutional_call,
    )
)
