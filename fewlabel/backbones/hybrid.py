"""A small CNN in front of a Transformer encoder: what the two hybrids, of channel and of spatial tokens, share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from timm.models.vision_transformer import Block
from torch import Tensor, nn

from fewlabel.backbones.options import SMALL_IMAGE, check_heads, check_number, check_whole
from fewlabel.backbones.scale import Scale
from fewlabel.backbones.tokens import initialize_linear
from fewlabel.errors import UserError

__all__ = ["RESOLUTION_STEP", "SCALING", "Hybrid", "HybridOptions", "hybrid_arguments"]

RESOLUTION_STEP = 4
"""Scaled resolutions are multiples of this, the stride of the small-image CNN; unscaled, any size works."""

SCALING = (
    "Depth multiplies the encoder's blocks; width the channels of the CNN, in multiples of 8, and the token width, in "
    "multiples of 8 a head. The number of heads stays."
)


class _Shape(NamedTuple):
    channels: tuple[int, ...]
    width: int
    depth: int
    heads: int
    mlp_ratio: float


SHAPES = {
    "hybrid_channel_32": _Shape((32, 64, 64), 128, 4, 4, 2.0),
    "hybrid_channel_224": _Shape((32, 64, 128, 64), 192, 6, 6, 4.0),
    "hybrid_channel_224_n256": _Shape((32, 64, 128, 256), 192, 6, 6, 4.0),
    "hybrid_spatial_32": _Shape((32, 64, 64), 128, 4, 4, 2.0),
    "hybrid_spatial_224": _Shape((32, 64, 128, 192), 192, 6, 6, 4.0),
}


class Hybrid(nn.Module, ABC):
    """CNN, tokens of its maps, pre-norm encoder with a last layer norm: (B, C, S, S) -> (B, width).

    The CNN's layers are a 3x3 convolution, batch norm and ReLU. A subclass makes the tokens, then calls `initialize`.

    Args:
        in_chans: input channels.
        channels: width of each convolution.
        strides: stride of each convolution.
        width: width of a token.
        depth: blocks of the encoder.
        heads: attention heads of each block.
        mlp_ratio: hidden width of the MLP over `width`.
    """

    def __init__(
        self,
        in_chans: int,
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
    ) -> None:
        super().__init__()
        self.num_features = self.head_hidden_size = width
        layers: list[nn.Module] = []
        for inputs, outputs, stride in zip((in_chans, *channels), channels, strides, strict=False):
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.cnn = nn.Sequential(*layers)
        self.blocks = nn.Sequential(*(Block(width, heads, mlp_ratio, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def initialize(self) -> None:
        """Convolutions Kaiming-normal over the outputs, linear maps as in every network of tokens."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.apply(initialize_linear)

    @abstractmethod
    def tokens(self, maps: Tensor) -> Tensor:
        """Tokens (B, N, width) of the CNN's `maps` (B, channels, h, w)."""

    def forward_features(self, images: Tensor) -> Tensor:
        """Tokens after the last layer norm, (B, N, width)."""
        tokens: Tensor = self.norm(self.blocks(self.tokens(self.cnn(images))))
        return tokens

    def forward(self, images: Tensor) -> Tensor:
        """Features of `images`: the mean over tokens."""
        return self.forward_features(images).mean(1)


@dataclass(frozen=True)
class HybridOptions:
    """Options of a CNN with a Transformer encoder."""

    channels: tuple[int, ...] | None = None
    """Width of each 3x3 convolution before scaling. None: the member's."""

    strides: tuple[int, ...] | None = None
    """Stride of each convolution. None: 2 each; up to 64 px only in the last two, 1 before."""

    width: int | None = None
    """Width of a token before scaling, a multiple of the heads. None: the member's."""

    depth: int | None = None
    """Blocks of the encoder before scaling. None: the member's."""

    heads: int | None = None
    """Attention heads of each block. None: the member's."""

    mlp_ratio: float | None = None
    """Hidden width of the MLP over the token width. None: the member's."""

    def completed(self, member: str, image_size: int) -> "HybridOptions":
        """With the CNN and the encoder decided.

        Raises:
            UserError: values out of range, unequal numbers of channels and strides, or heads that don't divide the
                width.
        """
        own = SHAPES[member]
        channels = own.channels if self.channels is None else self.channels
        ones = len(channels) - 2 if image_size <= SMALL_IMAGE else 0
        strides = (1,) * ones + (2,) * (len(channels) - max(ones, 0)) if self.strides is None else self.strides
        width = own.width if self.width is None else self.width
        depth = own.depth if self.depth is None else self.depth
        heads = own.heads if self.heads is None else self.heads
        mlp_ratio = own.mlp_ratio if self.mlp_ratio is None else self.mlp_ratio
        check_whole("The number of channels", len(channels), 1, 16)
        if len(strides) != len(channels):
            raise UserError(
                f"There are {len(channels)} channels and {len(strides)} strides: give one stride for each convolution."
            )
        for outputs in channels:
            check_whole("channels", outputs, 1, 8192)
        for stride in strides:
            check_whole("strides", stride, 1, 3)
        check_whole("width", width, 8, 8192)
        check_whole("depth", depth, 1, 256)
        check_heads(width, heads)
        check_number("mlp_ratio", mlp_ratio, 0.125, 16)
        return replace(
            self, channels=channels, strides=strides, width=width, depth=depth, heads=heads, mlp_ratio=mlp_ratio
        )


def hybrid_arguments(in_chans: int, scale: Scale, options: Any) -> dict[str, Any]:
    """The arguments of `Hybrid` at `scale`."""
    return {
        "in_chans": in_chans,
        "channels": tuple(map(scale.channels, options.channels)),
        "strides": options.strides,
        "width": scale.channels(options.width, 8 * options.heads),
        "depth": scale.blocks(options.depth),
        "heads": options.heads,
        "mlp_ratio": options.mlp_ratio,
    }
