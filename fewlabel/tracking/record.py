"""The shapes that things take in a run's JSON files and in W&B."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabel.tracking.metrics import finite_or_none

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Figure", "Picture", "figure_values", "flattened", "jsonable", "without_lists"]

Figure = float | Mapping[str, float] | list[dict[str, Any]]
"""A number; {"mean", "low", "high"}: a figure with its interval; or rows of a table, such as a curve."""


@dataclass(frozen=True)
class Picture:
    """A small image in a cell of a W&B table."""

    image: "Image"
    caption: str


def figure_values(name: str, figure: Figure) -> Any:
    """A final figure as `result.json` has it; NaN and the infinities are null.

    Raises:
        ValueError: an interval without all of its three parts.
    """
    if isinstance(figure, list):
        return jsonable(figure)
    if not isinstance(figure, Mapping):
        return finite_or_none(figure)
    if figure.keys() != {"mean", "low", "high"}:
        raise ValueError(f"the interval of {name} has {sorted(figure)}, not mean, low and high")
    return {part: finite_or_none(figure[part]) for part in ("mean", "low", "high")}


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`tree` with one dotted name a leaf: {"a": {"b": 1}} gives {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def jsonable(value: Any) -> Any:
    """`value` in plain JSON: paths become text, tuples lists, NaN and the infinities null."""
    if isinstance(value, Mapping):
        return {str(name): jsonable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    return finite_or_none(value) if isinstance(value, float) else value


def without_lists(source: Mapping[str, Any]) -> dict[str, Any]:
    """`source` with every list replaced by its length.

    Lists name single images, e.g. those that could not be read, and file names may name a patient: they stay in
    the run directory, W&B gets their number.
    """
    return {name: len(value) if isinstance(value, list) else value for name, value in source.items()}
