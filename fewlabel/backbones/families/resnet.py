"""ResNet, plain and pre-activated, with its wide and grouped variants."""

from fewlabel.backbones.convolutional import ConvolutionalOptions, convolutional_call
from fewlabel.backbones.family import Family, Member
from fewlabel.backbones.registry import register

__all__ = ["RESNET"]

RESNET = register(
    Family(
        name="resnet",
        title="ResNet",
        paper="He et al. 2015, arXiv:1512.03385; pre-activation: He et al. 2016, arXiv:1603.05027",
        summary="Convolutional blocks that learn a correction to their input: y = x + F(x).",
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
        options=ConvolutionalOptions,
        build=convolutional_call,
    )
)
