"""Perceiver: a few learned latents that read the image's pixels by cross-attention, again and again."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.layers import Mlp, lecun_normal_
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabel.backbones.family import Family, Member, Notes
from fewlabel.backbones.options import SMALL_IMAGE, check_heads, check_whole
from fewlabel.backbones.registry import register
from fewlabel.backbones.scale import Scale

__all__ = ["PERCEIVER", "CrossAttend", "Perceiver", "PerceiverOptions", "fourier_positions"]

SHAPES = {"perceiver_32": (128, 256, 4, 4), "perceiver_224": (512, 1024, 8, 6)}
"""Latents, their width, iterations and self-attends."""


def fourier_positions(
    height: int, width: int, bands: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Where each pixel is, (height width, 2 (2 bands + 1)), row by row, all within [-1, 1].

    Of y and x in [-1, 1]: y, x, sin(pi f_k y), sin(pi f_k x), cos(pi f_k y), cos(pi f_k x), with `bands` frequencies
    f_k equally spaced from 1 to half the pixels of the axis, its Nyquist frequency.

    Source: Jaegle et al. 2021, arXiv:2103.03206, section 3.2.
    """
    axes = []
    for size in (height, width):
        places = torch.linspace(-1, 1, size, device=device, dtype=dtype)[:, None]
        angles = math.pi * places * torch.linspace(1, size / 2, bands, device=device, dtype=dtype)
        axes.append((places, angles.sin(), angles.cos()))
    features = []
    for of_row, of_column in zip(*axes, strict=True):
        features += [of_row[:, None].expand(-1, width, -1), of_column[None].expand(height, -1, -1)]
    return torch.cat(features, -1).flatten(0, 1)


class CrossAttend(nn.Module):
    """Latents read the byte array: Z + Attention(LN(Z), LN(bytes)), then Z + MLP(LN(Z)).

    Queries, keys and values have the byte array's width.

    Args:
        width: width of a latent.
        input_width: width of a row of the byte array, a multiple of `heads`.
        heads: attention heads.

    Source: Jaegle et al. 2021, arXiv:2103.03206, section 3.1.
    """

    def __init__(self, width: int, input_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_latents = nn.LayerNorm(width)
        self.norm_bytes = nn.LayerNorm(input_width)
        self.query = nn.Linear(width, input_width)
        self.key_value = nn.Linear(input_width, 2 * input_width)
        self.project = nn.Linear(input_width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def keys_values(self, byte_array: Tensor) -> Tensor:
        """Keys and values (B, M, 2 input_width) of `byte_array` (B, M, input_width)."""
        keys_values: Tensor = self.key_value(self.norm_bytes(byte_array))
        return keys_values

    def forward(self, latents: Tensor, keys_values: Tensor) -> Tensor:
        """The next `latents` (B, N, width)."""
        queries = self.query(self.norm_latents(latents))
        split = [x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (queries, *keys_values.chunk(2, -1))]
        head_width = split[0].shape[-1]
        # Fused kernels want head widths that are multiples of 8, and 261 is none; zeros change no product.
        q, k, v = (F.pad(x, (0, -head_width % 8)) for x in split)
        read = F.scaled_dot_product_attention(q, k, v, scale=head_width**-0.5)[..., :head_width]
        latents = latents + self.project(read.transpose(1, 2).flatten(2))
        out: Tensor = latents + self.mlp(self.norm_mlp(latents))
        return out


class Perceiver(nn.Module):
    """Latents that alternate reading the pixels and attending to each other: (B, C, H, W) -> (B, width), any H and W.

    Weights are shared: one cross-attend for the first iteration and one for all others, and one stack of self-attends
    for all. The feature is the mean over latents.

    Attributes:
        latents: (1, latents, width), initially truncated normal of standard deviation 0.02.

    Source: Jaegle et al. 2021, arXiv:2103.03206, section 3.1 and figure 1.
    """

    def __init__(
        self,
        in_chans: int,
        bands: int,
        latents: int,
        width: int,
        iterations: int,
        self_attends: int,
        heads: int,
        cross_heads: int,
        final_norm: bool,
    ) -> None:
        super().__init__()
        self.num_features = self.head_hidden_size = width
        self.bands = bands
        self.iterations = iterations
        self.latents = nn.Parameter(torch.empty(1, latents, width))
        nn.init.trunc_normal_(self.latents, std=0.02)
        input_width = _input_width(in_chans, bands)
        self.cross_attends = nn.ModuleList(
            CrossAttend(width, input_width, cross_heads) for _ in range(min(iterations, 2))
        )
        self.self_attends = nn.Sequential(
            *(Block(width, heads, mlp_ratio=1, qkv_bias=True) for _ in range(self_attends))
        )
        self.norm = nn.LayerNorm(width) if final_norm else nn.Identity()
        self.apply(_initialize)

    def no_weight_decay(self) -> set[str]:
        """The latents at the start."""
        return {"latents"}

    def byte_array(self, images: Tensor) -> Tensor:
        """The pixels of `images` (B, C, H, W), each with its position: (B, H W, C + 2 (2 bands + 1))."""
        height, width = images.shape[-2:]
        exact = torch.promote_types(images.dtype, torch.float32)
        positions = fourier_positions(height, width, self.bands, images.device, exact).to(images.dtype)
        return torch.cat([images.flatten(2).transpose(1, 2), positions.expand(len(images), -1, -1)], -1)

    def read(self, byte_array: Tensor) -> Tensor:
        """The latents (B, latents, width) after the last iteration over `byte_array` (B, M, input width)."""
        latents = self.latents.repeat(len(byte_array), 1, 1)
        # A copy that is used again has the same keys and values again.
        keys_values = [cross_attend.keys_values(byte_array) for cross_attend in self.cross_attends]  # type: ignore[operator]
        for iteration in range(self.iterations):
            copy = min(iteration, 1)
            latents = self.self_attends(self.cross_attends[copy](latents, keys_values[copy]))
        normed: Tensor = self.norm(latents)
        return normed

    def forward_features(self, images: Tensor) -> Tensor:
        """Latents after the last iteration, (B, latents, width)."""
        return self.read(self.byte_array(images))

    def forward(self, images: Tensor) -> Tensor:
        """Features of `images`."""
        return self.forward_features(images).mean(1)


def _input_width(in_chans: int, bands: int) -> int:
    return in_chans + 2 * (2 * bands + 1)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        lecun_normal_(module.weight)
        nn.init.zeros_(module.bias)


@dataclass(frozen=True)
class PerceiverOptions:
    """Options of a Perceiver."""

    bands: int | None = None
    """Frequencies of the position features for each axis; scaling leaves them. None: 16 up to 64 px, else 64."""

    latents: int | None = None
    """Number of latents before scaling. None: the member's."""

    width: int | None = None
    """Width of a latent before scaling, a multiple of the heads. None: the member's."""

    iterations: int | None = None
    """How often the latents read the pixels; beyond two this adds no parameters. None: the member's."""

    self_attends: int | None = None
    """Blocks of self-attention in each iteration, the same ones in all, before scaling. None: the member's."""

    heads: int = 8
    """Attention heads of each block of self-attention."""

    cross_heads: int = 1
    """Attention heads that read the pixels; they must divide the width of a pixel with its position, which is the
    input channels and 2 (2 bands + 1)."""

    final_norm: bool = False
    """One more layer norm on the latents before their mean."""

    def completed(self, member: str, image_size: int) -> "PerceiverOptions":
        """With the position features and the shape decided.

        Raises:
            UserError: values out of range, or heads that don't divide the width.
        """
        own_latents, own_width, own_iterations, own_self_attends = SHAPES[member]
        bands = (16 if image_size <= SMALL_IMAGE else 64) if self.bands is None else self.bands
        latents = own_latents if self.latents is None else self.latents
        width = own_width if self.width is None else self.width
        iterations = own_iterations if self.iterations is None else self.iterations
        self_attends = own_self_attends if self.self_attends is None else self.self_attends
        check_whole("bands", bands, 1, 1024)
        check_whole("latents", latents, 1, 8192)
        check_whole("width", width, 8, 8192)
        check_whole("iterations", iterations, 1, 256)
        check_whole("self_attends", self_attends, 1, 256)
        check_heads(width, self.heads)
        return replace(
            self, bands=bands, latents=latents, width=width, iterations=iterations, self_attends=self_attends
        )


def _build(member: str, image_size: int, in_chans: int, scale: Scale, options: Any) -> Perceiver:
    check_heads(_input_width(in_chans, options.bands), options.cross_heads, "width of a pixel with its position")
    return Perceiver(
        in_chans,
        options.bands,
        scale.channels(options.latents),
        scale.channels(options.width, 8 * options.heads),
        options.iterations,
        scale.blocks(options.self_attends),
        options.heads,
        options.cross_heads,
        options.final_norm,
    )


PERCEIVER = register(
    Family(
        name="perceiver",
        title="Perceiver",
        paper="Jaegle et al. 2021, arXiv:2103.03206",
        summary="A fixed set of learned latents reads all pixels by cross-attention, several times over.",
        notes=Notes(
            idea="A small set of learned vectors, the latents, asks the pixels questions by cross-attention, so that "
            "cost grows with the pixels and not with their square. Between two readings the latents attend to each "
            "other, with the same weights in every iteration. Nothing about images is built in but the Fourier "
            "features that tell each pixel's place.",
            equation=r"Z \leftarrow Z + \mathrm{softmax}\left(\frac{QK^\top}{\sqrt{d}}\right)V, \qquad "
            r"Q = W_Q\,\mathrm{LN}(Z),\; K, V = W_K\,\mathrm{LN}(X),\, W_V\,\mathrm{LN}(X), "
            r"\qquad X = [\mathrm{pixels},\, y,\, x,\, \sin \pi f_k y,\, \sin \pi f_k x,\, "
            r"\cos \pi f_k y,\, \cos \pi f_k x]",
            use="Where no locality should be assumed, or image sizes vary: the same weights take any height and width. "
            "On small image sets a network with locality built in learns more from each image.",
            scaling="Depth multiplies the self-attends; width the width of a latent, in multiples of 8 a head, and the "
            "number of latents, in multiples of 8. Position bands and iterations stay; scaled resolutions are even.",
            pitfalls=(
                "Pixels are not patched: at 224 px each reading attends to 50,176 of them. Attention runs in fused "
                "kernels, and keys and values are computed once for each copy of the cross-attend.",
                "The heads that read the pixels must divide 3 + 2 (2K + 1), which is 69 = 3 x 23 for 16 bands and "
                "261 = 9 x 29 for 64.",
                "Positions are relative to the image given, so a crop's corner is a corner. They are computed anew "
                "for each size, and the highest frequency follows it.",
                "Only their random start tells the latents apart: a constant start would keep them equal forever.",
            ),
            errata=(
                "Sharing all weights but the first iteration's would make two copies of the latent Transformer and, "
                "with a classifier for 1000 classes, 82.7 million parameters. The published 44.9 million need one copy "
                "of it and two cross-attends.",
            ),
        ),
        members={
            "perceiver_32": Member(32, "128 latents of 256, 4 iterations of 4 self-attends"),
            "perceiver_224": Member(224, "512 latents of 1024, 8 iterations of 6 self-attends, as in the paper"),
        },
        small="perceiver_32",
        large="perceiver_224",
        options=PerceiverOptions,
        build=_build,
        convolutional=False,
        scaling_step=lambda options: 2,
    )
)
