"""Finding similar images: the index directory, its vectors, and what is read off the neighbours.

Names are imported on first use, so that `fewlabel.retrieval.config` and the plan need neither torch nor FAISS.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewlabel.retrieval.config import IndexConfig
    from fewlabel.retrieval.index import Hit, Index
    from fewlabel.retrieval.manifest import Entry, Filter

__all__ = ["Entry", "Filter", "Hit", "Index", "IndexConfig"]

_MODULE_OF = {"Entry": "manifest", "Filter": "manifest", "Hit": "index", "Index": "index", "IndexConfig": "config"}


def __getattr__(name: str) -> Any:
    """Import the module that holds `name`, then hand out the name."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'fewlabel.retrieval' has no attribute {name!r}")
    return getattr(import_module(f"fewlabel.retrieval.{_MODULE_OF[name]}"), name)
