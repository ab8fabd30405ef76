"""What comes in: sources, splits, the decoded store, batches and their two augmented views.

Names are imported on first use, so that reading `fewlabel.data.config` needs neither torch nor datasets.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewlabel.data.decode import DecodeError
    from fewlabel.data.loader import Loader
    from fewlabel.data.loading import load
    from fewlabel.data.origin import BadImage, Hints
    from fewlabel.data.source import Source, require_labels
    from fewlabel.data.store import ImageBatch, ImageStore, mean_and_std, open_store
    from fewlabel.data.views import PRESETS, TwoViews

__all__ = [
    "PRESETS",
    "BadImage",
    "DecodeError",
    "Hints",
    "ImageBatch",
    "ImageStore",
    "Loader",
    "Source",
    "TwoViews",
    "load",
    "mean_and_std",
    "open_store",
    "require_labels",
]

_MODULE_OF = {
    "PRESETS": "views",
    "BadImage": "origin",
    "DecodeError": "decode",
    "Hints": "origin",
    "ImageBatch": "store",
    "ImageStore": "store",
    "Loader": "loader",
    "Source": "source",
    "TwoViews": "views",
    "load": "loading",
    "mean_and_std": "store",
    "open_store": "store",
    "require_labels": "source",
}


def __getattr__(name: str) -> Any:
    """Import the module that holds `name`, then hand out the name."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'fewlabel.data' has no attribute {name!r}")
    return getattr(import_module(f"fewlabel.data.{_MODULE_OF[name]}"), name)
