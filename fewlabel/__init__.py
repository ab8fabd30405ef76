"""Fewlabel: SimCLR pretraining, few-label evaluation and image search for folders of images."""

import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_classifier", "load_encoder"]

# Read by torch at its first allocation: large tensors on a CPU in 2 MB pages. Every step makes its
# tensors anew, and touching them in 4 kB pages costs time: a fifth of that of two views at 224 px.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# Read by OpenMP as torch loads it: threads that wait sleep. By default they spin, and on a machine with other work
# they take the cores from each other: on two busy ones, NT-Xent of 8,192 pairs then took 18 s instead of 3 s.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from fewlabel.backbones import load_encoder
    from fewlabel.supervised.classifier import load_classifier


def __getattr__(name: str) -> Any:
    """Import what loads a trained network on first use, so that `import fewlabel` stays free of torch."""
    if name == "load_encoder":
        from fewlabel.backbones import load_encoder

        return load_encoder
    if name == "load_classifier":
        from fewlabel.supervised.classifier import load_classifier

        return load_classifier
    raise AttributeError(f"module 'fewlabel' has no attribute {name!r}")
