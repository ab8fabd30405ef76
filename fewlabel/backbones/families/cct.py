"""CCT, the Compact Convolutional Transformer: convolutions make the tokens, attention pools them."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch
from timm.layers import Attention, DropPath, Mlp
from torch import Tensor, nn

from fewlabel.backbones.family import Family, Member, Notes
from fewlabel.backbones.options import check_heads, check_number, check_rate, check_whole
from fewlabel.backbones.registry import register
from fewlabel.backbones.scale import Scale
from fewlabel.backbones.tokens import initialize_linear

__all__ = ["CCT", "CCTBlock", "CCTNetwork", "CCTOptions", "ConvTokenizer", "SeqPool"]

Positions = Literal["learned", "sine", "none"]

INNER_CHANNELS = 64
"""Channels of the tokenizer's convolutions but for the last, which makes tokens."""

SHAPES = {
    "cct_2_3x2": (2, 2, 1.0, 128, 3, 2),
    "cct_4_3x2": (4, 2, 1.0, 128, 3, 2),
    "cct_6_3x1": (6, 4, 2.0, 256, 3, 1),
    "cct_6_3x2": (6, 4, 2.0, 256, 3, 2),
    "cct_7_3x1": (7, 4, 2.0, 256, 3, 1),
    "cct_7_3x2": (7, 4, 2.0, 256, 3, 2),
    "cct_7_7x2": (7, 4, 2.0, 256, 7, 2),
    "cct_14_7x2": (14, 6, 3.0, 384, 7, 2),
}
"""Blocks, heads, MLP ratio, width, kernel side and number of the tokenizer's convolutions."""


class ConvTokenizer(nn.Module):
    """Convolution, ReLU and 3x3 max-pool of stride 2, once or more: (B, C, S, S) -> (B, tokens, width).

    Convolutions have no bias, stride max(1, k // 2 - 1) and padding max(1, k // 2) for a kernel of side k.

    Source: Hassani et al. 2021, arXiv:2104.05704, "Convolutional Tokenization".
    """

    def __init__(self, in_chans: int, width: int, kernel_size: int, convolutions: int) -> None:
        super().__init__()
        self.kernel_size, self.convolutions = kernel_size, convolutions
        self.stride, self.padding = max(1, kernel_size // 2 - 1), max(1, kernel_size // 2)
        channels = [in_chans, *[INNER_CHANNELS] * (convolutions - 1), width]
        self.layers = nn.Sequential()
        for before, after in pairwise(channels):
            convolution = nn.Conv2d(before, after, kernel_size, self.stride, self.padding, bias=False)
            nn.init.kaiming_normal_(convolution.weight)
            self.layers.extend([convolution, nn.ReLU(), nn.MaxPool2d(3, 2, 1)])

    def tokens(self, image_size: int) -> int:
        """The number of tokens that images of side `image_size` make."""
        side = image_size
        for _ in range(self.convolutions):
            side = (side + 2 * self.padding - self.kernel_size) // self.stride + 1
            side = (side - 1) // 2 + 1
        return side**2

    def forward(self, images: Tensor) -> Tensor:
        """Tokens of `images`, row by row."""
        tokens: Tensor = self.layers(images).flatten(2).transpose(1, 2)
        return tokens


def sine_positions(tokens: int, width: int) -> Tensor:
    """The fixed position table (1, tokens, width): sin and cos of n / 10000^(2i / width) at channels 2i and 2i + 1.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    """
    angles = torch.arange(tokens)[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)[None, :, :width]


class CCTBlock(nn.Module):
    """U = X + MHA(LN(X)), V = LN(U), Z = V + MLP(V): the MLP's skip path starts after the norm. (B, N, D) -> (B, N, D).

    Source: the authors' published networks; the paper draws a plain pre-norm block.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, dropout: float, attention_dropout: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, heads, attn_drop=attention_dropout, proj_drop=dropout)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = Mlp(width, hidden, drop=dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        """The next block's tokens."""
        tokens = self.norm_mlp(tokens + self.drop_path(self.attention(self.norm_attention(tokens))))
        out: Tensor = tokens + self.drop_path(self.mlp(tokens))
        return out


class SeqPool(nn.Module):
    """z = sum_i w_i x_i with w = softmax(X g + c) over tokens: (B, N, D) -> (B, D).

    The softmax does not see the bias c, whose gradient is zero; it is there as published.

    Source: Hassani et al. 2021, arXiv:2104.05704, "SeqPool".
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def weights(self, tokens: Tensor) -> Tensor:
        """How much each of `tokens` counts, (B, N, 1): positive, with sum 1 over tokens."""
        weights: Tensor = self.score(tokens).softmax(1)
        return weights

    def forward(self, tokens: Tensor) -> Tensor:
        """The weighted mean of `tokens`."""
        return (self.weights(tokens).transpose(1, 2) @ tokens).squeeze(1)


class CCTNetwork(nn.Module):
    """Convolutional tokens, positions, `depth` blocks, layer norm, SeqPool: (B, C, S, S) -> (B, width).

    Without positions it takes images of any size.

    Attributes:
        positions: (1, tokens, width), a parameter or a buffer, or None.
    """

    positions: Tensor | None

    def __init__(
        self,
        image_size: int,
        in_chans: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        kernel_size: int,
        convolutions: int,
        positions: Positions,
        dropout: float,
        attention_dropout: float,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        self.num_features = self.head_hidden_size = width
        self.tokenizer = ConvTokenizer(in_chans, width, kernel_size, convolutions)
        tokens = self.tokenizer.tokens(image_size)
        if positions == "learned":
            self.positions = nn.Parameter(torch.empty(1, tokens, width))
            nn.init.trunc_normal_(self.positions, std=0.2)
        else:
            table = sine_positions(tokens, width) if positions == "sine" else None
            self.register_buffer("positions", table, persistent=False)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *(
                CCTBlock(width, heads, hidden, dropout, attention_dropout, drop_path_rate * i / max(depth - 1, 1))
                for i in range(depth)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.pool = SeqPool(width)
        self.apply(initialize_linear)

    def no_weight_decay(self) -> set[str]:
        """The position table."""
        return {"positions"}

    def forward_features(self, images: Tensor) -> Tensor:
        """Tokens after the last layer norm, (B, N, width)."""
        tokens = self.tokenizer(images)
        if self.positions is not None:
            tokens = tokens + self.positions
        out: Tensor = self.norm(self.blocks(self.dropout(tokens)))
        return out

    def forward(self, images: Tensor) -> Tensor:
        """Features of `images`."""
        features: Tensor = self.pool(self.forward_features(images))
        return features


@dataclass(frozen=True)
class CCTOptions:
    """Options of a Compact Convolutional Transformer."""

    positions: Positions = "learned"
    """What is added to the tokens to tell their place: a `learned` table, a fixed one of `sine` and cosine, or nothing:
    the tokens are then a bag."""

    kernel_size: int | None = None
    """Side of the tokenizer's convolutions; from 6 on they have a stride, k // 2 - 1. None: the member's."""

    convolutions: int | None = None
    """Convolutions of the tokenizer; each also halves the side by a max-pool. None: the member's."""

    width: int | None = None
    """Width of a token before scaling, a multiple of the heads. None: the member's."""

    heads: int | None = None
    """Attention heads of each block. None: the member's."""

    depth: int | None = None
    """Blocks before scaling. None: the member's."""

    mlp_ratio: float | None = None
    """Hidden width of the MLP over the token width. None: the member's."""

    dropout: float = 0.0
    """Dropout after the positions, after attention and in the MLP, in training."""

    attention_dropout: float = 0.0
    """Dropout of attention weights, in training. Published networks were trained with 0.1."""

    drop_path_rate: float = 0.0
    """Probability that the last block's branches are skipped in training; earlier ones less, linearly. Published
    networks were trained with 0.1."""

    def completed(self, member: str, image_size: int) -> "CCTOptions":
        """With the shape decided.

        Raises:
            UserError: values out of range, or heads that don't divide the width.
        """
        names = ("depth", "heads", "mlp_ratio", "width", "kernel_size", "convolutions")
        shape: dict[str, Any] = {
            name: own if getattr(self, name) is None else getattr(self, name)
            for name, own in zip(names, SHAPES[member], strict=True)
        }
        check_whole("kernel_size", shape["kernel_size"], 1, 31)
        check_whole("convolutions", shape["convolutions"], 1, 8)
        check_whole("width", shape["width"], 8, 8192)
        check_whole("depth", shape["depth"], 1, 256)
        check_number("mlp_ratio", shape["mlp_ratio"], 0.1, 16)
        check_heads(shape["width"], shape["heads"])
        check_rate("dropout", self.dropout)
        check_rate("attention_dropout", self.attention_dropout)
        check_rate("drop_path_rate", self.drop_path_rate)
        return replace(self, **shape)


def _build(member: str, image_size: int, in_chans: int, scale: Scale, options: Any) -> CCTNetwork:
    width = scale.channels(options.width, 8 * options.heads)
    return CCTNetwork(
        image_size,
        in_chans,
        width,
        scale.blocks(options.depth),
        options.heads,
        round(options.mlp_ratio * width),
        options.kernel_size,
        options.convolutions,
        options.positions,
        options.dropout,
        options.attention_dropout,
        options.drop_path_rate,
    )


CCT = register(
    Family(
        name="cct",
        title="CCT",
        paper="Hassani et al. 2021, arXiv:2104.05704",
        summary="A small Transformer over tokens that convolutions make, pooled by learned attention.",
        notes=Notes(
            idea="One or two small convolutions with max-pools make the tokens in place of large patches, which gives "
            "a Transformer the sense of neighbourhood that it lacks on few images. There is no class token: a learned "
            "score weighs the tokens at the end, and their weighted mean is the feature. In `cct_L_kxn`, L blocks "
            "follow n convolutions of side k.",
            equation=r"w = \mathrm{softmax}_{\mathrm{tokens}}(X g + c), \qquad z = \sum_i w_i\, x_i",
            use="The Transformer to try first on small images and a small set of them.",
            scaling="Depth multiplies the blocks; width the token width, in multiples of 8 a head, and its MLP with "
            "it; the number of heads and the tokenizer's inner 64 channels stay. A scaled resolution is even.",
            pitfalls=(
                "Attention costs the square of the tokens: `3x1` makes 256 of 32 px, but 12544 of 224 px; take `7x2` "
                "there, with 196.",
                "`7x2` leaves 4 tokens of 32 px.",
                "In the authors' code every network with `sine` in its name has a learned table, as the keyword is "
                "lost on the way; here `positions=sine` is the fixed one.",
                "The bias of the pooling score never learns: the softmax does not see it. It is kept so that sizes "
                "are those published.",
                "Published with attention dropout and stochastic depth of 0.1; here both are 0 unless asked for.",
            ),
            errata=(
                "The block is no plain pre-norm block: the MLP's skip path carries the normalised tokens, "
                "V + MLP(V) with V = LN(U), not U + MLP(LN(U)).",
                "The learned table starts with standard deviation 0.2, not the 0.02 of ViT.",
                "The network of the Keras example differs (heads as wide as the tokens, a second GELU), so its size "
                "is another.",
            ),
        ),
        members={
            "cct_2_3x2": Member(32, "2 blocks of width 128, two 3x3 convolutions"),
            "cct_4_3x2": Member(32, "4 blocks of width 128, two 3x3 convolutions"),
            "cct_6_3x1": Member(32, "6 blocks of width 256, one 3x3 convolution"),
            "cct_6_3x2": Member(32, "6 blocks of width 256, two 3x3 convolutions"),
            "cct_7_3x1": Member(32, "7 blocks of width 256, one 3x3 convolution"),
            "cct_7_3x2": Member(32, "7 blocks of width 256, two 3x3 convolutions"),
            "cct_7_7x2": Member(224, "7 blocks of width 256, two 7x7 convolutions"),
            "cct_14_7x2": Member(224, "14 blocks of width 384, two 7x7 convolutions; published at 384 px too"),
        },
        small="cct_7_3x1",
        large="cct_7_7x2",
        options=CCTOptions,
        build=_build,
        convolutional=False,
        scaling_step=lambda options: 2,
    )
)
