"""Random resized crops with flips, turns, slants and shifts: one affine map and one resampling a view."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fewlabel.data.presets import ViewPreset

__all__ = ["CropParameters", "affine_maps", "draw_crops", "resample"]

RATIO = (3 / 4, 4 / 3)
"""Least and greatest width over height of a crop (SimCLR, appendix A; torchvision's RandomResizedCrop)."""

ATTEMPTS = 10
"""Draws of a box before the central one is taken, as in torchvision's RandomResizedCrop."""


class CropParameters(NamedTuple):
    """What is drawn for N crops, on the generator's device."""

    box: Tensor
    """(N, 4) float32: left, top, width, height as shares of the image's width and height."""
    shift: Tensor
    """(N, 2) float32: rightward and downward move of the box, as shares of the image's width and height."""
    angle: Tensor
    """(N,) float32: turn of the box about its centre, in radians, clockwise on the screen."""
    shear: Tensor
    """(N,) float32: slant of the box, in radians."""
    quarter_turns: Tensor
    """(N,) int64: turns of the view by 90 degrees anticlockwise, 0 to 3."""
    flip: Tensor
    """(N, 2) bool: mirrored left to right, mirrored top to bottom (before the quarter turns)."""


def draw_crops(preset: ViewPreset, aspect: Tensor, generator: torch.Generator) -> CropParameters:
    """Draw crops for images of width over height `aspect` (N,) float32.

    A box is drawn as torchvision's RandomResizedCrop draws it on the image's original shape, except that
    its edges need not fall on whole pixels: area uniform in [min_area, 1], log ratio uniform, the first of
    ten draws that fits, else the largest central box of a permitted ratio. With a min_area of 1 it is all of the
    image, whatever its shape.
    """
    count = len(aspect)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator, device=aspect.device)

    def symmetric(limit: float, *shape: int) -> Tensor:
        return uniform(*shape).mul_(2).sub_(1).mul_(limit)

    tall = aspect[:, None]
    area = uniform(ATTEMPTS).mul_(1 - preset.min_area).add_(preset.min_area).mul_(tall)
    ratio = symmetric(math.log(RATIO[1]), ATTEMPTS).exp_()
    widths, heights = (area * ratio).sqrt_(), (area / ratio).sqrt_()
    fits = (widths <= tall) & (heights <= 1)
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    any_fits = fits.any(1)
    width = torch.where(any_fits, widths.gather(1, first)[:, 0], aspect.clamp(max=RATIO[1])) / aspect
    height = torch.where(any_fits, heights.gather(1, first)[:, 0], (aspect / RATIO[0]).clamp(max=1))
    size = torch.stack((width, height), 1) if preset.min_area < 1 else torch.ones(count, 2, device=aspect.device)
    place = torch.where(any_fits[:, None], uniform(2), 0.5)
    return CropParameters(
        box=torch.cat((place * (1 - size), size), 1),
        shift=symmetric(preset.shift, 2),
        angle=symmetric(math.radians(preset.rotation)),
        shear=symmetric(math.radians(preset.shear)),
        quarter_turns=(uniform() * (4 if preset.quarter_turns else 1)).long(),
        flip=uniform(2) < torch.tensor((preset.horizontal_flip, preset.vertical_flip), device=aspect.device),
    )


def affine_maps(parameters: CropParameters, aspect: Tensor) -> Tensor:
    """(N, 2, 3) float32 maps from a view's coordinates to its image's, both in [-1, 1] from edge to edge.

    Turns and slants are those of the original picture: the image is taken to be `aspect` (N,) wide and 1 high
    although its pixels are stored as a square. Quarter turns and flips act on the view, so that they show the
    very box that was drawn.
    """
    left_top, size = parameters.box.chunk(2, dim=1)
    centre = (left_top + size / 2 + parameters.shift) * 2 - 1
    cosine, sine, slant = parameters.angle.cos(), parameters.angle.sin(), parameters.shear.tan()
    width, height = size.unbind(1)
    box = torch.stack(
        (
            cosine * width,
            (cosine * slant - sine) * height / aspect,
            sine * width * aspect,
            (sine * slant + cosine) * height,
        ),
        dim=1,
    ).view(-1, 2, 2)

    quarter = parameters.quarter_turns * (math.pi / 2)
    # Rounded, as a float32 cosine of 90 degrees is not quite 0.
    cosine, sine = quarter.cos().round(), quarter.sin().round()
    turn = torch.stack((cosine, -sine, sine, cosine), dim=1).view(-1, 2, 2)
    mirror = torch.where(parameters.flip, -1.0, 1.0)
    return torch.cat((box @ (mirror[:, :, None] * turn), centre[:, :, None]), dim=2)


def resample(images: Tensor, maps: Tensor, size: int, padding: str) -> Tensor:
    """Views (N, C, size, size) of float32 `images` (N, C, S, S) through `maps` (N, 2, 3), bilinearly.

    There is no antialiasing filter: the store keeps squares of at most 1.5 times the view's side, so that
    no crop is shrunk further than that. `padding` says what lies beyond the image, as in
    `functional.grid_sample`.
    """
    centres = torch.arange(1, 2 * size, 2, dtype=torch.float32, device=images.device) / size - 1
    across, down, centre = maps[..., None].unbind(2)
    # Coordinate planes side by side: `affine_grid` interleaves them with a slow product of thin matrices.
    planes = torch.add((across * centres + centre)[:, :, None, :], (down * centres)[:, :, :, None])
    grid = planes.permute(0, 2, 3, 1)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)
