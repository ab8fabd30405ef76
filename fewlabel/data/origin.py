"""What every kind of source hands over before images are looked at: parts, and what is known of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow

from fewlabel.errors import UserError

__all__ = ["WHOLE", "BadImage", "Hints", "Origin", "add_labels", "column", "labels_of", "make_part", "split_of"]

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
    image without one; or of several labels an image a struct with a ClassLabel "no", "yes" of the name of each,
    -1 where unknown) and `group` (string, None for an image without one).
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


def labels_of(part: datasets.Dataset) -> npt.NDArray[np.int64] | None:
    """Class numbers (N,), -1 for none; of several labels an image (N, K), 1 for yes, 0 for no and -1 for unknown."""
    if "label" not in part.column_names:
        return None
    feature, values = part.features["label"], column(part, "label")
    if isinstance(feature, datasets.ClassLabel):
        return np.array(values, dtype=np.int64)
    return np.array([[value[name] for name in feature] for value in values], dtype=np.int64)


def add_labels(part: datasets.Dataset, labels: npt.NDArray[np.int64], names: Sequence[str]) -> datasets.Dataset:
    """`part` with a column `label` of what `labels_of` gives back.

    Raises:
        UserError: the names can't be those of classes.
    """
    try:
        if labels.ndim == 1:
            values = pyarrow.array(labels)
            feature: Any = datasets.ClassLabel(names=list(names))
        else:
            if len(set(names)) < len(names):
                raise ValueError("two labels have one name")
            values = pyarrow.StructArray.from_arrays([pyarrow.array(column) for column in labels.T], list(names))
            feature = {name: datasets.ClassLabel(names=["no", "yes"]) for name in names}
        schema = datasets.Features({"label": feature}).arrow_schema
    except ValueError as error:
        raise UserError(f"The classes {list(names)[:10]} can't be used: {error}.") from error
    added = datasets.Dataset(pyarrow.table([values], schema=schema))
    return datasets.concatenate_datasets([part, added], axis=1)


def make_part(
    images: Sequence[dict[str, Any]],
    ids: Sequence[str],
    labels: npt.NDArray[np.int64] | None = None,
    names: Sequence[str] = (),
) -> datasets.Dataset:
    """A part from `images` (each {"bytes", "path"}, one of them None), `ids` and, where known, labels as
    `labels_of` gives them."""
    features = datasets.Features({"image": datasets.Image(), "id": datasets.Value("string")})
    part = datasets.Dataset.from_dict({"image": list(images), "id": list(ids)}, features=features)
    return part if labels is None else add_labels(part, labels, names)
