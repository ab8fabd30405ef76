"""Which column of a table holds what, and tables brought into the form that every source has."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import datasets
import pyarrow

from fewlabel.console import console
from fewlabel.data.config import SourceConfig
from fewlabel.data.origin import column
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
    label: str | None
    group: str | None


def find_columns(names: Sequence[str], features: datasets.Features | None, config: SourceConfig, where: str) -> Columns:
    """The columns that the flags name, else those that a type (Image, ClassLabel) or a usual name gives away.

    Raises:
        UserError: a named column is not there, or none holds images.
    """

    def find(flag: str, asked: str | None, kind: type | None, usual: Sequence[str]) -> str | None:
        if asked is not None:
            if asked not in names:
                raise UserError(f"{flag} {asked!r} is no column of {where}; it has {', '.join(names)}.")
            return asked
        if kind is not None and features is not None:
            typed = [name for name in names if isinstance(features[name], kind)]
            if len(typed) == 1:
                return typed[0]
        by_lower_case = {name.lower(): name for name in reversed(names)}
        return next((by_lower_case[name] for name in usual if name in by_lower_case), None)

    image = find("--image-column", config.image_column, datasets.Image, _IMAGE_NAMES)
    if image is None:
        raise UserError(
            f"No column of {where} is known to hold images; it has {', '.join(names)}. "
            "Name the right one with --image-column."
        )
    return Columns(
        image,
        find("--label-column", config.label_column, datasets.ClassLabel, _LABEL_NAMES),
        find("--group-column", config.group_column, None, _GROUP_NAMES),
    )


def standardise(
    parts: dict[str, datasets.Dataset], columns: Columns, where: str, base: Path | None = None
) -> dict[str, datasets.Dataset]:
    """Bring tables into the form that `Origin.parts` has.

    The image column may hold paths (relative ones count from `base`), encoded bytes, or structs of both as
    the hub has them. The id is the path relative to `base`, or the part's name and the row's number for
    bytes. Classes are ClassLabel's, or the sorted values of a column of text or whole numbers; an empty cell
    is an image without label.

    Raises:
        UserError: the image column holds something else, or labels are no classes.
    """
    labels, names = _labels(parts, columns.label, where)
    return {
        name: _standard_part(name, part, columns, labels.get(name), names, where, base) for name, part in parts.items()
    }


def _standard_part(
    name: str,
    part: datasets.Dataset,
    columns: Columns,
    labels: list[int] | None,
    classes: list[str],
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
    if labels is not None:
        images = images.add_column("label", labels, feature=datasets.ClassLabel(names=classes))
    if groups is not None:
        written_groups = [None if group is None else str(group) for group in groups]
        images = images.add_column("group", written_groups, feature=datasets.Value("string"))
    return images


def _labels(
    parts: dict[str, datasets.Dataset], label: str | None, where: str
) -> tuple[dict[str, list[int]], list[str]]:
    """Class numbers by part, and the classes' names; empty where there are no labels."""
    if label is None:
        return {}, []
    values = {name: column(part, label) for name, part in parts.items()}
    feature = next(iter(parts.values())).features[label]
    if isinstance(feature, datasets.ClassLabel):
        return {name: [-1 if v is None else v for v in part] for name, part in values.items()}, list(feature.names)
    present = {value for part in values.values() for value in _hashable(part) if value is not None}
    if not present or any(isinstance(value, tuple) for value in present):
        reason = "an image has several of them" if present else "it is empty"
        console.print(f"{where}: column {label!r} is left out as labels, as {reason}.", style="yellow", markup=False)
        return {}, []
    if all(isinstance(value, float) and value.is_integer() for value in present):
        present = {int(value) for value in present}
    if not (all(isinstance(value, str) for value in present) or all(isinstance(value, int) for value in present)):
        raise UserError(
            f"Column {label!r} of {where} holds {type(next(iter(present))).__name__} values; classes are "
            "text or whole numbers. Name another with --label-column."
        )
    classes = sorted(present)
    number = {value: index for index, value in enumerate(classes)} | {None: -1}
    return {name: [number[v] for v in part] for name, part in values.items()}, [str(value) for value in classes]


def _hashable(values: Iterable[Any]) -> Iterable[Any]:
    return (tuple(value) if isinstance(value, list) else value for value in values)
