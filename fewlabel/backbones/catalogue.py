"""The catalogue: what can be named, and what it costs. Read from a file that `census` counted; imports no torch."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["FILE", "Entry", "entries", "write"]

FILE = Path(__file__).with_name("catalogue.json")
"""Counted from the registry by `make docs`; a test counts again."""


@dataclass(frozen=True)
class Entry:
    """One name that `create` takes, built for 3 channels at its own image size."""

    name: str
    family: str
    summary: str
    paper: str
    source: str
    """`timm` or `own`."""
    image_size: int
    """Side in pixels that it was designed for."""
    any_size: bool
    """Whether it takes any image size."""
    num_features: int
    """Width of its features."""
    parameters: int
    flops: int
    """Floating-point operations of the forward pass of one image (see `cost.count_flops`)."""


def entries() -> list[Entry]:
    """The registered families, each followed by its members; `timm/NAME` takes any other name of timm.

    A family's row has the figures of the member that it stands for above 64 px.
    """
    return [Entry(**row) for row in json.loads(FILE.read_text(encoding="utf-8"))]


def write(rows: list[Entry], file: Path = FILE) -> None:
    """Write the catalogue's file, one entry a line."""
    lines = ",\n".join(json.dumps(asdict(row), ensure_ascii=False) for row in rows)
    file.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
