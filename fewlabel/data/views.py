"""Two random views of each image of a batch: SimCLR's augmentations as tensor operations on any device."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from fewlabel.data.blur import blur, draw_sigmas, kernel_radius
from fewlabel.data.colour import ColourParameters, distort_colours, draw_colours, equal_runs
from fewlabel.data.crop import CropParameters, affine_maps, draw_crops, resample
from fewlabel.data.presets import PRESETS, SMALL_IMAGE, ViewPreset, preset_named, resolve_preset
from fewlabel.errors import UserError
from fewlabel.files import atomic_path

__all__ = ["PRESETS", "TwoViews", "ViewParameters", "ViewPreset", "contact_sheet", "resolve_preset"]

FULL_SCALE = {torch.uint8: 255.0, torch.uint16: 65535.0}

CPU_CHUNK = 2**17
"""Values of view pixels worked on at a time on a CPU, so that they stay in its caches."""

ACCELERATOR_CHUNK = 2**27
"""The same elsewhere, where only memory bounds it."""


class ViewParameters(NamedTuple):
    """Everything that is random about N views."""

    crop: CropParameters
    colour: ColourParameters
    sigma: Tensor
    """(N,) float32: standard deviation of the blur in pixels of the view; 0 for none."""


class TwoViews:
    """Makes two views of each image of a batch.

    Args:
        preset: a `ViewPreset` or the name of one in `PRESETS`.
        image_size: side of the views in pixels.
        mean: mean of each channel on the scale [0, 1].
        std: standard deviation of each channel on that scale.
        strength: multiplies the spread of brightness, contrast, saturation and hue. None: 1, or the preset's
            `small_image_strength` for views of `SMALL_IMAGE` pixels or fewer.

    Raises:
        UserError: no preset has that name, or the strength is negative or turns hues by over half a circle.
    """

    def __init__(
        self,
        preset: ViewPreset | str,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        strength: float | None = None,
    ) -> None:
        self.preset = preset_named(preset) if isinstance(preset, str) else preset
        self.image_size = image_size
        small = image_size <= SMALL_IMAGE
        self.blur_radius = 0 if small else kernel_radius(image_size)
        if strength is None:
            strength = self.preset.small_image_strength if small else 1.0
        largest = 0.5 / self.preset.hue if self.preset.hue else math.inf
        if not 0 <= strength <= largest:
            raise UserError(
                f"The strength of views is {strength:g}; '{self.preset.name}' takes a number from 0 up"
                + (f" to {largest:g}, where hue turns by half a circle." if self.preset.hue else ".")
            )
        self.strength = strength
        self.mean = torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float32).view(-1, 1, 1)

    def __call__(self, pixels: Tensor, aspect: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two views (B, C, image_size, image_size) float32, normalised, of each image.

        Args:
            pixels: (B, C, S, S) uint8 or uint16 on any device: images squashed to squares, contiguous or in
                channels-last memory.
            aspect: (B,) float32 width over height of the originals.
            generator: of the pixels' device; the only source of randomness.

        Raises:
            ValueError: the pixels have another type, or another number of channels than `mean` and `std`.
        """
        count = len(pixels)
        views = self.one(pixels, aspect.repeat(2), generator)
        return views[:count], views[count:]

    def one(self, pixels: Tensor, aspect: Tensor, generator: torch.Generator) -> Tensor:
        """One view `(N, C, image_size, image_size)` for each entry of `aspect` (N,); see `apply` and `__call__`."""
        aspect = aspect.to(pixels.device, torch.float32)
        return self.apply(pixels, aspect, self.draw(aspect, pixels.shape[1], generator))

    def draw(self, aspect: Tensor, channels: int, generator: torch.Generator) -> ViewParameters:
        """Draw the parameters of one view for each entry of `aspect` (N,)."""
        return ViewParameters(
            crop=draw_crops(self.preset, aspect, generator),
            colour=draw_colours(self.preset, self.strength, channels, len(aspect), generator),
            sigma=draw_sigmas(self.preset, len(aspect), generator),
        )

    @torch.no_grad()
    def apply(self, pixels: Tensor, aspect: Tensor, parameters: ViewParameters) -> Tensor:
        """(N, C, image_size, image_size) float32 normalised views with the given parameters.

        View n shows image n modulo B of `pixels` (B, C, S, S), whose width over height is `aspect[n]`.
        """
        channels, device = pixels.shape[1], pixels.device
        if pixels.dtype not in FULL_SCALE or channels != len(self.mean):
            raise ValueError(
                f"Views take uint8 or uint16 pixels of {len(self.mean)} channels, not {pixels.dtype} of {channels}."
            )
        offset, inverse_std = (-self.mean / self.std).to(device), (1 / self.std).to(device)
        views = torch.empty(len(aspect), channels, self.image_size, self.image_size, device=device)
        budget = CPU_CHUNK if device.type == "cpu" else ACCELERATOR_CHUNK
        chunk = max(1, budget // views[0].numel())
        # Sorting lets neighbours share operations; a view that is worked on alone has none.
        order = _similar_first(parameters) if chunk > 1 else torch.arange(len(aspect), device=device)
        colour = ColourParameters(*(values[order] for values in parameters.colour))
        sigma = parameters.sigma[order]
        # Full precision also where the training step around this computes in less.
        with torch.autocast(device.type, enabled=False):
            maps = affine_maps(parameters.crop, aspect)[order]
            for start in range(0, len(aspect), chunk):
                rows = slice(start, start + chunk)
                floats = _gather(pixels, order[rows] % len(pixels)).float()
                images = resample(floats, maps[rows], self.image_size, self.preset.padding)
                images.mul_(1 / FULL_SCALE[pixels.dtype])
                distort_colours(images, ColourParameters(*(values[rows] for values in colour)))
                self._blur(images, sigma[rows])
                torch.addcmul(offset, images, inverse_std, out=views[rows])
        return views.index_select(0, order.argsort()) if chunk > 1 else views

    def _blur(self, images: Tensor, sigma: Tensor) -> None:
        if self.blur_radius:
            for drawn, rows in equal_runs((sigma > 0).tolist()):
                if drawn:
                    images[rows] = blur(images[rows], sigma[rows], self.blur_radius)


def _gather(pixels: Tensor, rows: Tensor) -> Tensor:
    if pixels.dtype == torch.uint16:
        # The same bits as int16, which every device can gather.
        return _gather(pixels.view(torch.int16), rows).view(torch.uint16)
    if len(rows) == 1:
        return pixels.narrow(0, int(rows), 1)
    if pixels.is_contiguous(memory_format=torch.channels_last):
        # Images that lie in one piece are copied in one piece, others value by value: fifteen times slower.
        return pixels.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)
    return pixels.index_select(0, rows)


def _similar_first(parameters: ViewParameters) -> Tensor:
    """The views in an order in which neighbours share their changes of colour, and so the operations."""
    order, _, greyscale = parameters.colour
    key = greyscale * 2 + (parameters.sigma > 0)
    for position in range(order.shape[1]):
        key = key + (order[:, position] + 1) * 4 * 5 ** (order.shape[1] - 1 - position)
    return key.argsort(stable=True)


def contact_sheet(
    originals: Tensor, first: Tensor, second: Tensor, mean: Sequence[float], std: Sequence[float], path: Path
) -> None:
    """Write a PNG in which each row shows an image and its two views.

    Args:
        originals: (B, C, S, S) uint8 or uint16, shown at the views' size.
        first: (B, C, H, H) float32 normalised views; `second` likewise.
        mean: what the views were normalised with, as `std`.
        std: see `mean`.
        path: the file to write, atomically. One channel is shown as grey, more than three as the first three.
    """
    size = first.shape[-1]
    images = functional.interpolate(
        originals.float() / FULL_SCALE[originals.dtype], size=size, mode="bilinear", antialias=True
    )
    scale, offset = (torch.tensor(values, device=first.device).view(-1, 1, 1) for values in (std, mean))
    columns = [images.to(first.device), first * scale + offset, second * scale + offset]
    gap = max(2, size // 32)
    framed = functional.pad(torch.stack(columns, dim=1), (0, gap, 0, gap), value=1.0)
    shown = framed[:, :, : 3 if framed.shape[2] >= 3 else 1]
    rows, places, channels, height, width = shown.shape
    sheet = shown.permute(0, 3, 1, 4, 2).reshape(rows * height, places * width, channels)
    pixels = (sheet.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    with atomic_path(path) as temporary:
        Image.fromarray(pixels if channels == 3 else pixels[:, :, 0]).save(temporary, format="PNG")
