"""ConvMixer: patches mixed by depthwise and pointwise convolutions at one resolution."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from fewlabel.backbones.family import Family, Member, Notes
from fewlabel.backbones.options import SMALL_IMAGE, check_whole
from fewlabel.backbones.registry import register
from fewlabel.backbones.scale import Scale
from fewlabel.backbones.timm_call import Call, Name, TimmCall
from fewlabel.errors import UserError

__all__ = ["CONVMIXER", "ConvMixerOptions"]

Activation = Literal["gelu", "relu"]

SMALL_PATCH = 2
"""Patch side for images up to `SMALL_IMAGE` pixels: the map keeps its size, so 32 px stay 16x16 throughout."""

SHAPES: dict[str, tuple[int, int, int, int, Activation]] = {
    "convmixer_256_8": (256, 8, 5, 2, "gelu"),
    "convmixer_768_32": (768, 32, 7, 7, "relu"),
    "convmixer_1024_20_ks9_p14": (1024, 20, 9, 14, "gelu"),
    "convmixer_1536_20": (1536, 20, 9, 7, "gelu"),
}
"""Width, layers, kernel, patch and activation."""

ACTIVATIONS = {"gelu": Name("torch.nn.GELU"), "relu": Name("torch.nn.ReLU")}


@dataclass(frozen=True)
class ConvMixerOptions:
    """Options of a ConvMixer."""

    patch_size: int | None = None
    """Side of a patch in pixels, a divisor of the image size. None: 2 up to 64 px, else the member's."""

    kernel_size: int | None = None
    """Side of the depthwise kernel, odd. None: the member's."""

    width: int | None = None
    """Channels before scaling. None: the member's."""

    depth: int | None = None
    """Layers before scaling. None: the member's."""

    activation: Literal["gelu", "relu"] | None = None
    """What follows each convolution, ahead of its batch norm. None: the member's."""

    def completed(self, member: str, image_size: int) -> "ConvMixerOptions":
        """With the patch size, the kernel, the shape and the activation decided.

        Raises:
            UserError: values out of range, or an even kernel.
        """
        own_width, own_depth, own_kernel, own_patch, own_activation = SHAPES[member]
        if image_size <= SMALL_IMAGE:
            own_patch = SMALL_PATCH
        patch = own_patch if self.patch_size is None else self.patch_size
        kernel = own_kernel if self.kernel_size is None else self.kernel_size
        width = own_width if self.width is None else self.width
        depth = own_depth if self.depth is None else self.depth
        check_whole("patch_size", patch, 1, 256)
        check_whole("kernel_size", kernel, 1, 63)
        check_whole("width", width, 8, 8192)
        check_whole("depth", depth, 1, 256)
        if kernel % 2 == 0:
            raise UserError(f"kernel_size is {kernel}: give an odd number, so that a pixel has its kernel around it.")
        return replace(
            self,
            patch_size=patch,
            kernel_size=kernel,
            width=width,
            depth=depth,
            activation=self.activation or own_activation,
        )


def _call(member: str, image_size: int, in_chans: int, scale: Scale, options: Any) -> TimmCall:
    arguments = {
        "dim": scale.channels(options.width),
        "depth": scale.blocks(options.depth),
        "kernel_size": options.kernel_size,
        "patch_size": options.patch_size,
        "in_chans": in_chans,
        "num_classes": 0,
        "drop_rate": 0.0,
        "act_layer": ACTIVATIONS[options.activation],
    }
    return TimmCall(Call("timm.models.ConvMixer", (), arguments))


CONVMIXER = register(
    Family(
        name="convmixer",
        title="ConvMixer",
        paper="Trockman and Kolter 2022, arXiv:2201.09792",
        summary="Patches as in a ViT, mixed by a large depthwise convolution and a 1x1 one, at one resolution.",
        notes=Notes(
            idea="The image is cut into patches by one strided convolution, and the map then keeps its size and its "
            "width to the end. Each layer mixes places by a large depthwise convolution with a skip path, then "
            "channels by a 1x1 convolution without one. What remains of a Transformer is the patches, and they seem to "
            "be a good part of its success.",
            equation=r"z' = z + \mathrm{BN}(\sigma(\mathrm{Depthwise}_k(z))), \qquad "
            r"z'' = \mathrm{BN}(\sigma(\mathrm{Pointwise}(z')))",
            use="Few parameters and good features of small images; slow for its size, as no layer reduces the map.",
            scaling="Depth multiplies the layers, width the channels, in multiples of 8; patch and kernel stay.",
            pitfalls=(
                "The activation comes before the batch norm, and only the depthwise part has a skip path.",
                "A patch that the image doesn't fill would be dropped without a word, so the side must be a multiple "
                "of the patch.",
                "The cost of a layer grows with the square of image side over patch side: mind small patches on large "
                "images. `convmixer_256_8` has patches of 2 px at every size.",
            ),
            errata=("The map has H / p rows for patches of side p, not p / H.",),
        ),
        members={
            "convmixer_256_8": Member(32, "width 256, 8 layers, kernel 5, patches of 2 px"),
            "convmixer_768_32": Member(224, "width 768, 32 layers, kernel 7, patches of 7 px, ReLU"),
            "convmixer_1024_20_ks9_p14": Member(224, "width 1024, 20 layers, kernel 9, patches of 14 px"),
            "convmixer_1536_20": Member(224, "width 1536, 20 layers, kernel 9, patches of 7 px"),
        },
        small="convmixer_256_8",
        large="convmixer_1024_20_ks9_p14",
        options=ConvMixerOptions,
        build=_call,
        convolutional=True,
        step=lambda options: options.patch_size,
    )
)
