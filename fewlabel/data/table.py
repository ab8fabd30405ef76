"""Tables of images: .parquet, .csv and .jsonl."""

from pathlib import Path
from typing import Final

import datasets
import pyarrow
import pyarrow.csv
import pyarrow.json

from fewlabel.console import console
from fewlabel.data.columns import find_columns, standardise
from fewlabel.data.config import SourceConfig
from fewlabel.data.names import hints_of
from fewlabel.data.origin import WHOLE, Origin, column, split_of
from fewlabel.errors import UserError

__all__ = ["TABLE_ENDINGS", "read_table"]

TABLE_ENDINGS: Final = (".parquet", ".csv", ".jsonl")


def read_table(path: Path, config: SourceConfig) -> Origin:
    """Read a table with a row an image; see `columns.standardise` for what its columns may hold.

    A column named `split` whose values are all split names (train, val, test, ...) divides the rows.
    A .parquet file may be larger than memory: it is read through a memory-mapped file.

    Raises:
        UserError: it is no such table, or the columns don't say what an image is.
    """
    table = _read(path)
    columns = find_columns(table.column_names, table.features, config, str(path))
    if len(table) == 0:
        raise UserError(f"{path} has no rows.")
    origin_parts = standardise(_divide(table, path), columns, str(path), base=path.parent)
    return Origin(path.stem, origin_parts, hints_of(path.stem))


def _read(path: Path) -> datasets.Dataset:
    try:
        match path.suffix.lower():
            case ".parquet":
                return datasets.Dataset.from_parquet(str(path))
            case ".csv":
                # An empty cell is no value, while "NA" may well be the name of a class.
                empty = pyarrow.csv.ConvertOptions(null_values=[""], strings_can_be_null=True)
                return datasets.Dataset(pyarrow.csv.read_csv(path, convert_options=empty))
            case _:
                return datasets.Dataset(pyarrow.json.read_json(path))
    except (OSError, ValueError, pyarrow.ArrowException, datasets.exceptions.DatasetGenerationError) as error:
        reason = error.__cause__ or error
        raise UserError(f"{path} can't be read as a {path.suffix.lower()} table: {reason}") from error


def _divide(table: datasets.Dataset, path: Path) -> dict[str, datasets.Dataset]:
    if "split" not in table.column_names:
        return {WHOLE: table}
    splits = [split_of(str(value)) for value in column(table, "split")]
    if None in splits:
        console.print(
            f"{path}: row {splits.index(None) + 1} of column 'split' is none of train, val and test; splits "
            "are made afresh.",
            style="yellow",
            markup=False,
        )
        return {WHOLE: table}
    return {
        name: table.select([row for row, split in enumerate(splits) if split == name])
        for name in ("train", "val", "test")
        if name in splits
    }
