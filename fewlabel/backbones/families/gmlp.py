"""gMLP: an MLP a block, gated across tokens."""

from dataclasses import dataclass
from typing import Any, Self

from fewlabel.backbones.families.mixer import TokenMlpOptions, token_mlp_call
from fewlabel.backbones.family import Family, Member, Notes
from fewlabel.backbones.options import check_whole
from fewlabel.backbones.registry import register
from fewlabel.backbones.scale import Scale
from fewlabel.backbones.timm_call import Name, TimmCall
from fewlabel.errors import UserError

__all__ = ["GMLP", "GMLPOptions"]

SHAPES = {
    "gmlp_tiny_32": (128, 12, 16),
    "gmlp_ti16_224": (128, 30, 16),
    "gmlp_s16_224": (256, 30, 16),
    "gmlp_b16_224": (512, 30, 16),
}
"""Width, blocks and patch."""


@dataclass(frozen=True)
class GMLPOptions(TokenMlpOptions):
    """Options of a gMLP."""

    shapes = SHAPES

    mlp_ratio: int = 6
    """Hidden width over the token width, even: one half of it gates the other."""

    def completed(self, member: str, image_size: int) -> Self:
        """With the patch size and the shape decided.

        Raises:
            UserError: values out of range, or an odd ratio.
        """
        check_whole("mlp_ratio", self.mlp_ratio, 2, 16)
        if self.mlp_ratio % 2:
            raise UserError(f"mlp_ratio is {self.mlp_ratio}: give an even number, as one half gates the other.")
        return super().completed(member, image_size)


def _call(member: str, image_size: int, in_chans: int, scale: Scale, options: Any) -> TimmCall:
    return token_mlp_call(
        image_size,
        in_chans,
        scale,
        options,
        mlp_ratio=options.mlp_ratio,
        block_layer=Name("timm.models.mlp_mixer.SpatialGatingBlock"),
        mlp_layer=Name("timm.layers.GatedMlp"),
    )


GMLP = register(
    Family(
        name="gmlp",
        title="gMLP",
        paper="Liu et al. 2021, arXiv:2105.08050",
        summary="One MLP a block, whose hidden units are gated by a linear map over tokens.",
        notes=Notes(
            idea="A block is a single MLP over channels, and all that passes between tokens passes through its gate. "
            "The hidden units are split in two, and one half, normalised and mixed over tokens by one matrix for all "
            "channels, multiplies the other. The gate starts at one, so that the network begins as a plain MLP on each "
            "token and learns how far to look.",
            equation=r"z = \sigma(\mathrm{LN}(X)\,U), \quad z = [z_1, z_2], \quad "
            r"s(z) = z_1 \odot \left(W\,\mathrm{LN}(z_2) + b\right), \quad Y = X + s(z)\,V",
            use="As MLP-Mixer, and usually a little better for its parameters; deep and narrow, so slower than the "
            "count promises.",
            scaling="Depth multiplies the blocks; width the token width, in multiples of 8, and the hidden width with "
            "it.",
            pitfalls=(
                "W starts near zero (standard deviation 1e-6) and b at one; a pass that redraws every linear layer's "
                "weights would destroy that, so none is made here.",
                "The second half is what is normalised and mixed; the first is the content.",
                "The image size is built into the gate's matrix, N x N for N tokens: another size is another model.",
            ),
        ),
        members={
            "gmlp_tiny_32": Member(32, "width 128, 12 blocks, patches of 4 px"),
            "gmlp_ti16_224": Member(224, "width 128, 30 blocks, patches of 16 px"),
            "gmlp_s16_224": Member(224, "width 256, 30 blocks, patches of 16 px"),
            "gmlp_b16_224": Member(224, "width 512, 30 blocks, patches of 16 px"),
        },
        small="gmlp_tiny_32",
        large="gmlp_ti16_224",
        options=GMLPOptions,
        build=_call,
        convolutional=False,
        step=lambda options: options.patch_size,
    )
)
