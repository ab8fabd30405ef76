"""What every kind of source hands over before images are looked at: parts, and what is known of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import datasets

from fewlabel.errors import UserError

__all__ = ["WHOLE", "BadImage", "Hints", "Origin", "column", "make_part", "split_of"]

WHOLE: Final = "whole"
"""Name of the only part of a source that brings no splits."""

_SPLIT_NAMES: Final = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


class BadImage(NamedTuple):
    """An image that could not be used, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class Hints:
    """What suits a source; None where nothing is known beyond its images."""

    image_size: int | None = None
    """Side of the views in pixels."""
    views: str | None = None
    """Name of a preset of views."""
    epochs: int | None = None
    """Passes over the training images that are enough."""


@dataclass(frozen=True)
class Origin:
    """Images as a kind of source delivers them, not yet looked at.

    `parts` maps "train", "val" and "test" as far as the source has them, or "whole" alone, to datasets with
    the columns `image` (Image), `id` (string) and, in all parts or in none, `label` (ClassLabel, -1 for an
    image without one) and `group` (string, None for an image without one).
    """

    name: str
    parts: dict[str, datasets.Dataset]
    hints: Hints = field(default_factory=Hints)
    revision: str | None = None
    """Commit of a hub repository."""


def split_of(name: str) -> str | None:
    """The split that `name` ("valid", "Testing", ...) stands for: "train", "val", "test", or None for no
    split."""
    return _SPLIT_NAMES.get(name.lower())


def column(part: datasets.Dataset, name: str) -> list[Any]:
    """All values of one column, without touching the others."""
    return list(part.select_columns([name])[:][name])


def make_part(
    images: Sequence[dict[str, Any]],
    ids: Sequence[str],
    labels: Sequence[int] | None = None,
    names: Sequence[str] = (),
) -> datasets.Dataset:
    """A part from `images` (each {"bytes", "path"}, one of them None), `ids` and, where known, class
    numbers."""
    values: dict[str, Any] = {"image": list(images), "id": list(ids)}
    features: dict[str, Any] = {"image": datasets.Image(), "id": datasets.Value("string")}
    if labels is not None:
        values["label"] = [int(label) for label in labels]
        features["label"] = datasets.ClassLabel(names=list(names))
    try:
        return datasets.Dataset.from_dict(values, features=datasets.Features(features))
    except ValueError as error:
        raise UserError(f"The classes {list(names)[:10]} can't be used: {error}.") from error
