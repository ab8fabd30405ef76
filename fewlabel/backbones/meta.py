"""Building a network for its shapes alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

__all__ = ["without_weights"]

_FILLING = {
    *(Tensor.fill_, Tensor.normal_, Tensor.uniform_, Tensor.zero_),
    # What timm's truncated normal is made of.
    *(Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.clamp_),
} | {function for name, function in vars(init).items() if name.endswith("_") and not name.startswith("_")}


class _LeaveUnfilled(TorchFunctionMode):
    """Skips the drawing of initial weights on the meta device, the slowest part of building there."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FILLING:
            tensor = kwargs["tensor"] if "tensor" in kwargs else args[0]
            if tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


@contextmanager
def without_weights() -> Iterator[None]:
    """Within the block, networks are built on the meta device: shapes and counts, no memory, no values."""
    with torch.device("meta"), _LeaveUnfilled():
        yield
