"""Fewlabel: SimCLR pretraining, few-label evaluation and image search for folders of images."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_encoder"]

if TYPE_CHECKING:
    from fewlabel.backbones import load_encoder


def __getattr__(name: str) -> Any:
    """Import `load_encoder` on first use, so that `import fewlabel` stays free of torch."""
    if name == "load_encoder":
        from fewlabel.backbones import load_encoder

        return load_encoder
    raise AttributeError(f"module 'fewlabel' has no attribute {name!r}")
