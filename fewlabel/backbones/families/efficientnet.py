"""EfficientNet B0 to B7."""

from fewlabel.backbones.convolutional import ConvolutionalOptions, convolutional_call
from fewlabel.backbones.family import Family, Member
from fewlabel.backbones.registry import register

__all__ = ["EFFICIENTNET"]

EFFICIENTNET = register(
    Family(
        name="efficientnet",
        title="EfficientNet",
        paper="Tan and Le 2019, arXiv:1905.11946; V2: arXiv:2104.00298",
        summary="Inverted residuals with squeeze-and-excitation, scaled in depth, width and size at once.",
        # The paper's resolutions; timm trained B2 to B5 at others.
        members={
            "efficientnet_b0": Member(224, "the base of the scaling"),
            "efficientnet_b1": Member(240, "B0 x depth 1.1"),
            "efficientnet_b2": Member(260, "B0 x depth 1.2, width 1.1"),
            "efficientnet_b3": Member(300, "B0 x depth 1.4, width 1.2"),
            "efficientnet_b4": Member(380, "B0 x depth 1.8, width 1.4"),
            "efficientnet_b5": Member(456, "B0 x depth 2.2, width 1.6"),
            "efficientnet_b6": Member(528, "B0 x depth 2.6, width 1.8"),
            "efficientnet_b7": Member(600, "B0 x depth 3.1, width 2.0"),
            "efficientnet_lite0": Member(224, "B0 without squeeze-and-excitation, ReLU6"),
            "tf_efficientnetv2_s": Member(300, "V2 small: fused blocks first"),
        },
        small="efficientnet_b0",
        large="efficientnet_b0",
        options=ConvolutionalOptions,
        build=convolutional_call,
    )
)
