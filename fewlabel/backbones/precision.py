"""Full precision where half of it doesn't do."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

__all__ = ["at_least_float32", "without_autocast"]


def without_autocast(tensor: Tensor) -> AbstractContextManager[Any]:
    """A block within which operations on the device of `tensor` compute in their arguments' dtype."""
    device = tensor.device.type
    # The meta device has none to disable.
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def at_least_float32(tensor: Tensor) -> Tensor:
    """`tensor` in float32 if it comes in half precision, else as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
