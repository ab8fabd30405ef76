"""M2TR: EfficientNet with attention among patches of several sizes, and with frequencies, in its middle."""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewlabel.backbones.convolutional import ConvolutionalOptions, inverted_residuals
from fewlabel.backbones.families.efficientnet import NETWORKS
from fewlabel.backbones.family import Family, Member, Notes
from fewlabel.backbones.options import check_rate, check_whole
from fewlabel.backbones.precision import at_least_float32, without_autocast
from fewlabel.backbones.registry import register
from fewlabel.backbones.scale import Scale

__all__ = [
    "M2TR",
    "M2TR_FAMILY",
    "CrossModalityFusion",
    "FrequencyFilter",
    "FusionLayer",
    "M2TROptions",
    "MultiScaleAttention",
    "cut_patches",
    "paste_patches",
]

HEADS = 4

SHAPES = {"m2tr_b0": ("efficientnet_b0", 2), "m2tr_b4": ("efficientnet_b4", 4)}
"""The network around the fusion layers, and their number."""

FRONT_STAGES = 2
"""Stages of the network before the fusion layers; they end at a quarter of the resolution."""


def cut_patches(maps: Tensor, side: int) -> Tensor:
    """Maps (B, C, h, w) as flattened patches (B, h w / side^2, C side^2), row by row."""
    return F.pixel_unshuffle(maps, side).flatten(2).transpose(1, 2)


def paste_patches(patches: Tensor, side: int) -> Tensor:
    """The inverse of `cut_patches` for a square map: (B, N, C side^2) -> (B, C, sqrt(N) side, sqrt(N) side)."""
    rows = round(patches.shape[1] ** 0.5)
    return F.pixel_shuffle(patches.transpose(1, 2).reshape(len(patches), -1, rows, rows), side)


def _convolution(channels: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel, padding="same", dilation=dilation),
        nn.BatchNorm2d(channels),
        nn.LeakyReLU(0.2),
    )


def _feed_forward(channels: int) -> nn.Sequential:
    return nn.Sequential(_convolution(channels, 3, dilation=2), _convolution(channels, 3))


class MultiScaleAttention(nn.Module):
    """Attention among patches whose side differs by head: (B, C, h, h) -> (B, C, h, h).

    Queries, keys and values are 1x1 convolutions of the map. Each of the four heads has a quarter of the channels
    and cuts them into patches of side r = h, h/2, h/4 and h/8, the tokens: softmax(Q K^T / sqrt(C/4 r^2)) V.
    A 3x3 convolution joins the heads.

    Source: Wang et al. 2021, arXiv:2104.09770.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.patch_sides = [side >> head for head in range(HEADS)]
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.out = _convolution(channels, 3)

    def heads(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The heads' outputs side by side, each argument and the result (B, C, h, h)."""
        heads = []
        for side, q, k, v in zip(self.patch_sides, *(m.chunk(HEADS, 1) for m in (query, key, value)), strict=True):
            # Three dimensions, for plain matrix products: fused kernels want many tokens of a few channels, and
            # these are at most 64 tokens of up to some 50,000.
            patches = F.scaled_dot_product_attention(cut_patches(q, side), cut_patches(k, side), cut_patches(v, side))
            heads.append(paste_patches(patches, side))
        return torch.cat(heads, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """What the patches tell each other, to be added to `maps`."""
        out: Tensor = self.out(self.heads(self.query(maps), self.key(maps), self.value(maps)))
        return out


class FrequencyFilter(nn.Module):
    """A learned weight for each frequency and channel: F^-1(W F(x)), (B, C, h, h) -> (B, C, h, h).

    The same as a circular depthwise convolution with a kernel as large as the map.

    Attributes:
        weight: (2, C, h, h/2 + 1), real and imaginary parts, initially normal of standard deviation 0.02.

    Source: Wang et al. 2021, arXiv:2104.09770.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2, channels, side, side // 2 + 1))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, maps: Tensor) -> Tensor:
        """The filtered maps, in the dtype of `maps`."""
        # bfloat16 has no Fourier transform, and float16 only on CUDA for some sizes.
        with without_autocast(maps):
            weight = torch.complex(*at_least_float32(self.weight))
            filtered = torch.fft.rfft2(at_least_float32(maps), norm="ortho") * weight
            # In two steps, as devices differ in what irfft2 makes of a spectrum that belongs to no real map.
            columns = torch.fft.ifft(filtered, dim=-2, norm="ortho")
            out: Tensor = torch.fft.irfft(columns, n=maps.shape[-1], norm="ortho")
        return out.to(maps.dtype)


class CrossModalityFusion(nn.Module):
    """Each position of the image's map asks all positions of the frequency map: two (B, C, h, w) -> (B, C, h, w).

    softmax(Q K^T / sqrt(C)) V over the h w positions, Q from the image's map and K, V from the frequency map, all by
    1x1 convolutions; then another.

    Source: Wang et al. 2021, arXiv:2104.09770.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.out = _convolution(channels, 1)

    def forward(self, maps: Tensor, frequency: Tensor) -> Tensor:
        """What the frequency map adds to `maps`."""
        query, key, value = (
            # One head: fused kernels, which never hold the weights of all pairs, take four dimensions only.
            projected.flatten(2).transpose(1, 2).unsqueeze(1)
            for projected in (self.query(maps), self.key(frequency), self.value(frequency))
        )
        positions = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.out(positions.transpose(2, 3).reshape(maps.shape))
        return out


class FusionLayer(nn.Module):
    """X = x + MSA(x), Y = X + FFN(X), Z = Y + FFN(filter(Y)), Y + CMA(Y, Z): (B, C, h, h) -> (B, C, h, h).

    FFN is two 3x3 convolutions, the first of dilation 2, each with batch norm and LeakyReLU(0.2).

    Args:
        frequency: False: Y is the result.

    Source: Wang et al. 2021, arXiv:2104.09770.
    """

    def __init__(self, channels: int, side: int, frequency: bool) -> None:
        super().__init__()
        self.frequency = frequency
        self.attention = MultiScaleAttention(channels, side)
        self.feed_forward = _feed_forward(channels)
        if frequency:
            self.filter = FrequencyFilter(channels, side)
            self.filter_feed_forward = _feed_forward(channels)
            self.fusion = CrossModalityFusion(channels)

    def forward(self, maps: Tensor) -> Tensor:
        """The next layer's maps."""
        maps = maps + self.attention(maps)
        maps = maps + self.feed_forward(maps)
        if not self.frequency:
            return maps
        frequency = maps + self.filter_feed_forward(self.filter(maps))
        out: Tensor = maps + self.fusion(maps, frequency)
        return out


class M2TR(nn.Module):
    """Stem and two stages, fusion layers at a quarter of the resolution, the other stages, the mean over the map.

    (B, C, image_size, image_size) -> (B, head_hidden_size). The fusion layers start from torch's own initial weights.

    Args:
        network: timm's EfficientNet without a classifier.
        image_size: side of the image, a multiple of 32.
        depth: fusion layers.
        frequency: see `FusionLayer`.

    Source: Wang et al. 2021, arXiv:2104.09770.
    """

    def __init__(self, network: Any, image_size: int, depth: int, frequency: bool) -> None:
        super().__init__()
        self.num_features, self.head_hidden_size = network.num_features, network.head_hidden_size
        (channels,) = (s["num_chs"] for s in network.feature_info if s["stage"] == FRONT_STAGES)
        self.network = network
        self.fusion = nn.Sequential(*(FusionLayer(channels, image_size // 4, frequency) for _ in range(depth)))

    def forward_features(self, images: Tensor) -> Tensor:
        """The last map, (B, num_features, image_size / 32, image_size / 32)."""
        network = self.network
        maps = network.blocks[:FRONT_STAGES](network.bn1(network.conv_stem(images)))
        maps = network.blocks[FRONT_STAGES:](self.fusion(maps))
        out: Tensor = network.bn2(network.conv_head(maps))
        return out

    def forward(self, images: Tensor) -> Tensor:
        """Features of `images`."""
        features: Tensor = self.network.forward_head(self.forward_features(images))
        return features


@dataclass(frozen=True)
class M2TROptions:
    """Options of an M2TR."""

    frequency: bool = True
    """Filter the frequencies and fuse the result with the map in each fusion layer, as published; false leaves the
    attention among patches alone."""

    fusion_depth: int | None = None
    """Fusion layers before scaling. None: the member's."""

    drop_path_rate: float = 0.0
    """Probability that EfficientNet's last residual branch is skipped in training; earlier ones less, linearly."""

    def completed(self, member: str, image_size: int) -> "M2TROptions":
        """With the fusion depth decided."""
        depth = SHAPES[member][1] if self.fusion_depth is None else self.fusion_depth
        check_whole("fusion_depth", depth, 1, 256)
        check_rate("drop_path_rate", self.drop_path_rate)
        return replace(self, fusion_depth=depth)


def _build(member: str, image_size: int, in_chans: int, scale: Scale, options: Any) -> M2TR:
    inner = ConvolutionalOptions(small_stem=False, drop_path_rate=options.drop_path_rate)
    network, _ = inverted_residuals(NETWORKS, SHAPES[member][0], in_chans, scale, inner).build()
    return M2TR(network, image_size, scale.blocks(options.fusion_depth), options.frequency)


M2TR_FAMILY = register(
    Family(
        name="m2tr",
        title="M2TR",
        paper="Wang et al. 2021, arXiv:2104.09770; EfficientNet: Tan and Le 2019, arXiv:1905.11946",
        summary="EfficientNet with attention among patches of four sizes and a learned frequency filter in its middle.",
        notes=Notes(
            idea="Between the second and the third stage of an EfficientNet, each head of an attention layer cuts the "
            "map into patches of another size, so that traces of all sizes can be compared across the image. A filter "
            "with a learned weight for each frequency makes a second map, which shows what pixels hide. The first map "
            "then attends to all positions of the second.",
            equation=r"\mathrm{head}_r = \mathrm{softmax}\left(\frac{Q_r K_r^\top}{\sqrt{\tfrac{C}{4} r^2}}\right) V_r,"
            r"\quad r = h, \tfrac h2, \tfrac h4, \tfrac h8, \qquad "
            r"Z = Y + \mathrm{FFN}\left(\mathcal F^{-1}(W \odot \mathcal F(Y))\right), \qquad Y + \mathrm{CMA}(Y, Z)",
            use="Made for telling forged faces from real ones: for fine traces that are spread over the image. For "
            "objects a plain EfficientNet costs far less.",
            scaling="Depth multiplies EfficientNet's blocks, rounded up, and the fusion layers, rounded to the "
            "nearest; width multiplies EfficientNet's channels, in multiples of 8, and the fusion layers' with them.",
            pitfalls=(
                "The frequency filter has a weight for each frequency: it is tied to the image size, and its "
                "parameters grow with the square of the side.",
                "The fusion attends among all positions of the map, so its cost grows with the fourth power of the "
                "side. It runs in fused kernels; the weights alone would be 156 MB an image and layer at 320 px.",
                "Sides must be multiples of 32, as a quarter of the side is halved three times for the smallest "
                "patches. At 32 px the last map is 1x1, so training needs batches of two or more.",
                "There is no Fourier transform in bf16: under autocast it is computed in float32.",
                "The first head has one patch, the map itself: its attention weight is always 1.",
                "The layers are placed by stage. The authors' code counts six blocks, which ends a stage in B4 alone.",
            ),
            errata=(
                "Queries, keys and values are 1x1 convolutions of the map, which is then cut into patches. A linear "
                "layer for whole patches would have 2.6 billion weights for the largest at 320 px.",
            ),
        ),
        members={
            "m2tr_b0": Member(224, "EfficientNet B0, 2 fusion layers"),
            "m2tr_b4": Member(320, "EfficientNet B4, 4 fusion layers, as published"),
        },
        small="m2tr_b0",
        large="m2tr_b0",
        options=M2TROptions,
        build=_build,
        convolutional=True,
        step=lambda options: 32,
    )
)
