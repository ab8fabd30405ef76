"""A call of `timm.create_model`, as data: built here, and written down for whoever has only timm."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
from torch import nn

from fewlabel.backbones.stem import use_small_stem

__all__ = ["TimmCall"]


@dataclass(frozen=True)
class TimmCall:
    """`timm.create_model(architecture, **arguments)` with fresh weights, then the small stem if asked for."""

    architecture: str
    """A name of `timm.list_models()`, never a `hf-hub:` address: whoever makes a call has checked it."""
    arguments: Mapping[str, Any]
    """Keyword arguments; JSON values."""
    small_stem: bool = False

    def build(self) -> tuple[nn.Module, dict[str, Any]]:
        """The network, and a JSON description of how plain timm makes it.

        The description has `architecture`, `arguments`, and `then`: lines of Python that change a `model` so
        made into this one before weights are loaded. They are for reading: nothing here ever executes them.
        """
        arguments = {"num_classes": 0, **self.arguments}
        model: nn.Module = timm.create_model(self.architecture, pretrained=False, **arguments)
        lines = use_small_stem(model) if self.small_stem else []
        return model, {"architecture": self.architecture, "arguments": arguments, "then": lines}
