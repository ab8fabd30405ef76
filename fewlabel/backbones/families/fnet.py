"""FNet for images: tokens mixed by a Fourier transform, which has no parameters."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from timm.layers import Mlp
from torch import Tensor, nn

from fewlabel.backbones.family import Family, Member, Notes
from fewlabel.backbones.options import SMALL_IMAGE, check_number, check_rate, check_whole
from fewlabel.backbones.precision import at_least_float32, without_autocast
from fewlabel.backbones.registry import register
from fewlabel.backbones.scale import Scale
from fewlabel.backbones.tokens import PatchTokens, initialize_linear

__all__ = ["FNET", "FNet", "FNetBlock", "FNetOptions", "FourierMixing"]

Norm = Literal["none", "ortho"]

SHAPES = {"fnet_tiny_32": (192, 8), "fnet_tiny": (192, 12), "fnet_small": (384, 12), "fnet_base": (768, 12)}
"""Width and blocks."""


class FourierMixing(nn.Module):
    """M(X) = Re(F_S X F_D): the real part of the Fourier transform over tokens and over channels.

    (B, S, D) -> (B, S, D) without any parameter; `F_n[k, m] = exp(-2 pi i k m / n)`. In real arithmetic it is
    C_S X C_D - S_S X S_D with cosines C and sines S.

    Args:
        norm: `none`, the published form, whose gain is about sqrt(S D / 2); `ortho` divides by sqrt(S D).

    Source: Lee-Thorp et al. 2021, arXiv:2105.03824, eq. 3.
    """

    def __init__(self, norm: Norm = "none") -> None:
        super().__init__()
        self.norm = "backward" if norm == "none" else norm

    def forward(self, tokens: Tensor) -> Tensor:
        """The mixed tokens, in the dtype of `tokens`."""
        # There is no transform in half precision on the CPU, and on CUDA only of some lengths.
        with without_autocast(tokens):
            mixed: Tensor = _RealTransform.apply(at_least_float32(tokens), self.norm)
        return mixed.to(tokens.dtype)


class _RealTransform(torch.autograd.Function):
    """Re(F_S X F_D). Its matrix is symmetric, so the backward pass is the same transform, of real numbers again."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, norm: str) -> Tensor:
        ctx.norm = norm
        mixed: Tensor = torch.fft.fft2(tokens, norm=norm).real
        return mixed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        mixed: Tensor = _RealTransform.apply(gradient, ctx.norm)
        return mixed, None


class FNetBlock(nn.Module):
    """Y = LN(X + M(X)), Z = LN(Y + MLP(Y)): post-norm, as published. (B, S, D) -> (B, S, D)."""

    def __init__(self, width: int, hidden: int, norm: Norm, dropout: float) -> None:
        super().__init__()
        self.mix = FourierMixing(norm)
        self.norm_mix = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, hidden, drop=dropout)
        self.norm_mlp = nn.LayerNorm(width, eps=1e-6)

    def forward(self, tokens: Tensor) -> Tensor:
        """The next layer's tokens."""
        tokens = self.norm_mix(tokens + self.mix(tokens))
        out: Tensor = self.norm_mlp(tokens + self.mlp(tokens))
        return out


class FNet(nn.Module):
    """Patch tokens with positions, `depth` blocks, the mean over tokens: (B, C, S, S) -> (B, width)."""

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        in_chans: int,
        width: int,
        depth: int,
        hidden: int,
        norm: Norm,
        dropout: float,
    ) -> None:
        super().__init__()
        self.num_features = self.head_hidden_size = width
        self.tokens = PatchTokens(image_size, patch_size, in_chans, width)
        self.blocks = nn.Sequential(*(FNetBlock(width, hidden, norm, dropout) for _ in range(depth)))
        self.apply(initialize_linear)

    def no_weight_decay(self) -> set[str]:
        """The position table."""
        return {"tokens.positions"}

    def forward_features(self, images: Tensor) -> Tensor:
        """Tokens after the last block, (B, N, width)."""
        tokens: Tensor = self.blocks(self.tokens(images))
        return tokens

    def forward(self, images: Tensor) -> Tensor:
        """Features of `images`."""
        return self.forward_features(images).mean(1)


@dataclass(frozen=True)
class FNetOptions:
    """Options of an FNet."""

    patch_size: int | None = None
    """Side of a patch in pixels, a divisor of the image size. None: 4 up to 64 px, else 16."""

    width: int | None = None
    """Width of a token before scaling. None: the member's."""

    depth: int | None = None
    """Blocks before scaling. None: the member's."""

    mlp_ratio: float = 4.0
    """Hidden width of the MLP over the token width."""

    fft_norm: Literal["none", "ortho"] = "none"
    """`none`: the transform as published, which outweighs the skip path a hundredfold; `ortho`: at equal weight."""

    dropout: float = 0.0
    """Dropout in the MLP, in training."""

    def completed(self, member: str, image_size: int) -> "FNetOptions":
        """With the patch size and the shape decided."""
        own_width, own_depth = SHAPES[member]
        patch = (4 if image_size <= SMALL_IMAGE else 16) if self.patch_size is None else self.patch_size
        width = own_width if self.width is None else self.width
        depth = own_depth if self.depth is None else self.depth
        check_whole("patch_size", patch, 1, 256)
        check_whole("width", width, 8, 8192)
        check_whole("depth", depth, 1, 256)
        check_number("mlp_ratio", self.mlp_ratio, 0.1, 16)
        check_rate("dropout", self.dropout)
        return replace(self, patch_size=patch, width=width, depth=depth)


def _build(member: str, image_size: int, in_chans: int, scale: Scale, options: Any) -> FNet:
    width = scale.channels(options.width)
    return FNet(
        image_size,
        options.patch_size,
        in_chans,
        width,
        scale.blocks(options.depth),
        round(options.mlp_ratio * width),
        options.fft_norm,
        options.dropout,
    )


FNET = register(
    Family(
        name="fnet",
        title="FNet",
        paper="Lee-Thorp et al. 2021, arXiv:2105.03824; patches as in Dosovitskiy et al. 2020, arXiv:2010.11929",
        summary="Tokens mixed by a Fourier transform in place of attention: no parameters, N log N.",
        notes=Notes(
            idea="Attention is replaced by the real part of a two-dimensional Fourier transform, over tokens and over "
            "channels, so that every token hears of every other without one learned weight. What is learned is all in "
            "the MLPs between. Patches and a position table make it a network for images.",
            equation=r"M(X) = \mathrm{Re}\left(\mathcal F_{S}\, X\, \mathcal F_{D}\right), \qquad "
            r"Y = \mathrm{LN}(X + M(X)), \quad Z = \mathrm{LN}(Y + \mathrm{MLP}(Y))",
            use="A baseline that tells what learned mixing is worth, and a quick one for many tokens.",
            scaling="Depth multiplies the blocks; width the token width, in multiples of 8, and its MLP with it.",
            pitfalls=(
                "The published transform has a gain of about sqrt(S D / 2), 137 for 196 tokens of 192: after the layer "
                "norm the skip path carries under one percent. `fft_norm=ortho` balances them.",
                "There is no transform in bf16 or fp16 on a CPU: under autocast it is computed in float32.",
                "The transform depends on the order of tokens, so without positions it is no bag of patches.",
            ),
            errata=("There is no official network for images: block from the paper, front as in ViT.",),
        ),
        members={
            "fnet_tiny_32": Member(32, "width 192, 8 blocks, patches of 4 px"),
            "fnet_tiny": Member(224, "width 192, 12 blocks"),
            "fnet_small": Member(224, "width 384, 12 blocks"),
            "fnet_base": Member(224, "width 768, 12 blocks, as in the paper"),
        },
        small="fnet_tiny_32",
        large="fnet_small",
        options=FNetOptions,
        build=_build,
        convolutional=False,
        step=lambda options: options.patch_size,
    )
)
