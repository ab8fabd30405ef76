"""The manifest: a row an image, with every measure, every finding and whether it is left out."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet

from fewlabel.cleaning.collection import Collection
from fewlabel.cleaning.findings import Finding, Findings
from fewlabel.cleaning.kinds import Severity
from fewlabel.cleaning.measures import MEASURES
from fewlabel.files import atomic_path

__all__ = ["manifest_table", "write_manifest"]

_WHOLE: Final = ("width", "height", "shorter_side", "channels", "bits", "bytes")
"""Measures that are whole numbers."""

_GRAVEST: Final[tuple[Severity, ...]] = ("error", "problem", "warning")
_BETWEEN: Final = "; "


def manifest_table(collection: Collection, findings: Findings, excluded: Mapping[int, str]) -> pyarrow.Table:
    """The manifest, in the order of the collection's rows.

    Columns: id, path, split, label (a list of names), group, content (hash of the encoded image), pixels (hash of the
    decoded one), format, mode, those of `MEASURES`, perceptual_hash (hexadecimal), findings and details (lists of
    equal length), severity (the gravest), duplicate_group, listed (false for what the source passes over), and
    excluded_because (empty for an image that stays).
    """
    found: list[list[Finding]] = [[] for _ in range(len(collection))]
    for finding in findings.all:
        found[finding.row].append(finding)
    group_of = {row: group.number for group in findings.groups for row in group.rows}
    decoded = collection.decoded
    texts = pyarrow.list_(pyarrow.string())
    columns: dict[str, Any] = {
        "id": pyarrow.array(collection.ids, pyarrow.string()),
        "path": pyarrow.array(collection.paths, pyarrow.string()),
        "split": pyarrow.array([split or None for split in collection.splits], pyarrow.string()),
        "label": pyarrow.array([None if label is None else list(label) for label in collection.labels], texts),
        "group": pyarrow.array(collection.groups, pyarrow.string()),
        "content": pyarrow.array(collection.contents, pyarrow.string()),
        "pixels": pyarrow.array([digest.hex() or None for digest in collection.pixels], pyarrow.string()),
        "format": pyarrow.array([name or None for name in collection.formats], pyarrow.string()),
        "mode": pyarrow.array([name or None for name in collection.modes], pyarrow.string()),
    }
    for name in MEASURES:
        values = collection.measures[name]
        kind = pyarrow.int64() if name in _WHOLE else pyarrow.float32()
        known = np.where(np.isnan(values), 0, values) if name in _WHOLE else values
        columns[name] = pyarrow.array(known, mask=np.isnan(values)).cast(kind)
    hashes = [f"{value:016x}" if known else None for value, known in zip(collection.hashes, decoded, strict=True)]
    columns |= {
        "perceptual_hash": pyarrow.array(hashes, pyarrow.string()),
        "findings": pyarrow.array([[finding.kind for finding in row] for row in found], texts),
        "details": pyarrow.array([[finding.detail for finding in row] for row in found], texts),
        "severity": pyarrow.array([_gravest(row) for row in found], pyarrow.string()),
        "duplicate_group": pyarrow.array([group_of.get(row) for row in range(len(collection))], pyarrow.int64()),
        "listed": pyarrow.array(collection.listed),
        "excluded_because": pyarrow.array([excluded.get(row, "") for row in range(len(collection))]),
    }
    return pyarrow.table(columns)


def write_manifest(
    collection: Collection, findings: Findings, excluded: Mapping[int, str], folder: Path
) -> tuple[Path, Path]:
    """Write `manifest_table` to manifest.parquet and manifest.csv in `folder`; lists are joined by "; " in the latter.

    Raises:
        UserError: the folder can't be written.
    """
    table = manifest_table(collection, findings, excluded)
    parquet, csv = folder / "manifest.parquet", folder / "manifest.csv"
    with atomic_path(parquet) as path:
        pyarrow.parquet.write_table(table, path)
    with atomic_path(csv) as path:
        pyarrow.csv.write_csv(pyarrow.table(dict(_flat(table))), path)
    return parquet, csv


def _gravest(findings: list[Finding]) -> Severity | None:
    return next((severity for severity in _GRAVEST if any(found.severity == severity for found in findings)), None)


def _flat(table: pyarrow.Table) -> Iterator[tuple[str, pyarrow.ChunkedArray]]:
    for name in table.column_names:
        column = table[name]
        if pyarrow.types.is_list(column.type):
            column = pyarrow.array([None if values is None else _BETWEEN.join(values) for values in column.to_pylist()])
        yield name, column
