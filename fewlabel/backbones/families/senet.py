"""SENet: residual networks with squeeze-and-excitation."""

from fewlabel.backbones.convolutional import RESOLUTION_STEP
from fewlabel.backbones.families.resnet import SCALING, ResNetOptions, residual_call
from fewlabel.backbones.family import Family, Member, Notes
from fewlabel.backbones.registry import register

__all__ = ["SENET"]

SENET = register(
    Family(
        name="senet",
        title="SENet",
        paper="Hu et al. 2017, arXiv:1709.01507",
        summary="Residual blocks that weigh their channels by what the whole image shows.",
        notes=Notes(
            idea="Each residual branch ends in a gate: the means of its channels over the image go through two small "
            "layers to a weight between 0 and 1 for every channel. So a block can turn channels up or down by what the "
            "whole image shows, at a percent of the cost. Everything else is a ResNet.",
            equation=r"s = \sigma\left(W_2\,\mathrm{relu}(W_1 z + b_1) + b_2\right), \quad z_c = \frac{1}{HW}"
            r"\sum_{ij} u_{c,ij}, \quad \tilde u_c = s_c\, u_c, \qquad W_1: \tfrac{C}{16} \times C",
            use="As ResNet, where a global cue (stain, exposure, field of view) should steer local features.",
            scaling=SCALING,
            pitfalls=(
                "timm rounds the squeeze of `seresnet18` to multiples of 8 (64 channels squeeze to 8, not 4); "
                "`timm/legacy_seresnet18` has the paper's exact 16th.",
                "The 2017 entry `timm/senet154` takes no width and is therefore no member here.",
            ),
            errata=("The gate's two layers are 1x1 convolutions with bias, not linear layers without.",),
        ),
        members={
            "seresnet18": Member(224, "ResNet-18 with gates"),
            "seresnet34": Member(224, "ResNet-34 with gates"),
            "seresnet50": Member(224, "ResNet-50 with gates"),
            "seresnet101": Member(224, "ResNet-101 with gates"),
            "seresnet152": Member(224, "ResNet-152 with gates"),
            "seresnext26t_32x4d": Member(224, "26 layers, tiered stem, 32 groups"),
            "seresnext50_32x4d": Member(224, "ResNeXt-50 with gates"),
        },
        small="seresnet18",
        large="seresnet50",
        options=ResNetOptions,
        build=residual_call,
        convolutional=True,
        scaling_step=lambda options: RESOLUTION_STEP,
    )
)
