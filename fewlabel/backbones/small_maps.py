"""Convolutions over maps of a few pixels, as matrix products on a CPU."""

from functools import lru_cache
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

__all__ = ["SmallMapConv2d", "multiply_small_maps"]


class SmallMapConv2d(nn.Conv2d):
    """A convolution that is a matrix product, on a CPU, where its kernel joins every pixel with every other one.

    A network made for 224 px ends, at 28 px, in maps of one or four pixels. There a kernel of 3 x 3 has a weight of
    its own for each pair of an input and an output pixel, so the convolution is a linear layer between whole maps.
    oneDNN's backward pass goes through all nine positions of the kernel all the same: at 512 channels and one pixel
    it takes some thirty times as long as the two products of matrices. Any other map takes the ordinary way.

    Parameters, state dict and, but for rounding, values and gradients are those of `nn.Conv2d`.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H', W'), as `nn.Conv2d`."""
        taps = self._taps(input) if input.dim() == 4 and input.device.type == "cpu" else None
        if taps is None:
            return super().forward(input)
        height, width, pixels = taps.shape
        # Both without a copy in channels-last memory; rows of the matrix are output pixels of all channels.
        maps = input.permute(0, 2, 3, 1).reshape(len(input), pixels * self.in_channels)
        kernels = self.weight.permute(0, 2, 3, 1).reshape(self.out_channels, -1, self.in_channels)
        joining = kernels.index_select(1, taps.flatten())
        matrix = joining.view(self.out_channels, height * width, -1).transpose(0, 1).reshape(-1, maps.shape[1])
        bias = None if self.bias is None else self.bias.repeat(height * width)
        out = linear(maps, matrix, bias)
        return out.view(len(input), height, width, self.out_channels).permute(0, 3, 1, 2)

    def _taps(self, input: Tensor) -> Tensor | None:
        if self.groups != 1 or self.padding_mode != "zeros" or isinstance(self.padding, str):
            return None
        sides = cast("tuple[int, int]", tuple(input.shape[2:]))
        across = (self.kernel_size, self.stride, self.padding, self.dilation)
        return _joining_taps(sides, *cast("tuple[tuple[int, int], ...]", across))


@lru_cache(maxsize=1024)
def _joining_taps(
    sides: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor | None:
    """Which position of the kernel joins each output pixel with each input pixel, (H', W', H * W); None if some don't.

    Positions are counted along the rows of the kernel.
    """
    positions: list[Tensor] = []
    for axis in (0, 1):
        outputs = (sides[axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
        if outputs < 1 or sides[axis] > kernel[axis]:
            return None
        starts = torch.arange(outputs)[:, None] * stride[axis] - padding[axis]
        offsets = torch.arange(sides[axis]) - starts
        if (offsets % dilation[axis]).any():
            return None
        joining = offsets // dilation[axis]
        if joining.min() < 0 or joining.max() >= kernel[axis]:
            return None
        positions.append(joining)
    rows, columns = positions
    return (rows[:, None, :, None] * kernel[1] + columns[None, :, None, :]).flatten(2)


def multiply_small_maps(network: nn.Module) -> None:
    """Turn every `nn.Conv2d` in `network` into a `SmallMapConv2d`, in place.

    Subclasses of `nn.Conv2d` stay what they are: they do something else.
    """
    for module in network.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = SmallMapConv2d
