"""Involution: a convolution turned inside out, whose kernels differ by place and are shared by channels.

The operator is one of torch's custom operators, `torch.ops.fewlabel.involution`. It sums over the offsets of the
kernel, so that no tensor is ever as many times larger than the features as the kernel has elements, and keeps for the
backward pass its two arguments alone. `FlopCounterMode` counts it.
"""

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

__all__ = ["GROUP_CHANNELS", "Involution", "involution"]

GROUP_CHANNELS = 16
"""Channels that share a kernel in `Involution`."""


@torch.library.custom_op("fewlabel::involution", mutates_args=())
def involution(features: Tensor, kernels: Tensor, stride: int) -> Tensor:
    """Weigh the surroundings of each pixel by that pixel's own kernels.

    out[b, c, i, j] = sum over u, v of kernels[b, g, u, v, i, j] x[b, c, s i + u - p, s j + v - p],
    where p = (K - 1) / 2, channel c is of group g = c // (C / G), and x is zero outside the map.

    Args:
        features: x, (B, C, H, W), in any memory format; channels-last is read without a copy.
        kernels: (B, G, K, K, h, w), where K is odd, h = ceil(H / s) and w = ceil(W / s).
        stride: s.

    Returns:
        (B, C, h, w) in channels-last format and the dtype of `features`; summed up in at least float32.

    Source: Li et al. 2021, arXiv:2103.06255, eq. 4.
    """
    groups, size, _, height, width = kernels.shape[1:]
    out: Tensor = _empty_output(features, kernels)
    dtype = _sum_dtype(features, kernels)
    for part in _parts(out):
        pixels, planes = _by_pixel(features[part], groups, dtype), _by_offset(kernels[part], dtype)
        total = pixels.new_zeros(len(pixels), height, width, *pixels.shape[3:])
        for (u, v), inner, outer in _overlaps(size, features.shape[2:], (height, width), stride):
            total[inner].addcmul_(planes[u, v][inner], pixels[outer])
        out[part] = total.flatten(3).permute(0, 3, 1, 2)
    return out


@torch.library.custom_op("fewlabel::involution_backward", mutates_args=())
def involution_backward(gradient: Tensor, features: Tensor, kernels: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Gradients with respect to `features` and `kernels`, from that with respect to the output of `involution`."""
    groups, size, _, height, width = kernels.shape[1:]
    to_features, to_kernels = _empty_gradients(features, kernels)
    dtype = _sum_dtype(features, kernels)
    for part in _parts(gradient):
        pixels, planes = _by_pixel(features[part], groups, dtype), _by_offset(kernels[part], dtype)
        errors = _by_pixel(gradient[part], groups, dtype)
        to_pixels, to_planes = torch.zeros_like(pixels), torch.zeros_like(planes)
        scratch = torch.empty_like(errors).flatten()
        for (u, v), inner, outer in _overlaps(size, features.shape[2:], (height, width), stride):
            error = errors[inner]
            to_pixels[outer].addcmul_(planes[u, v][inner], error)
            products = scratch[: error.numel()].view(error.shape)
            torch.mul(error, pixels[outer], out=products)
            torch.sum(products, -1, keepdim=True, out=to_planes[u, v][inner])
        to_features[part] = to_pixels.flatten(3).permute(0, 3, 1, 2)
        to_kernels[part] = to_planes.squeeze(-1).permute(2, 5, 0, 1, 3, 4)
    return to_features, to_kernels


def _sum_dtype(features: Tensor, kernels: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(features.dtype, kernels.dtype), torch.float32)


def _by_pixel(images: Tensor, groups: int, dtype: torch.dtype) -> Tensor:
    """(B, C, H, W) -> (B, H, W, G, C / G), contiguous."""
    pixels = images.permute(0, 2, 3, 1).to(dtype).contiguous()
    return pixels.view(*pixels.shape[:3], groups, -1)


def _by_offset(kernels: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, G, K, K, h, w) -> (K, K, B, h, w, G, 1), contiguous: a plane that fits `_by_pixel` for each offset."""
    return kernels.permute(2, 3, 0, 4, 5, 1).to(dtype).contiguous().unsqueeze(-1)


def _parts(out: Tensor) -> Iterator[slice]:
    """Slices of the batch, so small on a CPU that what is summed up stays in its cache."""
    elements = 2**18 if out.device.type == "cpu" else 2**24
    step = max(1, elements // max(1, prod(out.shape[1:])))
    return (slice(start, start + step) for start in range(0, len(out), step))


def _overlaps(
    kernel_size: int, size: torch.Size, output_size: tuple[int, int], stride: int
) -> Iterator[tuple[tuple[int, int], tuple[slice, ...], tuple[slice, ...]]]:
    """For each offset (u, v): the outputs whose input at that offset lies on the map, and these inputs.

    Both index (B, height, width, ...). Offsets that reach no pixel from anywhere are left out, as on small maps.
    """
    rows, columns = (
        list(_overlaps_along(kernel_size, extent, output_extent, stride))
        for extent, output_extent in zip(size, output_size, strict=True)
    )
    for (u, rows_out, rows_in), (v, columns_out, columns_in) in product(rows, columns):
        yield (u, v), (slice(None), rows_out, columns_out), (slice(None), rows_in, columns_in)


def _overlaps_along(
    kernel_size: int, extent: int, output_extent: int, stride: int
) -> Iterator[tuple[int, slice, slice]]:
    for position in range(kernel_size):
        offset = position - kernel_size // 2
        first = max(0, -(offset // stride))
        last = min(output_extent - 1, (extent - 1 - offset) // stride)
        if first <= last:
            inputs = slice(first * stride + offset, last * stride + offset + 1, stride)
            yield position, slice(first, last + 1), inputs


@involution.register_fake
def _empty_output(features: Tensor, kernels: Tensor, stride: int = 1) -> Tensor:
    batch, channels = features.shape[:2]
    return features.new_empty(batch, *kernels.shape[4:], channels).permute(0, 3, 1, 2)


def _empty_gradients(features: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor]:
    """In the memory format that a channels-last network gives features and kernels."""
    batch, channels, *size = features.shape
    to_features = features.new_empty(batch, *size, channels).permute(0, 3, 1, 2)
    to_kernels = kernels.new_empty(batch, *kernels.shape[4:], *kernels.shape[1:4]).permute(0, 3, 4, 5, 1, 2)
    return to_features, to_kernels


@involution_backward.register_fake
def _(gradient: Tensor, features: Tensor, kernels: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    return _empty_gradients(features, kernels)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    features, kernels, ctx.stride = inputs
    ctx.save_for_backward(features, kernels)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
    to_features, to_kernels = involution_backward(gradient, *ctx.saved_tensors, ctx.stride)
    return to_features, to_kernels, None


involution.register_autograd(_backward, setup_context=_save)


@register_flop_formula(torch.ops.fewlabel.involution)
def _flops(features: torch.Size, kernels: torch.Size, stride: int, *, out_shape: torch.Size, **_: Any) -> int:
    """A multiplication and an addition per output element and element of its kernel, borders included."""
    return 2 * kernels[2] * kernels[3] * prod(out_shape)


@register_flop_formula(torch.ops.fewlabel.involution_backward)
def _backward_flops(gradient: torch.Size, features: torch.Size, kernels: torch.Size, stride: int, **_: Any) -> int:
    """As much for each of the two gradients."""
    return 4 * kernels[2] * kernels[3] * prod(gradient)


class Involution(nn.Module):
    """Involution with kernels generated from the pixel they are for: (B, C, H, W) -> (B, C, ceil(H / s), ceil(W / s)).

    The kernels at a pixel are W1 relu(BN(W0 x)), where W0 keeps a quarter of the channels; a group of 16 channels
    shares one. With a stride, x is the mean of the s x s pixels.

    Args:
        channels: C, a multiple of 16.
        kernel_size: K, odd.
        stride: s.

    Source: Li et al. 2021, arXiv:2103.06255, eq. 4 and 6 and algorithm 1; r = 4 and 16 channels a group as in RedNet.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.kernel_shape = (channels // GROUP_CHANNELS, kernel_size, kernel_size)
        # With ceil_mode there is a kernel for every output at any image size; the mean is over real pixels alone.
        self.pool = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
        self.reduce = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels // 4)
        self.act = nn.ReLU(inplace=True)
        self.span = nn.Conv2d(channels // 4, prod(self.kernel_shape), 1)

    def forward(self, features: Tensor) -> Tensor:
        """`features` involved with their own kernels, in channels-last format."""
        kernels = self.span(self.act(self.norm(self.reduce(self.pool(features)))))
        out: Tensor = involution(features, kernels.unflatten(1, self.kernel_shape), self.stride)
        return out
