"""Files that a command leaves where the user says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewlabel.errors import UserError

__all__ = ["ENDINGS", "check_ending", "refuse_existing", "write_table"]

ENDINGS = (".csv", ".parquet")


def check_ending(flag: str, path: Path | None, endings: tuple[str, ...] = ENDINGS) -> None:
    """Check a file's name before anything is computed.

    Raises:
        UserError: it ends in none of `endings`.
    """
    if path is not None and path.suffix.lower() not in endings:
        raise UserError(f"{flag} is {path}; its name must end in {' or '.join(endings)}.")


def refuse_existing(flag: str, path: Path | None, overwrite: bool) -> None:
    """Keep what the user has.

    Raises:
        UserError: `path` exists and shall not be overwritten.
    """
    if path is not None and path.exists() and not overwrite:
        raise UserError(f"{path} exists. Give another name with {flag}, or --overwrite to replace it.")


def write_table(columns: Mapping[str, list[Any]], path: Path) -> None:
    """Write `columns` to `path` atomically, as CSV or parquet by its ending.

    Raises:
        UserError: it can't be written.
    """
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    from fewlabel.files import atomic_path

    table = pyarrow.table(dict(columns))
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".csv":
            pyarrow.csv.write_csv(table, temporary)
        else:
            pyarrow.parquet.write_table(table, temporary)
