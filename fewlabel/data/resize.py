"""Resizing decoded images, antialiased, at either depth."""

import numpy as np
import torch
from torch.nn.functional import interpolate

from fewlabel.data.decode import Pixels

__all__ = ["resize"]


def resize(pixels: Pixels, height: int, width: int) -> torch.Tensor:
    """Resize (H, W, C) uint8 or uint16 to (C, height, width) of the same type, bilinear with antialiasing.

    For uint8 this equals Pillow's bilinear resize to one level, at three times its speed; uint16 goes through
    float32.
    """
    tensor = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)[None]
    if tensor.shape[-2:] == (height, width):
        return tensor[0]
    if tensor.dtype == torch.uint8:
        return interpolate(tensor, size=(height, width), mode="bilinear", antialias=True)[0]
    resized = interpolate(tensor.float(), size=(height, width), mode="bilinear", antialias=True)
    return resized.round_().clamp_(0, 65535).to(torch.uint16)[0]
