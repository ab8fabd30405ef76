"""Which column of a table holds what, and tables brought into the form that every source has."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import datasets
import pyarrow

from fewlabel.data.config import CODE_COLUMNS, IDENTITY_COLUMNS, SourceConfig
from fewlabel.data.labels import lists_classes, read_labels
from fewlabel.data.origin import add_labels, column
from fewlabel.errors import UserError

__all__ = ["Columns", "find_columns", "standardise"]

_IMAGE_NAMES: Final = (
    "image",
    "img",
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image_path",
)
_LABEL_NAMES: Final = ("label", "labels", "class", "target", "y")
_GROUP_NAMES: Final = ("group", "patient", "patient_id")


@dataclass(frozen=True)
class Columns:
    """Names of the columns with a meaning; None where a table has none."""

    image: str
    labels: tuple[str, ...]
    """None, one with a class, or one for each of several labels."""
    group: str | None

    @property
    def all(self) -> list[str]:
        """Every name, the image's first."""
        return [self.image, *self.labels, *([] if self.group is None else [self.group])]


def find_columns(names: Sequence[str], features: datasets.Features | None, config: SourceConfig, where: str) -> Columns:
    """The columns that the flags name, else those that a type (Image, ClassLabel) or a usual name gives away.

    Raises:
        UserError: a named column is not there, or none holds images.
    """

    def find(flag: str, asked: str | None, kinds: Sequence[Callable[[Any], bool]], usual: Sequence[str]) -> str | None:
        if asked in (*CODE_COLUMNS, *IDENTITY_COLUMNS) and asked not in names:
            # It comes from the images' files, if they are DICOM.
            return None
        if asked is not None:
            return _checked(flag, asked, names, where)
        for is_kind in kinds:
            typed = [name for name in names if features is not None and is_kind(features[name])]
            if len(typed) == 1:
                return typed[0]
            if typed:
                break
        by_lower_case = {name.lower(): name for name in reversed(names)}
        return next((by_lower_case[name] for name in usual if name in by_lower_case), None)

    image = find("--image-column", config.image_column, [_is_image], _IMAGE_NAMES)
    if image is None:
        raise UserError(
            f"No column of {where} is known to hold images; it has {', '.join(names)}. "
            "Name the right one with --image-column."
        )
    asked = config.label_column
    if asked is not None and asked not in names and "," in asked:
        labels = _several(asked, names, where)
    else:
        found = find("--label-column", asked, [_is_class, lists_classes], _LABEL_NAMES)
        labels = () if found is None else (found,)
    return Columns(image, labels, find("--group-column", config.group_column, [], _GROUP_NAMES))


def _is_image(kind: Any) -> bool:
    return isinstance(kind, datasets.Image)


def _is_class(kind: Any) -> bool:
    return isinstance(kind, datasets.ClassLabel)


def _checked(flag: str, asked: str, names: Sequence[str], where: str) -> str:
    if asked not in names:
        near = get_close_matches(asked, names, n=3)
        hint = f"did you mean {' or '.join(near)}? It" if near else "it"
        raise UserError(f"{flag} {asked!r} is no column of {where}; {hint} has {', '.join(names)}.")
    return asked


def _several(asked: str, names: Sequence[str], where: str) -> tuple[str, ...]:
    """The columns of several labels, from their names with commas between."""
    labels = [_checked("--label-column", name.strip(), names, where) for name in asked.split(",")]
    (most, count), *_ = Counter(labels).most_common(1)
    if count > 1:
        raise UserError(f"--label-column {asked!r} names {most!r} {count} times; name each label's column once.")
    return tuple(labels)


def standardise(
    parts: dict[str, datasets.Dataset], columns: Columns, where: str, base: Path | None = None
) -> dict[str, datasets.Dataset]:
    """Bring tables into the form that `Origin.parts` has.

    The image column may hold paths (relative ones count from `base`), encoded bytes, or structs of both as
    the hub has them. The id is the path relative to `base`, or the part's name and the row's number for
    bytes. For the labels see `read_labels`.

    Raises:
        UserError: the image column holds something else, or labels are no classes.
    """
    labels = read_labels(parts, columns.labels, where)
    standard = {}
    for name, part in parts.items():
        images = _standard_part(name, part, columns, where, base)
        standard[name] = images if labels is None else add_labels(images, labels.by_part[name], labels.names)
    return standard


def _standard_part(
    name: str,
    part: datasets.Dataset,
    columns: Columns,
    where: str,
    base: Path | None,
) -> datasets.Dataset:
    groups = column(part, columns.group) if columns.group is not None else None
    ids = [f"{name}/{index:06d}" for index in range(len(part))]
    feature = part.features[columns.image]
    if feature == datasets.Value("string") or feature == datasets.Value("large_string"):
        if base is None:
            raise UserError(f"Column {columns.image!r} of {where} holds paths, but there is no folder they start from.")
        written = column(part, columns.image)
        if any(path is None for path in written):
            raise UserError(f"Row {written.index(None) + 1} of {where} has no path in column {columns.image!r}.")
        paths = [Path(os.path.normpath(base.absolute() / path)) for path in written]
        ids = [Path(os.path.relpath(path, base.absolute())).as_posix() for path in paths]
        images = datasets.Dataset.from_dict({"image": [str(path) for path in paths]})
    else:
        images = part.select_columns([columns.image])
        if columns.image != "image":
            images = images.rename_column(columns.image, "image")
    try:
        images = images.cast_column("image", datasets.Image())
    except (TypeError, ValueError, pyarrow.ArrowException) as error:
        raise UserError(
            f"Column {columns.image!r} of {where} is {feature}, but images are paths or encoded bytes. "
            "Name another with --image-column."
        ) from error
    images = images.add_column("id", ids, feature=datasets.Value("string"))
    if groups is not None:
        written_groups = [None if group is None else str(group) for group in groups]
        images = images.add_column("group", written_groups, feature=datasets.Value("string"))
    return images
