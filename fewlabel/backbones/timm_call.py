"""How timm makes a network, as data: evaluated here, and written down for whoever has only timm."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from fewlabel.backbones.stem import use_small_stem

__all__ = ["Call", "Name", "TimmCall", "create_model"]


@dataclass(frozen=True)
class Name:
    """Something importable by its full name, as `torch.nn.GELU`."""

    path: str

    def evaluate(self) -> Any:
        """The thing itself."""
        module, _, name = self.path.rpartition(".")
        return getattr(importlib.import_module(module), name)

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class Call:
    """A call of something importable; arguments are plain values (dicts too), `Name`s, calls, and lists of these."""

    function: str
    positional: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)

    def evaluate(self) -> Any:
        """What the call returns."""
        arguments = [_evaluated(value) for value in self.positional]
        return Name(self.function).evaluate()(*arguments, **{k: _evaluated(v) for k, v in self.keywords.items()})

    def modules(self) -> set[str]:
        """What must be imported for the source text to run."""
        found = {self.function.rpartition(".")[0]}
        for value in (*self.positional, *self.keywords.values()):
            found |= _modules(value)
        return found

    def __str__(self) -> str:
        arguments = [_source(value) for value in self.positional]
        arguments += [f"{name}={_source(value)}" for name, value in self.keywords.items()]
        return f"{self.function}({', '.join(arguments)})"


def _evaluated(value: Any) -> Any:
    if isinstance(value, (Name, Call)):
        return value.evaluate()
    return type(value)(map(_evaluated, value)) if isinstance(value, (list, tuple)) else value


def _modules(value: Any) -> set[str]:
    if isinstance(value, Name):
        return {value.path.rpartition(".")[0]}
    if isinstance(value, Call):
        return value.modules()
    return set().union(*map(_modules, value)) if isinstance(value, (list, tuple)) else set()


def _source(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        inside = ", ".join(map(_source, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
    return str(value) if isinstance(value, (Name, Call)) else repr(value)


def create_model(architecture: str, **arguments: Any) -> Call:
    """The call of `timm.create_model` without a classifier and with fresh weights.

    `architecture` is a name of `timm.list_models()`, never a `hf-hub:` address: whoever makes a call has checked it.
    """
    return Call("timm.create_model", (architecture,), {"num_classes": 0, **arguments})


@dataclass(frozen=True)
class TimmCall:
    """A call that makes a network of timm's, then the small stem if asked for."""

    call: Call
    small_stem: bool = False

    def build(self) -> tuple[nn.Module, dict[str, Any]]:
        """The network, and a JSON description of how plain timm makes it.

        The description has `imports`, `model`: a Python expression, and `then`: lines of Python that change a `model`
        so made into this one before weights are loaded. They are for reading: nothing here ever executes them.
        """
        model: nn.Module = self.call.evaluate()
        lines = use_small_stem(model) if self.small_stem else []
        return model, {"imports": sorted(self.call.modules()), "model": str(self.call), "then": lines}
