"""RedNet: ResNet's bottlenecks with an involution in place of the 3x3 convolution."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from timm.layers import DropPath
from torch import Tensor, nn

from fewlabel.backbones.convolutional import RESOLUTION_STEP
from fewlabel.backbones.family import Family, Member, Notes
from fewlabel.backbones.involution import GROUP_CHANNELS, Involution
from fewlabel.backbones.options import SMALL_IMAGE, check_rate, check_stages, check_whole
from fewlabel.backbones.registry import register
from fewlabel.backbones.scale import Scale
from fewlabel.errors import UserError

__all__ = ["REDNET", "RedNet", "RedNetBlock", "RedNetOptions"]

EXPANSION = 4
STEM = 64

STAGES = {
    "rednet26": (1, 2, 4, 1),
    "rednet38": (2, 3, 5, 2),
    "rednet50": (3, 4, 6, 3),
    "rednet101": (3, 4, 23, 3),
    "rednet152": (3, 8, 36, 3),
}
"""Blocks of each stage."""


def _convolution(inputs: int, outputs: int, kernel_size: int, stride: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size but for the stride, and its batch norm."""
    convolution = nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


def _involution(channels: int, kernel_size: int, stride: int = 1) -> list[nn.Module]:
    return [Involution(channels, kernel_size, stride), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


class RedNetBlock(nn.Module):
    """y = relu(x + F(x)): (B, inputs, H, W) -> (B, 4 channels, ceil(H / stride), ceil(W / stride)).

    F is a 1x1 convolution to `channels`, an involution and a 1x1 convolution to four times as many, each with batch
    norm. Where the shapes differ, x passes a 1x1 convolution with batch norm.

    Source: Li et al. 2021, arXiv:2103.06255.
    """

    def __init__(self, inputs: int, channels: int, kernel_size: int, stride: int, drop_path: float) -> None:
        super().__init__()
        outputs = EXPANSION * channels
        self.branch = nn.Sequential(
            *_convolution(inputs, channels, 1),
            nn.ReLU(inplace=True),
            *_involution(channels, kernel_size, stride),
            *_convolution(channels, outputs, 1),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_convolution(inputs, outputs, 1, stride))
        self.drop_path = DropPath(drop_path)
        self.act = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """The next block's features."""
        out: Tensor = self.act(self.shortcut(features) + self.drop_path(self.branch(features)))
        return out


class RedNet(nn.Module):
    """A stem, four stages of `RedNetBlock`s, the mean over the map: (B, in_chans, H, W) -> (B, 32 width).

    Args:
        in_chans: channels of an image.
        stem: width after the stem; half of it, a multiple of 16, before its last convolution.
        layers: blocks of each stage.
        width: channels of the first stage's involutions, a multiple of 16; each next stage has twice as many.
        kernel_size: side of the involutions' kernels in the stages.
        small_stem: stride 1 and no max-pool in the stem.
        zero_init_last: start every branch at zero, by its last batch norm.
        drop_path_rate: probability that the last branch is skipped in training; earlier ones less, linearly.

    Source: Li et al. 2021, arXiv:2103.06255.
    """

    def __init__(
        self,
        in_chans: int,
        stem: int,
        layers: tuple[int, ...],
        width: int,
        kernel_size: int,
        small_stem: bool,
        zero_init_last: bool,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_convolution(in_chans, stem // 2, 3, 1 if small_stem else 2),
            nn.ReLU(inplace=True),
            *_involution(stem // 2, 3),
            *_convolution(stem // 2, stem, 3),
            nn.ReLU(inplace=True),
            nn.Identity() if small_stem else nn.MaxPool2d(3, 2, 1),
        )
        blocks: list[nn.Module] = []
        inputs = stem
        for stage, depth in enumerate(layers):
            channels = width * 2**stage
            for block in range(depth):
                stride = 2 if stage and not block else 1
                drop_path = drop_path_rate * len(blocks) / max(1, sum(layers) - 1)
                blocks.append(RedNetBlock(inputs, channels, kernel_size, stride, drop_path))
                inputs = EXPANSION * channels
        self.num_features = self.head_hidden_size = inputs
        self.blocks = nn.Sequential(*blocks)
        self.apply(_initialize)
        if zero_init_last:
            for module in self.modules():
                if isinstance(module, RedNetBlock):
                    nn.init.zeros_(module.branch[-1].weight)  # type: ignore[arg-type]

    def forward_features(self, images: Tensor) -> Tensor:
        """The map after the last block, (B, num_features, h, w)."""
        features: Tensor = self.blocks(self.stem(images))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Features of `images`."""
        return self.forward_features(images).mean((2, 3))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@dataclass(frozen=True)
class RedNetOptions:
    """Options of a RedNet."""

    small_stem: bool | None = None
    """Start at full resolution, for small images: stride 1 and no max-pool in the stem. None: up to 64 px."""

    layers: tuple[int, ...] | None = None
    """Blocks of each of the four stages before scaling. None: the member's."""

    width: int = 64
    """Channels of the first stage's involutions before scaling, a multiple of 16; each next stage has twice as many,
    and the features are 32 times as wide."""

    kernel_size: Literal[3, 5, 7, 9] = 7
    """Side of the involutions' kernels in the stages; 3 or 5 suit maps of a few pixels. The stem's has 3."""

    zero_init_last: bool = True
    """Start every residual branch at zero, by its last batch norm (Goyal et al. 2017)."""

    drop_path_rate: float = 0.0
    """Probability that the last residual branch is skipped in training; earlier ones less, linearly
    (stochastic depth, Huang et al. 2016)."""

    def completed(self, member: str, image_size: int) -> "RedNetOptions":
        """With the stem and the stages decided."""
        layers = self.layers or STAGES[member]
        check_stages(member, "layers", layers, 4, 256)
        check_whole("width", self.width, GROUP_CHANNELS, 1024)
        if self.width % GROUP_CHANNELS:
            raise UserError(f"width is {self.width}: give a multiple of {GROUP_CHANNELS}, as so many share a kernel.")
        check_rate("drop_path_rate", self.drop_path_rate)
        small_stem = image_size <= SMALL_IMAGE if self.small_stem is None else self.small_stem
        return replace(self, small_stem=small_stem, layers=layers)


def _build(member: str, image_size: int, in_chans: int, scale: Scale, options: Any) -> RedNet:
    return RedNet(
        in_chans,
        scale.channels(STEM, 2 * GROUP_CHANNELS),
        tuple(map(scale.blocks, options.layers)),
        scale.channels(options.width, GROUP_CHANNELS),
        options.kernel_size,
        options.small_stem,
        options.zero_init_last,
        options.drop_path_rate,
    )


REDNET = register(
    Family(
        name="rednet",
        title="RedNet",
        paper="Li et al. 2021, arXiv:2103.06255",
        summary="Involution in place of convolution: each pixel generates its own 7x7 kernels, which channels share.",
        notes=Notes(
            idea="A convolution has one kernel for all places and another for each channel; an involution has it the "
            "other way round. Each pixel generates, by a small bottleneck, one 7x7 kernel for every 16 channels, and "
            "weighs its surroundings by them. RedNet is ResNet's bottleneck network with involutions in place of the "
            "3x3 convolutions, and in the stem.",
            equation=r"y_{c,i} = \sum_{o \in \Delta_K} \mathcal H_{\lceil c G / C \rceil,\, i,\, o}\, x_{c,\, s i + o},"
            r" \qquad \mathcal H_i = W_1\, \sigma\left(\mathrm{BN}(W_0\, x_i)\right)",
            use="Where ResNet's accuracy is wanted with about 40 percent fewer parameters, or a wide view from the "
            "first stage on; a ResNet is quicker, as an involution reads and writes much and multiplies little.",
            scaling="Depth multiplies the blocks of each stage (rounded to the nearest), width the channels of the "
            "first stage in multiples of 16, which the next ones double, and the stem in multiples of 32. With few "
            "blocks and such coarse widths the cost moves in jumps: from phi = -1 to 1 only the third stage changes.",
            pitfalls=(
                "The usual form unfolds the map, 49 copies of it: 9.4 GiB for one tensor of ResNet-50's size at 224 "
                "px and a batch of 256. Here a sum runs over the 49 offsets, and only the features and their kernels "
                "are kept for the backward pass.",
                "A pooling that drops the last odd row leaves outputs without a kernel, so that only multiples of 32 "
                "px work. Here it rounds up, and any image size works.",
                "A kernel of a strided involution comes from the mean of 2x2 pixels and is applied around the first "
                "of them, half a pixel off; that is as published.",
                "FLOP counters miss sums of products element by element. The operator registers its own count: two "
                "for each element of a kernel and each output, borders included.",
            ),
        ),
        members={
            "rednet26": Member(224, "26 layers"),
            "rednet38": Member(224, "38 layers"),
            "rednet50": Member(224, "50 layers"),
            "rednet101": Member(224, "101 layers"),
            "rednet152": Member(224, "152 layers"),
        },
        small="rednet26",
        large="rednet50",
        options=RedNetOptions,
        build=_build,
        convolutional=True,
        scaling_step=lambda options: RESOLUTION_STEP,
    )
)
