"""EfficientNet B0 to B7."""

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

__all__ = ["EFFICIENTNET", "PUBLISHED"]

PUBLISHED = {
    "efficientnet_b0": Scale(1.0, 1.0),
    "efficientnet_b1": Scale(1.1, 1.0),
    "efficientnet_b2": Scale(1.2, 1.1),
    "efficientnet_b3": Scale(1.4, 1.2),
    "efficientnet_b4": Scale(1.8, 1.4),
    "efficientnet_b5": Scale(2.2, 1.6),
    "efficientnet_b6": Scale(2.6, 1.8),
    "efficientnet_b7": Scale(3.1, 2.0),
}
"""Multipliers of B0 by the authors' own rounding of the compound rule."""

SILU = "torch.nn.SiLU"


def _b(scale: Scale) -> InvertedResiduals:
    return InvertedResiduals(
        "EfficientNet",
        (
            ("ds_r1_k3_s1_e1_c16_se0.25",),
            ("ir_r2_k3_s2_e6_c24_se0.25",),
            ("ir_r2_k5_s2_e6_c40_se0.25",),
            ("ir_r3_k3_s2_e6_c80_se0.25",),
            ("ir_r3_k5_s1_e6_c112_se0.25",),
            ("ir_r4_k5_s2_e6_c192_se0.25",),
            ("ir_r1_k3_s1_e6_c320_se0.25",),
        ),
        stem=32,
        head=1280,
        head_rule="scaled",
        activation=SILU,
        width=scale.width,
        depth=scale.depth,
    )


NETWORKS = {
    **{name: _b(scale) for name, scale in PUBLISHED.items()},
    "efficientnet_lite0": InvertedResiduals(
        "EfficientNet",
        (
            ("ds_r1_k3_s1_e1_c16",),
            ("ir_r2_k3_s2_e6_c24",),
            ("ir_r2_k5_s2_e6_c40",),
            ("ir_r3_k3_s2_e6_c80",),
            ("ir_r3_k5_s1_e6_c112",),
            ("ir_r4_k5_s2_e6_c192",),
            ("ir_r1_k3_s1_e6_c320",),
        ),
        stem=32,
        head=1280,
        head_rule="fixed",
        activation="torch.nn.ReLU6",
        fix_first_last=True,
        fix_stem_below=float("inf"),
    ),
    "tf_efficientnetv2_s": InvertedResiduals(
        "EfficientNet",
        (
            ("cn_r2_k3_s1_e1_c24_skip",),
            ("er_r4_k3_s2_e4_c48",),
            ("er_r4_k3_s2_e4_c64",),
            ("ir_r6_k3_s2_e4_c128_se0.25",),
            ("ir_r9_k3_s1_e6_c160_se0.25",),
            ("ir_r15_k3_s2_e6_c256_se0.25",),
        ),
        stem=24,
        head=1280,
        head_rule="scaled",
        activation=SILU,
        extra=(
            ("pad_type", "same"),
            ("norm_layer", Call("functools.partial", (Name("torch.nn.BatchNorm2d"),), {"eps": 1e-3})),
        ),
    ),
}


def _call(member: str, image_size: int, in_chans: int, scale: Scale, options: ConvolutionalOptions) -> TimmCall:
    return inverted_residuals(NETWORKS, member, in_chans, scale, options)


EFFICIENTNET = register(
    Family(
        name="efficientnet",
        title="EfficientNet",
        paper="Tan and Le 2019, arXiv:1905.11946; V2: arXiv:2104.00298",
        summary="Inverted residuals with squeeze-and-excitation, scaled in depth, width and size at once.",
        notes=Notes(
            idea="A small network, B0, is made of inverted residuals: expand the channels sixfold, filter each "
            "channel, gate, project back, add. Larger ones follow by multiplying depth, width and resolution together, "
            "since each alone soon stops paying. This is where Fewlabel's `Scale` comes from.",
            equation=r"d = \alpha^\phi,\; w = \beta^\phi,\; r = \gamma^\phi, \qquad \alpha\,\beta^2\gamma^2 = 1.2 "
            r"\cdot 1.1^2 \cdot 1.15^2 \approx 1.92",
            use="Few parameters and multiplications for the accuracy; on a CPU its depthwise convolutions cost more "
            "time than the count promises.",
            scaling="Depth multiplies the blocks of each stage, rounded up, as B1 to B7 need; width all stages, stem "
            "and head, in multiples of 8 and never below 90 %.",
            pitfalls=(
                "phi = 1 gives exactly B2, but B_k is not phi = k: the published multipliers are rounded by hand (B7 "
                "is phi 6.2 in depth, 7.3 in width). Name the member to get the published one.",
                "Rounding up lengthens every stage at any depth above 1, so the cost at phi = 1 is 2.2 times, not "
                "1.92.",
                "timm trained B2 to B5 at other sizes than the paper; the sizes here are the paper's.",
            ),
            errata=("Widths are not arbitrary: they are multiples of 8, at least 90 % of the exact width.",),
        ),
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
        build=_call,
        convolutional=True,
        scaling_step=lambda options: RESOLUTION_STEP,
    )
)
