"""What a table's columns say of the classes or labels of its images."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import datasets
import numpy as np
import numpy.typing as npt

from fewlabel.console import console
from fewlabel.data.origin import column
from fewlabel.errors import UserError

__all__ = ["Labels", "lists_classes", "read_labels"]

_WORDS: Final[dict[Any, int]] = {None: -1, "": -1, 0: 0, "0": 0, "false": 0, "no": 0, 1: 1, "1": 1, "true": 1, "yes": 1}
"""What a cell of a label's own column may hold, and what it means; False and 0.0 equal 0, True and 1.0 equal 1."""


class Labels(NamedTuple):
    """Labels as `origin.labels_of` gives them, by part, with the names of the classes or labels."""

    by_part: dict[str, npt.NDArray[np.int64]]
    names: list[str]


def lists_classes(feature: Any) -> bool:
    """Whether a column of this type holds the classes that are present in an image, as a list of ClassLabel."""
    return isinstance(feature, datasets.List | datasets.LargeList) and isinstance(feature.feature, datasets.ClassLabel)


def read_labels(parts: dict[str, datasets.Dataset], columns: Sequence[str], where: str) -> Labels | None:
    """Read the labels from `columns` of tables that have the same ones.

    One column has a class an image: ClassLabel's, or the sorted values of text or whole numbers; an empty cell is an
    image without label. A column of lists of ClassLabel names the classes present: each is a label that is yes or
    no. Several columns are a label each: 0 and 1, true and false, or yes and no, and an empty cell is an unknown.

    Returns:
        None without columns, and with a message where the one column holds nothing or lists of something else.

    Raises:
        UserError: a column holds something else, or one of several holds nothing.
    """
    if not columns:
        return None
    features = next(iter(parts.values())).features
    values = {name: [column(part, label) for label in columns] for name, part in parts.items()}
    if len(columns) > 1:
        return _yes_or_no(values, list(columns), where)
    feature, single = features[columns[0]], {name: part[0] for name, part in values.items()}
    if lists_classes(feature):
        names = list(feature.feature.names)
        return Labels({name: _present(part, len(names)) for name, part in single.items()}, names)
    if isinstance(feature, datasets.ClassLabel):
        numbers = {name: [-1 if value is None else value for value in part] for name, part in single.items()}
        return Labels({name: np.array(part, dtype=np.int64) for name, part in numbers.items()}, list(feature.names))
    return _classes(single, columns[0], where)


def _classes(values: dict[str, list[Any]], label: str, where: str) -> Labels | None:
    present = {value for part in values.values() for value in _hashable(part) if value is not None}
    if not present or any(isinstance(value, tuple) for value in present):
        reason = (
            "its lists are of no ClassLabel (several labels may also be a column of 0 and 1 each: --label-column a,b,c)"
            if present
            else "it is empty"
        )
        console.print(f"{where}: column {label!r} is left out as labels, as {reason}.", style="yellow", markup=False)
        return None
    if all(isinstance(value, float) and value.is_integer() for value in present):
        present = {int(value) for value in present}
    if not (all(isinstance(value, str) for value in present) or all(isinstance(value, int) for value in present)):
        raise UserError(
            f"Column {label!r} of {where} holds {type(next(iter(present))).__name__} values; classes are "
            "text or whole numbers. Name another with --label-column."
        )
    classes = sorted(present)
    number = {value: index for index, value in enumerate(classes)} | {None: -1}
    numbers = {name: np.array([number[value] for value in part], dtype=np.int64) for name, part in values.items()}
    return Labels(numbers, [str(value) for value in classes])


def _yes_or_no(values: dict[str, list[list[Any]]], names: list[str], where: str) -> Labels:
    by_part = {
        part: np.stack([_read(cells, name, where) for name, cells in zip(names, columns, strict=True)], axis=1)
        for part, columns in values.items()
    }
    known = np.any([(labels >= 0).any(axis=0) for labels in by_part.values()], axis=0)
    if empty := [name for name, found in zip(names, known, strict=True) if not found]:
        raise UserError(
            f"Of {where}, the label column{'s' * (len(empty) > 1)} {', '.join(empty)} "
            f"{'are' if len(empty) > 1 else 'is'} empty in every row. Leave {'them' if len(empty) > 1 else 'it'} out "
            "of --label-column."
        )
    return Labels(by_part, names)


def _read(cells: Iterable[Any], name: str, where: str) -> npt.NDArray[np.int64]:
    found = []
    for row, cell in enumerate(cells):
        # Not a number is how tables of floats write an empty cell.
        value = None if cell != cell else cell.strip().lower() if isinstance(cell, str) else cell
        try:
            found.append(_WORDS[value])
        except (KeyError, TypeError):
            raise UserError(
                f"Column {name!r} of {where} holds {cell!r} (row {row + 1}); one of several label columns holds 0 or "
                "1, true or false, yes or no, or nothing where it is unknown. Correct it, or name one column of "
                "classes with --label-column."
            ) from None
    return np.array(found, dtype=np.int64)


def _present(lists: Sequence[Sequence[int] | None], count: int) -> npt.NDArray[np.int64]:
    labels = np.zeros((len(lists), count), dtype=np.int64)
    for row, classes in enumerate(lists):
        if classes is None:
            labels[row] = -1
        else:
            labels[row, list(classes)] = 1
    return labels


def _hashable(values: Iterable[Any]) -> Iterable[Any]:
    return (tuple(value) if isinstance(value, list) else value for value in values)
