"""Lists of images that a source shall do without, each with its reason."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow
import pyarrow.csv
import pyarrow.parquet

from fewlabel.console import say
from fewlabel.data.config import NO_LIST
from fewlabel.errors import UserError

__all__ = ["COLUMNS", "ENDINGS", "Exclusion", "ExclusionRow", "count_reasons", "list_beside", "read_exclusion"]

COLUMNS: Final = ("id", "content", "excluded_because")
"""What a list must have; it may have more, as the manifest of a `fewlabel clean` has."""

ENDINGS: Final = (".csv", ".parquet")


class ExclusionRow(NamedTuple):
    """What a list says of one image."""

    content: str
    """BLAKE2b of the encoded image (16 bytes) in hexadecimal; empty where it couldn't be read."""
    reason: str
    """Why it is left out, its kind before the first colon; empty where it stays."""


@dataclass(frozen=True)
class Exclusion:
    """A list that was read; made by `read_exclusion`."""

    path: Path
    digest: str
    """BLAKE2b of the file, in hexadecimal."""
    rows: Mapping[str, ExclusionRow]
    """By the images' ids."""

    def reasons(self, contents: Mapping[str, bytes], name: str) -> dict[str, str]:
        """Which images of a source are left out, and why.

        A row counts only where both id and content agree, so that an image that was replaced or repaired since is
        used again.

        Args:
            contents: of each image of the source its BLAKE2b by its id; b"" where it can't be read.
            name: of the source, for messages.

        Returns:
            The reasons by id.

        Raises:
            UserError: there are rows, and none of them fits: it is another source's list.
        """
        known = {identity: row for identity, row in self.rows.items() if identity in contents}
        fitting = {identity for identity, row in known.items() if row.content == contents[identity].hex()}
        if self.rows and not fitting:
            here = next(iter(contents), "no image")
            why = f"{next(iter(known))} has changed" if known else f"it names {next(iter(self.rows))}, where {here} is"
            raise UserError(
                f"{self.path} is a list for another source than {name}: of its {len(self.rows):,} images none is there "
                f"as it was ({why}). Make a new list with `fewlabel clean`, name another with --exclude, or use every "
                f"image with --exclude {NO_LIST}."
            )
        changed = [identity for identity, row in known.items() if row.reason and identity not in fitting]
        if changed:
            say(
                f"{len(changed):,} images that {self.path} leaves out have changed since it was made, and are used: "
                f"{', '.join(changed[:3])}{' ...' if len(changed) > 3 else ''}"
            )
        return {identity: row.reason for identity, row in known.items() if row.reason and identity in fitting}

    def announce(self, reasons: Sequence[str], total: int, name: str) -> None:
        """Say how many of the `total` images of a source are left out, and why."""
        counts = ", ".join(f"{count:,} {kind}" for kind, count in count_reasons(reasons).items())
        say(
            f"{self.path} leaves out {len(reasons):,} of {total:,} images of {name}"
            + (f": {counts}" if counts else "")
            + f". To use them: --exclude {NO_LIST}."
        )


def count_reasons(reasons: Sequence[str]) -> dict[str, int]:
    """How many there are of each kind (what stands before the first colon), the most frequent first."""
    counts = Counter(reason.partition(":")[0].strip() for reason in reasons)
    return dict(sorted(counts.items(), key=lambda kind: (-kind[1], kind[0])))


def list_beside(data: str) -> Path | None:
    """Where the list of a source that is a folder or file lies if there is one: photos/ -> photos.exclude.csv.

    Returns:
        None for a source that is no path.
    """
    path = Path(data).expanduser()
    if not path.exists():
        return None
    real = path.resolve()
    return real.with_name(f"{real.name}.exclude.csv")


def read_exclusion(given: str | None, data: str) -> Exclusion | None:
    """The list that was `given`, else the one that lies beside the source `data`; None where there is none.

    Raises:
        UserError: the list that was given is missing, or a list can't be read or lacks a column.
    """
    if given == NO_LIST:
        return None
    if given is not None:
        return _read(Path(given).expanduser().resolve())
    beside = list_beside(data)
    return _read(beside) if beside is not None and beside.exists() else None


def _read(path: Path) -> Exclusion:
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"--exclude {path}: a list of images to leave out ends in {' or '.join(ENDINGS)}.")
    try:
        content = path.read_bytes()
        table = _table(pyarrow.BufferReader(content), path.suffix.lower())
    except FileNotFoundError:
        raise UserError(
            f"--exclude {path}: there is no such file. Give the list or the manifest that a `fewlabel clean` wrote, or "
            f"{NO_LIST}."
        ) from None
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise UserError(
            f"{path} can't be read as a list of images to leave out: {error}. It is a table with the columns "
            f"{', '.join(COLUMNS)}, as `fewlabel clean` writes it."
        ) from error
    ids = table["id"].to_pylist()
    if len(set(ids)) < len(ids):
        (twice, count), *_ = Counter(ids).most_common(1)
        raise UserError(f"{path} lists {twice} {count} times; an image may have one row.")
    contents, reasons = (table[name].to_pylist() for name in COLUMNS[1:])
    rows = {
        identity: ExclusionRow((content or "").lower(), reason or "")
        for identity, content, reason in zip(ids, contents, reasons, strict=True)
    }
    return Exclusion(path, hashlib.blake2b(content, digest_size=16).hexdigest(), rows)


def _table(stream: pyarrow.NativeFile, ending: str) -> pyarrow.Table:
    """The columns of a list, all as text: an id such as 007 is no number."""
    if ending == ".parquet":
        return pyarrow.parquet.read_table(stream, columns=list(COLUMNS)).select(list(COLUMNS))
    texts = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(COLUMNS, pyarrow.string()), include_columns=list(COLUMNS)
    )
    # A file's name may hold a line break.
    return pyarrow.csv.read_csv(
        stream, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True), convert_options=texts
    )
