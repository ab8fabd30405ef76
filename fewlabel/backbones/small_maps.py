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
        height, width, positions = taps
        pixels = input.shape[2] * input.shape[3]
        # Both without a copy in channels-last memory; rows of the matrix are output pixels of all channels.
        maps = input.permute(0, 2, 3, 1).reshape(len(input), pixels * self.in_channels)
        kernels = self.weight.permute(0, 2, 3, 1).reshape(self.out_channels, -1, self.in_channels)
        joining = kernels.index_select(1, torch.tensor(positions, device=input.device))
        matrix = joining.view(self.out_channels, height * width, -1).transpose(0, 1).reshape(-1, maps.shape[1])
        bias = None if self.bias is None else self.bias.repeat(height * width)
        out = linear(maps, matrix, bias)
        return out.view(len(input), height, width, self.out_channels).permute(0, 3, 1, 2)

    def _taps(self, input: Tensor) -> tuple[int, int, tuple[int, ...]] | None:
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
) -> tuple[int, int, tuple[int, ...]] | None:
    """Which position of the kernel joins each output pixel with each input pixel; None if it doesn't join some.

    Plain numbers, as a tensor that was made in inference mode could not be trained with.

    Returns:
        H' and W', and H' * W' * H * W positions, counted along the rows of the kernel.
    """
    axes: list[list[list[int]]] = []
    for axis in (0, 1):
        outputs = (sides[axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
        if outputs < 1 or sides[axis] > kernel[axis]:
            return None
        joining: list[list[int]] = []
        for start in range(-padding[axis], outputs * stride[axis] - padding[axis], stride[axis]):
            steps = [divmod(pixel - start, dilation[axis]) for pixel in range(sides[axis])]
            if any(rest or not 0 <= position < kernel[axis] for position, rest in steps):
                return None
            joining.append([position for position, _ in steps])
        axes.append(joining)
    rows, columns = axes
    positions = (y * kernel[1] + x for down in rows for across in columns for y in down for x in across)
    return len(rows), len(columns), tuple(positions)


def multiply_small_maps(network: nn.Module) -> None:
    """Turn every `nn.Conv2d` in `network` into a `SmallMapConv2d`, in place.

    Subclasses of `nn.Conv2d` stay what they are: they do something else.
    """
    for module in network.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = SmallMapConv2d
