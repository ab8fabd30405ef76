"""Gaussian blur on batches, each image with its own sigma, as products with banded matrices."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from fewlabel.data.presets import ViewPreset

__all__ = ["blur", "draw_sigmas", "kernel_radius"]

SIGMA = (0.1, 2.0)
"""Range of the standard deviation in pixels (SimCLR, appendix A)."""

BLOCK = 48
"""Rows of output a product gives. Measured on one core at 224 px: about 0.65 ms a view for both directions,
against 1.4 ms for depthwise convolutions and 1.5 ms for products with whole matrices."""


def kernel_radius(size: int) -> int:
    """Pixels that the kernel reaches to either side in views of `size` pixels: a kernel of a tenth of the
    view's side (SimCLR, appendix A), made odd as in the authors' code."""
    return size // 10 // 2


def draw_sigmas(preset: ViewPreset, count: int, generator: torch.Generator) -> Tensor:
    """(count,) float32 standard deviations in pixels; 0 for the views that are not blurred."""
    device = generator.device
    sigma = torch.rand(count, generator=generator, device=device).mul_(SIGMA[1] - SIGMA[0]).add_(SIGMA[0])
    drawn = torch.rand(count, generator=generator, device=device) < preset.blur
    return torch.where(drawn, sigma, 0.0)


def blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Blur float32 `images` (N, C, H, H) with kernels of 2 `radius` + 1 pixels and standard deviations
    `sigma` (N,) > 0.

    The image is mirrored at its edges, as in torchvision's gaussian_blur, to which this is equal up to
    rounding. `radius` must be less than H.
    """
    # What lies beyond six standard deviations weighs less than float32 can tell.
    radius = min(radius, math.ceil(6 * float(sigma.max())))
    size = images.shape[-1]
    band = _band_matrices(sigma, size, radius)
    blocks = [(slice(i, i + BLOCK), slice(max(0, i - radius), i + BLOCK + radius)) for i in range(0, size, BLOCK)]
    flat = images.flatten(1, 2)
    across = torch.cat([flat[:, :, near] @ band[:, rows, near].mT for rows, near in blocks], dim=2).view_as(images)
    return torch.cat([band[:, None, rows, near] @ across[:, :, near] for rows, near in blocks], dim=2)


def _band_matrices(sigma: Tensor, size: int, radius: int) -> Tensor:
    """(N, size, size) matrices whose rows hold the kernel about the diagonal, folded back at the edges."""
    distance = torch.arange(-radius, radius + 1, device=sigma.device)
    kernel = torch.softmax(-0.5 * (distance / sigma[:, None]) ** 2, dim=1)
    source = _mirrored_neighbours(size, radius, sigma.device).expand(len(sigma), -1, -1)
    band = torch.zeros(len(sigma), size, size, device=sigma.device)
    return band.scatter_add_(2, source, kernel[:, None].expand_as(source))


@lru_cache(maxsize=32)
def _mirrored_neighbours(size: int, radius: int, device: torch.device) -> Tensor:
    """(size, 2 radius + 1) int64: the pixels that the kernel at each pixel weighs."""
    place = torch.arange(size, device=device)[:, None] + torch.arange(-radius, radius + 1, device=device)
    return (size - 1) - ((size - 1) - place.abs()).abs()
