"""Backbones: image -> feature vector. A registry with one file a family, and the encoder directory."""

import importlib
from typing import TYPE_CHECKING, Any

__all__ = [
    "Backbone",
    "Encoder",
    "Entry",
    "Scale",
    "check_name",
    "create",
    "entries",
    "load_encoder",
    "save_encoder",
]

if TYPE_CHECKING:
    from fewlabel.backbones.backbone import Backbone
    from fewlabel.backbones.catalogue import Entry, entries
    from fewlabel.backbones.encoder import Encoder, load_encoder, save_encoder
    from fewlabel.backbones.registry import check_name, create
    from fewlabel.backbones.scale import Scale

_HOMES = {
    "Backbone": "backbone",
    "Encoder": "encoder",
    "Entry": "catalogue",
    "Scale": "scale",
    "check_name": "registry",
    "create": "registry",
    "entries": "catalogue",
    "load_encoder": "encoder",
    "save_encoder": "encoder",
}


def __getattr__(name: str) -> Any:
    """Import a public name's module on first use, so that `backbones.config` stays free of torch."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
