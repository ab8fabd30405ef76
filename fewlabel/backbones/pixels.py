"""From whatever holds pixels to one batch for a backbone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from fewlabel.errors import UserError

__all__ = ["Images", "as_batch", "match_channels", "squash", "to_unit"]

Images = Tensor | Sequence[Image.Image | npt.NDArray[Any]]
"""A tensor (B, C, h, w), or pictures of any sizes: PIL images, or arrays (h, w, C) or (h, w)."""

# ITU-R 601-2, as Pillow's conversion to "L".
_LUMA = (0.299, 0.587, 0.114)


def as_batch(images: Images, side: int, in_chans: int, device: torch.device) -> Tensor:
    """Bring `images` to (B, in_chans, side, side) float32 in [0, 1] on `device`.

    Raises:
        UserError: pixels of another type, depth, range or number of channels; the message says which.
    """
    if isinstance(images, Tensor):
        if images.ndim != 4:
            raise UserError(f"A tensor of images has the shape (B, C, h, w), not {tuple(images.shape)}.")
        return squash(match_channels(to_unit(images.to(device)), in_chans), side)
    if not len(images):
        raise UserError("There are no images in this list: give at least one.")
    batch = []
    for position, picture in enumerate(images):
        try:
            pixels = _as_tensor(picture)[None].to(device)
            batch.append(squash(match_channels(to_unit(pixels), in_chans), side))
        except UserError as error:
            raise UserError(f"Image {position} of the list: {error}") from error
    return torch.cat(batch)


def to_unit(pixels: Tensor) -> Tensor:
    """uint8, uint16 or float in [0, 1] -> float32 in [0, 1]; white is 1 whatever the depth.

    Raises:
        UserError: another type, or floats outside [0, 1].
    """
    if not pixels.numel():
        raise UserError(f"There are no pixels in the shape {tuple(pixels.shape)}.")
    if pixels.dtype in (torch.uint8, torch.uint16):
        return pixels.float() / torch.iinfo(pixels.dtype).max
    if not pixels.is_floating_point():
        raise UserError(f"Pixels of type {pixels.dtype} have no known white: give uint8, uint16, or floats in [0, 1].")
    low, high = pixels.aminmax()
    # Written so that NaN, which compares false with everything, is refused too.
    if not (low >= 0 and high <= 1):
        raise UserError(
            f"Float pixels range from {low:g} to {high:g}: scale them to [0, 1] first, without normalisation."
        )
    return pixels.float()


def match_channels(pixels: Tensor, in_chans: int) -> Tensor:
    """(B, C, h, w) -> (B, in_chans, h, w): grey is repeated to colour, colour becomes its luma (ITU-R 601).

    Raises:
        UserError: any other change of channels; there is no sound one.
    """
    channels = pixels.shape[1]
    if channels == in_chans:
        return pixels
    if (channels, in_chans) == (1, 3):
        return pixels.expand(-1, 3, -1, -1)
    if (channels, in_chans) == (3, 1):
        return (pixels * pixels.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    raise UserError(
        f"The image has {channels} channels and the encoder takes {in_chans}; only grey and colour convert "
        "into each other."
    )


def squash(pixels: Tensor, side: int) -> Tensor:
    """Resize (B, C, h, w) float to (B, C, side, side), bilinear with antialiasing.

    The whole image goes in, out of proportion where it isn't square, so that no pixel is cropped away.
    """
    if pixels.shape[-2:] == (side, side):
        return pixels
    return F.interpolate(pixels, (side, side), mode="bilinear", antialias=True, align_corners=False)


def _as_tensor(picture: Image.Image | npt.NDArray[Any]) -> Tensor:
    """Pixels (C, h, w) of one picture, at their own depth.

    A PIL image is turned as its EXIF orientation asks; what is transparent becomes black in proportion.
    """
    array = _pil_pixels(picture) if isinstance(picture, Image.Image) else picture
    if not isinstance(array, np.ndarray):
        raise UserError(f"a {type(picture).__name__} is no picture: give a PIL image or a numpy array.")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3:
        raise UserError(f"an array of one image has the shape (h, w, C) or (h, w), not {array.shape}.")
    if array.dtype.kind not in "uif":
        raise UserError(f"pixels of type {array.dtype} have no known white: give uint8, uint16, or floats.")
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(np.array(native.transpose(2, 0, 1), order="C"))


def _pil_pixels(picture: Image.Image) -> npt.NDArray[Any]:
    try:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode in ("I", "F"):
            raise UserError("it has 32-bit pixels, whose white is unknown: convert it to 8 or 16 bits.")
        if upright.mode.startswith("I;16"):
            return np.asarray(upright).astype(np.uint16, copy=False)
        if upright.has_transparency_data:
            colour = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", colour.size, (0, 0, 0, 255)), colour)
            grey = picture.mode in ("L", "LA", "La")
            return np.asarray(upright.convert("L" if grey else "RGB"))
        return np.asarray(upright.convert("L" if upright.mode in ("1", "L") else "RGB"))
    except (OSError, SyntaxError) as error:
        raise UserError(f"it can't be decoded: {error}") from error
