"""MobileNet V1 to V4."""

from fewlabel.backbones.convolutional import (
    RESOLUTION_STEP,
    ConvolutionalOptions,
    InvertedResiduals,
    inverted_residuals,
)
from fewlabel.backbones.family import Family, Member, Notes
from fewlabel.backbones.registry import register
from fewlabel.backbones.scale import Scale
from fewlabel.backbones.timm_call import Call, Name, TimmCall

__all__ = ["MOBILENET"]


def _v1(width: float) -> InvertedResiduals:
    stages = (("dsa_r1_k3_s1_c64",), *((f"dsa_r{n}_k3_s2_c{c}",) for n, c in ((2, 128), (2, 256), (6, 512), (2, 1024))))
    return InvertedResiduals(
        "EfficientNet", stages, stem=32, head=0, head_rule="fixed", activation="torch.nn.ReLU6", width=width
    )


def _v2(width: float) -> InvertedResiduals:
    return InvertedResiduals(
        "EfficientNet",
        (
            ("ds_r1_k3_s1_c16",),
            ("ir_r2_k3_s2_e6_c24",),
            ("ir_r3_k3_s2_e6_c32",),
            ("ir_r4_k3_s2_e6_c64",),
            ("ir_r3_k3_s1_e6_c96",),
            ("ir_r3_k3_s2_e6_c160",),
            ("ir_r1_k3_s1_e6_c320",),
        ),
        stem=32,
        head=1280,
        head_rule="at least",
        activation="torch.nn.ReLU6",
        width=width,
    )


def _v3(stages: tuple[tuple[str, ...], ...], head: int, width: float = 1.0) -> InvertedResiduals:
    gate = Call(
        "functools.partial",
        (Name("timm.models._efficientnet_blocks.SqueezeExcite"),),
        {
            "gate_layer": "hard_sigmoid",
            "force_act_layer": Name("torch.nn.ReLU"),
            "rd_round_fn": Name("timm.models._efficientnet_builder.round_channels"),
        },
    )
    return InvertedResiduals(
        "MobileNetV3",
        stages,
        stem=16,
        head=head,
        head_rule="fixed",
        activation="torch.nn.Hardswish",
        width=width,
        fix_stem_below=0.75,
        extra=(("se_layer", gate),),
    )


_V3_SMALL = (
    ("ds_r1_k3_s2_e1_c16_se0.25_nre",),
    ("ir_r1_k3_s2_e4.5_c24_nre", "ir_r1_k3_s1_e3.67_c24_nre"),
    ("ir_r1_k5_s2_e4_c40_se0.25", "ir_r2_k5_s1_e6_c40_se0.25"),
    ("ir_r2_k5_s1_e3_c48_se0.25",),
    ("ir_r3_k5_s2_e6_c96_se0.25",),
    ("cn_r1_k1_s1_c576",),
)
_V3_LARGE = (
    ("ds_r1_k3_s1_e1_c16_nre",),
    ("ir_r1_k3_s2_e4_c24_nre", "ir_r1_k3_s1_e3_c24_nre"),
    ("ir_r3_k5_s2_e3_c40_se0.25_nre",),
    ("ir_r1_k3_s2_e6_c80", "ir_r1_k3_s1_e2.5_c80", "ir_r2_k3_s1_e2.3_c80"),
    ("ir_r2_k3_s1_e6_c112_se0.25",),
    ("ir_r3_k5_s2_e6_c160_se0.25",),
    ("cn_r1_k1_s1_c960",),
)
_V4_SMALL = (
    ("cn_r1_k3_s2_e1_c32", "cn_r1_k1_s1_e1_c32"),
    ("cn_r1_k3_s2_e1_c96", "cn_r1_k1_s1_e1_c64"),
    ("uir_r1_a5_k5_s2_e3_c96", "uir_r4_a0_k3_s1_e2_c96", "uir_r1_a3_k0_s1_e4_c96"),
    (
        "uir_r1_a3_k3_s2_e6_c128",
        "uir_r1_a5_k5_s1_e4_c128",
        "uir_r1_a0_k5_s1_e4_c128",
        "uir_r1_a0_k5_s1_e3_c128",
        "uir_r2_a0_k3_s1_e4_c128",
    ),
    ("cn_r1_k1_s1_c960",),
)

NETWORKS = {
    "mobilenetv1_100": _v1(1.0),
    "mobilenetv1_125": _v1(1.25),
    "mobilenetv2_035": _v2(0.35),
    "mobilenetv2_050": _v2(0.5),
    "mobilenetv2_100": _v2(1.0),
    "mobilenetv2_140": _v2(1.4),
    "mobilenetv3_small_050": _v3(_V3_SMALL, 1024, 0.5),
    "mobilenetv3_small_100": _v3(_V3_SMALL, 1024),
    "mobilenetv3_large_100": _v3(_V3_LARGE, 1280),
    "mobilenetv4_conv_small": InvertedResiduals(
        "MobileNetV3",
        _V4_SMALL,
        stem=32,
        head=1280,
        head_rule="fixed",
        activation="torch.nn.ReLU",
        fix_stem_below=1.0,
        extra=(("head_bias", False), ("head_norm", True)),
    ),
}


def _call(member: str, image_size: int, in_chans: int, scale: Scale, options: ConvolutionalOptions) -> TimmCall:
    return inverted_residuals(NETWORKS, member, in_chans, scale, options)


MOBILENET = register(
    Family(
        name="mobilenet",
        title="MobileNet",
        paper="Howard et al. 2017, arXiv:1704.04861; V2: arXiv:1801.04381; V3: arXiv:1905.02244; V4: arXiv:2404.10518",
        summary="A convolution split into one per channel and 1x1 over channels, at 1/N + 1/K^2 of the cost.",
        notes=Notes(
            idea="A full convolution filters space and mixes channels at once; here one filter per channel does the "
            "first and a 1x1 convolution the second. V2 adds residuals between narrow layers, V3 gates and hard swish, "
            "V4 a mixture found by search. The result runs on a telephone.",
            equation=r"\frac{\mathrm{depthwise} + \mathrm{pointwise}}{\mathrm{standard}} = \frac{K^2 M + M N}{K^2 M N} "
            r"= \frac{1}{N} + \frac{1}{K^2}",
            use="Where the encoder must later run on a small device, or where training time is short.",
            scaling="Depth multiplies the blocks of each stage, rounded up; width stages and stem in multiples of 8. "
            "V1 has no head; V2's head grows but never shrinks; V3's and V4's stay.",
            pitfalls=(
                "V1 has no residuals: much deeper ones are hard to train.",
                "In V3 and V4 timm's `num_features` is the width before the last convolution; what comes out, and what "
                "is reported here, is 1,024 or 1,280.",
                "At 32 px the strides leave a 1x1 map; up to 64 px stem and first strided block keep the resolution.",
            ),
        ),
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
        build=_call,
        convolutional=True,
        scaling_step=lambda options: RESOLUTION_STEP,
    )
)
