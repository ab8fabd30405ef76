"""EANet: attention to a small learned memory in place of the other tokens."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabel.backbones.family import Family, Member, Notes
from fewlabel.backbones.options import SMALL_IMAGE, check_heads, check_number, check_rate, check_whole
from fewlabel.backbones.precision import at_least_float32
from fewlabel.backbones.registry import register
from fewlabel.backbones.scale import Scale
from fewlabel.backbones.tokens import PatchTokens, initialize_linear

__all__ = [
    "EANET",
    "EANet",
    "EANetBlock",
    "EANetOptions",
    "ExternalAttention",
    "MultiHeadExternalAttention",
    "double_normalization",
]

SHAPES = {
    "eanet_keras": (64, 8, 4, 16, 1.0, 2, False),
    "eanet_tiny_32": (192, 8, 3, 64, 4.0, 4, True),
    "eanet_tiny": (192, 12, 3, 64, 4.0, 4, True),
    "eanet_small": (384, 12, 6, 64, 4.0, 4, True),
}
"""Width, blocks, heads, memory slots, MLP ratio, patch side up to `SMALL_IMAGE` px, and whether it ends in a norm."""


def double_normalization(logits: Tensor) -> Tensor:
    """A[i, j] = E[i, j] / sum_k E[i, k] with E = softmax of the logits over tokens i: (..., N, S) -> (..., N, S).

    Computed as the softmax over slots of the log-softmax over tokens, the same in exact arithmetic, and in float32 at
    least: the plain form divides zero by zero where logits are sharp.

    Source: Guo et al. 2021, arXiv:2105.02358, "Normalization".
    """
    return at_least_float32(logits).log_softmax(-2).softmax(-1).to(logits.dtype)


class ExternalAttention(nn.Module):
    """A = Norm(F M_k^T), out = A M_v: (..., N, width) -> (..., N, width), at a cost linear in N.

    Args:
        width: width d of a token.
        slots: rows S of the memories.
        bias: add one to the logits and one to the result, as in the authors' multi-head block; the formula has none.
            The softmax over tokens does not see that of the logits, whose gradient is zero.
        tied: M_v is M_k.
        dropout: of attention weights, in training.

    Attributes:
        keys: M_k, (slots, width), initially truncated normal of standard deviation 0.02, as is M_v.

    Source: Guo et al. 2021, arXiv:2105.02358, "Self-attention and External Attention".
    """

    def __init__(self, width: int, slots: int, bias: bool = False, tied: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.empty(slots, width))
        nn.init.trunc_normal_(self.keys, std=0.02)
        self.own_values = None if tied else nn.Parameter(torch.empty(slots, width))
        if self.own_values is not None:
            nn.init.trunc_normal_(self.own_values, std=0.02)
        self.key_bias = nn.Parameter(torch.zeros(slots)) if bias else None
        self.value_bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.dropout = nn.Dropout(dropout)

    @property
    def values(self) -> Tensor:
        """M_v, (slots, width)."""
        return self.keys if self.own_values is None else self.own_values

    def weights(self, tokens: Tensor) -> Tensor:
        """How much each of `tokens` attends to each slot, (..., N, slots): positive, with sum 1 over slots."""
        return double_normalization(F.linear(tokens, self.keys, self.key_bias))

    def forward(self, tokens: Tensor) -> Tensor:
        """What the memory answers to `tokens`."""
        return F.linear(self.dropout(self.weights(tokens)), self.values.T, self.value_bias)


class MultiHeadExternalAttention(nn.Module):
    """External attention in `expansion * heads` heads of width / heads, which share one memory: (B, N, D) -> (B, N, D).

    Source: Guo et al. 2021, arXiv:2105.02358, "Multi-head external attention".
    """

    def __init__(
        self, width: int, heads: int, slots: int, expansion: int, tied: bool, dropout: float, attention_dropout: float
    ) -> None:
        super().__init__()
        self.heads = expansion * heads
        self.expand = nn.Linear(width, expansion * width)
        self.memory = ExternalAttention(width // heads, slots, bias=True, tied=tied, dropout=attention_dropout)
        self.merge = nn.Linear(expansion * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """The answers to all heads, merged."""
        by_head = self.expand(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        out: Tensor = self.dropout(self.merge(self.memory(by_head).transpose(1, 2).flatten(2)))
        return out


class EANetBlock(nn.Module):
    """Y = X + EA(LN(X)), Z = Y + MLP(LN(Y)), with `attention` for EA: (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int, attention: nn.Module, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = attention
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = Mlp(width, hidden, drop=dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """The next block's tokens."""
        tokens = tokens + self.attention(self.norm_attention(tokens))
        out: Tensor = tokens + self.mlp(self.norm_mlp(tokens))
        return out


class EANet(nn.Module):
    """Patch tokens with positions, `depth` blocks, a layer norm or none, the mean: (B, C, S, S) -> (B, width)."""

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        in_chans: int,
        width: int,
        depth: int,
        heads: int,
        slots: int,
        expansion: int,
        hidden: int,
        tied_memories: bool,
        final_norm: bool,
        dropout: float,
        attention_dropout: float,
    ) -> None:
        super().__init__()
        self.num_features = self.head_hidden_size = width
        self.tokens = PatchTokens(image_size, patch_size, in_chans, width)
        self.blocks = nn.Sequential()
        for _ in range(depth):
            attention = MultiHeadExternalAttention(
                width, heads, slots, expansion, tied_memories, dropout, attention_dropout
            )
            self.blocks.append(EANetBlock(width, attention, hidden, dropout))
        self.norm = nn.LayerNorm(width) if final_norm else nn.Identity()
        self.apply(initialize_linear)

    def no_weight_decay(self) -> set[str]:
        """The position table."""
        return {"tokens.positions"}

    def forward_features(self, images: Tensor) -> Tensor:
        """Tokens after the last block and norm, (B, N, width)."""
        tokens: Tensor = self.norm(self.blocks(self.tokens(images)))
        return tokens

    def forward(self, images: Tensor) -> Tensor:
        """Features of `images`."""
        return self.forward_features(images).mean(1)


@dataclass(frozen=True)
class EANetOptions:
    """Options of an EANet."""

    patch_size: int | None = None
    """Side of a patch in pixels, a divisor of the image size. None: up to 64 px the member's, 2 or 4, else 16."""

    width: int | None = None
    """Width of a token before scaling, a multiple of the heads. None: the member's."""

    heads: int | None = None
    """Attention heads before `expansion` multiplies them. None: the member's."""

    depth: int | None = None
    """Blocks before scaling. None: the member's."""

    slots: int | None = None
    """Rows of each memory, which is what every token attends to. None: the member's."""

    mlp_ratio: float | None = None
    """Hidden width of the MLP over the token width. None: the member's."""

    expansion: int = 4
    """How many times wider attention is than a token, and how many times as many heads it has."""

    tied_memories: bool = False
    """Whether the memory of values is that of keys."""

    final_norm: bool | None = None
    """Whether a layer norm follows the last block. None: the member's."""

    dropout: float = 0.0
    """Dropout after attention and in the MLP, in training."""

    attention_dropout: float = 0.0
    """Dropout of attention weights, in training; those of a token then no longer have the sum 1."""

    def completed(self, member: str, image_size: int) -> "EANetOptions":
        """With the patch size, the shape and the last norm decided.

        Raises:
            UserError: values out of range, or heads that don't divide the width.
        """
        names = ("width", "depth", "heads", "slots", "mlp_ratio", "patch_size", "final_norm")
        own = dict(zip(names, SHAPES[member], strict=True))
        if image_size > SMALL_IMAGE:
            own["patch_size"] = 16
        shape: dict[str, Any] = {
            name: value if getattr(self, name) is None else getattr(self, name) for name, value in own.items()
        }
        check_whole("patch_size", shape["patch_size"], 1, 256)
        check_whole("width", shape["width"], 8, 8192)
        check_whole("depth", shape["depth"], 1, 256)
        check_whole("slots", shape["slots"], 1, 4096)
        check_whole("expansion", self.expansion, 1, 16)
        check_number("mlp_ratio", shape["mlp_ratio"], 0.1, 16)
        check_heads(shape["width"], shape["heads"])
        check_rate("dropout", self.dropout)
        check_rate("attention_dropout", self.attention_dropout)
        return replace(self, **shape)


def _build(member: str, image_size: int, in_chans: int, scale: Scale, options: Any) -> EANet:
    width = scale.channels(options.width, 8 * options.heads)
    return EANet(
        image_size,
        options.patch_size,
        in_chans,
        width,
        scale.blocks(options.depth),
        options.heads,
        options.slots,
        options.expansion,
        round(options.mlp_ratio * width),
        options.tied_memories,
        options.final_norm,
        options.dropout,
        options.attention_dropout,
    )


EANET = register(
    Family(
        name="eanet",
        title="EANet",
        paper="Guo et al. 2021, arXiv:2105.02358",
        summary="Attention to a small learned memory that all images share: linear in the number of tokens.",
        notes=Notes(
            idea="Tokens do not attend to each other but to the rows of a small learned memory, which is the same for "
            "every image. A second memory holds what each row answers, so attention is two linear layers with a "
            "normalisation between. What tokens learn of each other comes through that normalisation alone, as its "
            "softmax runs over tokens before the sum over rows is made one.",
            equation=r"\hat A = \mathrm{softmax}_{\mathrm{tokens}}(F M_k^\top), \qquad "
            r"A_{ij} = \hat A_{ij} \Big/ \sum_k \hat A_{ik}, \qquad F_{\mathrm{out}} = A M_v",
            use="Many tokens, as attention costs in proportion to them; where tokens must be compared with each other, "
            "take a ViT.",
            scaling="Depth multiplies the blocks; width the token width, in multiples of 8 a head, and its MLP with "
            "it; the number of heads and of memory slots stays.",
            pitfalls=(
                "Softmax over slots instead of tokens is the commonest error: the second normalisation then does "
                "nothing, and tokens learn nothing of each other.",
                "In half precision sharp logits make rows of zeros, and dividing by their sum gives NaN: it is "
                "computed as a softmax of a log-softmax, in float32.",
                "Two layers that share storage come apart when moved to another device or type; `tied_memories` uses "
                "one parameter twice.",
                "The bias of each slot's logits never learns: the softmax over tokens does not see it. It is kept so "
                "that sizes are those published.",
                "`eanet_keras` ends without a layer norm, as published; the larger ones have one.",
            ),
            errata=(
                "The second normalisation divides by the sum over slots, A[i, j] / sum_k A[i, k], not over tokens, "
                "where the softmax has made the sum 1 already.",
                "The authors' network for whole images has another front end (T2T); here it is that of ViT.",
            ),
        ),
        members={
            "eanet_keras": Member(32, "width 64, 4 heads, 8 blocks, 16 slots, patches of 2 px, as in Keras's example"),
            "eanet_tiny_32": Member(32, "width 192, 3 heads, 8 blocks, patches of 4 px"),
            "eanet_tiny": Member(224, "width 192, 3 heads, 12 blocks"),
            "eanet_small": Member(224, "width 384, 6 heads, 12 blocks"),
        },
        small="eanet_keras",
        large="eanet_small",
        options=EANetOptions,
        build=_build,
        convolutional=False,
        step=lambda options: options.patch_size,
    )
)
