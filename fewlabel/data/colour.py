"""SimCLR's colour distortion on batches, each image with its own factors and its own order of changes."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from fewlabel.data.presets import ViewPreset

__all__ = ["ColourParameters", "distort_colours", "draw_colours", "equal_runs"]

Value = TypeVar("Value")

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in a grey value (ITU-R BT.601, as torchvision rounds them)."""


class ColourParameters(NamedTuple):
    """What is drawn for the colours of N views, on the generator's device."""

    order: Tensor
    """(N, 4) int64: the changes in the order of their application, as columns of `factors`; -1 for none."""
    factors: Tensor
    """(N, 4) float32: factors of brightness, contrast and saturation, shift of the hue in turns."""
    greyscale: Tensor
    """(N,) bool: colour is dropped at the end."""


def draw_colours(
    preset: ViewPreset, strength: float, channels: int, count: int, generator: torch.Generator
) -> ColourParameters:
    """Draw distortions of `count` views as torchvision's ColorJitter, RandomApply and RandomGrayscale do.

    Saturation, hue and greyscale are changes of red, green and blue: with any other number of channels they
    are left out of the order.
    """
    device = generator.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator, device=device)

    coloured = channels == 3
    spread = torch.tensor((preset.brightness, preset.contrast, preset.saturation, preset.hue), device=device) * strength
    low = torch.cat(((1 - spread[:3]).clamp(min=0), -spread[3:]))
    high = torch.cat((1 + spread[:3], spread[3:]))
    factors = torch.lerp(low, high, uniform(4))
    order = uniform(4).argsort(dim=1)
    applied = uniform() < preset.colour_probability
    possible = (spread > 0) & torch.tensor((True, True, coloured, coloured), device=device)
    return ColourParameters(
        order=torch.where(applied[:, None] & possible[order], order, -1),
        factors=factors,
        greyscale=uniform() < (preset.greyscale if coloured else 0.0),
    )


def distort_colours(images: Tensor, parameters: ColourParameters) -> None:
    """Change float32 `images` (N, C, H, W) of values in [0, 1] in place.

    Neighbours with the same change at the same position share its operations, so images sorted by their
    order go fastest. Every change equals torchvision's of the same name to float32 rounding, its clamp to
    [0, 1] included.
    """
    orders = parameters.order.tolist()
    for position in range(parameters.order.shape[1]):
        for change, rows in equal_runs([order[position] for order in orders]):
            if change >= 0:
                _CHANGES[change](images[rows], parameters.factors[rows, change].view(-1, 1, 1, 1))
    for drop, rows in equal_runs(parameters.greyscale.tolist()):
        if drop:
            images[rows] = _grey(images[rows])


def equal_runs(values: Sequence[Value]) -> Iterator[tuple[Value, slice]]:
    """Each run of equal neighbours among `values`, with its place."""
    start = 0
    for value, run in groupby(values):
        stop = start + sum(1 for _ in run)
        yield value, slice(start, stop)
        start = stop


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.chunk(3, dim=1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def _change_brightness(images: Tensor, factor: Tensor) -> None:
    images.mul_(factor).clamp_(0, 1)


def _change_contrast(images: Tensor, factor: Tensor) -> None:
    mean = images.mean((2, 3), keepdim=True)
    # The mean grey value needs no grey image: both are linear.
    grey = _grey(mean) if images.shape[1] == 3 else mean.mean(1, keepdim=True)
    images.mul_(factor).add_(grey.mul_(1 - factor)).clamp_(0, 1)


def _change_saturation(images: Tensor, factor: Tensor) -> None:
    grey = _grey(images).mul_(1 - factor)
    images.mul_(factor).add_(grey).clamp_(0, 1)


def _change_hue(images: Tensor, turns: Tensor) -> None:
    """Turn the hue in HSV space without leaving RGB.

    With hue h in turns, a channel whose own hue is c becomes `clamp(low + span (2 - 6 d), low, high)`,
    where low and high are the least and greatest channel, span = high - low, and d = 1/2 - ||h - c| - 1/2|
    is the distance from h to c around the circle.
    """
    red, green, blue = images.chunk(3, dim=1)
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    span = high - low
    # Selecting by lerp with weights 0 and 1: `torch.where` takes eight times as long on a CPU.
    sixths = (red - green).add_(span, alpha=4)
    sixths.lerp_((blue - red).add_(span, alpha=2), _equal(high, green))
    sixths.lerp_(green - blue, _equal(high, red))
    slope = span * 6
    # Without span there is no hue, and any will do but NaN.
    hue = sixths.div_(slope.clamp(min=torch.finfo(torch.float32).tiny)).add_(turns)
    hue.sub_(hue.floor())
    channel_hues = torch.tensor((0.0, 1 / 3, 2 / 3), device=images.device).view(3, 1, 1)
    torch.sub(hue, channel_hues, out=images).abs_().sub_(0.5).abs_()
    torch.addcmul(low - span, slope, images, out=images)
    torch.clamp(images, low, high, out=images)


def _equal(left: Tensor, right: Tensor) -> Tensor:
    return torch.eq(left, right, out=torch.empty_like(left))


_CHANGES: tuple[Callable[[Tensor, Tensor], None], ...] = (
    _change_brightness,
    _change_contrast,
    _change_saturation,
    _change_hue,
)
