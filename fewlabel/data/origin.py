"""What every kind of source hands over before images are looked at: parts, and what is known of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute

from fewlabel.errors import UserError

__all__ = [
    "WHOLE",
    "BadImage",
    "Found",
    "Hints",
    "Origin",
    "add_labels",
    "column",
    "labels_of",
    "make_part",
    "paths_of",
    "split_of",
]

_CHUNK: Final = 1024

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
class Found:
    """The files in a folder, relative to it."""

    images: list[PurePosixPath] = field(default_factory=list)
    """Image files by their endings, sorted."""
    others: Counter[str] = field(default_factory=Counter)
    """How often each other file ending occurs."""
    passed: list[PurePosixPath] = field(default_factory=list)
    """The other files, sorted; without hidden ones."""
    unreadable: list[BadImage] = field(default_factory=list)
    """Folders that can't be read, and why."""
    unnamed: list[bytes] = field(default_factory=list)
    """Files and folders whose names are no text, as the system has them; what is in such folders is not looked at."""


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
    root: Path | None = None
    """Of a folder, absolute."""
    found: Found | None = None
    """What is in it, where it is a folder."""


def split_of(name: str) -> str | None:
    """The split that `name` ("valid", "Testing", ...) stands for: "train", "val", "test", or None for no
    split."""
    return _SPLIT_NAMES.get(name.lower())


def column(part: datasets.Dataset, name: str) -> list[Any]:
    """All values of one column, without touching the others."""
    return list(part.select_columns([name])[:][name])


def paths_of(part: datasets.Dataset) -> list[str | None]:
    """Where each image's file is, of several images in it with the one that is meant (see `split_frame`); None where
    its bytes are in the table."""
    cells = part.select_columns(["image"]).cast_column("image", datasets.Image(decode=False)).with_format("arrow")
    paths: list[str | None] = []
    for start in range(0, len(cells), _CHUNK):
        image = cells[start : start + _CHUNK]["image"].combine_chunks()
        inside = pyarrow.compute.is_valid(image.field("bytes"))
        paths += pyarrow.compute.if_else(inside, None, image.field("path")).to_pylist()
    return paths


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
