"""Files set aside, and put back bit for bit: each is moved by one rename, after a log of all is on disk."""

import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from fewlabel.console import track
from fewlabel.errors import UserError
from fewlabel.files import atomic_write_text

__all__ = ["Moves", "Refusal", "check_quarantine", "quarantine", "undo"]

_KIND: Final = "fewlabel quarantine, version 1"


class Refusal(NamedTuple):
    """A file that stays where it is, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Moves:
    """What a quarantine did, or its undoing."""

    log: Path | None
    """What `undo` takes; None where nothing was to be moved."""
    moved: list[str]
    """Paths within the source's folder."""
    refused: list[Refusal]


@dataclass(frozen=True)
class _Entry:
    """A line of the log."""

    file: str
    """Path within the source's folder, and within the quarantine."""
    size: int
    mtime_ns: int
    content: str
    """BLAKE2b, 16 bytes in hexadecimal."""


@dataclass(frozen=True)
class _Log:
    source: Path
    quarantine: Path
    entries: list[_Entry]


class _Stays(Exception):
    """This file is not moved; the message is the reason."""


def check_quarantine(root: Path, into: Path) -> None:
    """Refuse a place for the quarantine of `root` that can't be right, before anything is looked at.

    Raises:
        UserError: one of the two lies in the other, or they lie on different file systems, between which no move is
            a single step.
    """
    real, place = root.resolve(), into.resolve()
    if place.is_relative_to(real) or real.is_relative_to(place):
        raise UserError(
            f"The quarantine {into} and the images' folder {root} lie in one another. Name a place beside the folder "
            "with --quarantine-dir."
        )
    if place.exists() and not place.is_dir():
        raise UserError(f"--quarantine-dir {into} is a file; give a folder.")
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    if there.stat().st_dev != real.stat().st_dev:
        raise UserError(
            f"The quarantine {into} lies on another file system than {root}: files could only be copied there, and a "
            "stop in between would leave two of them. Name a place on the same disk with --quarantine-dir, or leave "
            "the files where they are with --apply exclude."
        )


def quarantine(root: Path, files: Mapping[Path, str], into: Path, name: str) -> Moves:
    """Move files out of the folder `root`, to `into`/`name`, after a log of all of them is safe in `into`/`name`.jsonl.

    At any instant, also of a kill, each file is in exactly one of its two places, and `undo` takes the log. A file
    that is a link, that can't be read, that changed or that lies elsewhere in truth is refused and stays.

    Args:
        root: the source's folder.
        files: by path the BLAKE2b (16 bytes, hexadecimal) that each had when it was looked at; "" where unknown.
        into: where quarantines lie; made where it is missing.
        name: of this one; a number is added where it is taken.

    Raises:
        UserError: see `check_quarantine`, or `into` can't be written.
    """
    check_quarantine(root, into)
    refused: list[Refusal] = []
    entries: list[_Entry] = []
    for path, content in track(sorted(files.items()), "Before moving", total=len(files)):
        try:
            entries.append(_looked_at(root.resolve(), path, content))
        except _Stays as reason:
            refused.append(Refusal(str(path), str(reason)))
    if not entries:
        return Moves(None, [], refused)
    folder = _new_folder(into, name)
    log = folder.with_name(f"{folder.name}.jsonl")
    lines = [{"kind": _KIND, "source": str(root.resolve()), "quarantine": str(folder), "files": len(entries)}]
    # Names that are no text come through, as JSON in ASCII has an escape for each of their bytes.
    atomic_write_text(log, "".join(f"{json.dumps(line)}\n" for line in [*lines, *map(asdict, entries)]))
    with _held(log):
        moved, stayed = _each(entries, lambda entry: _set_aside(root.resolve(), folder, entry), "Moving")
    return Moves(log, moved, [*refused, *stayed])


def undo(log: Path) -> Moves:
    """Put the files of a quarantine back where they were; what is back already stays.

    A file that was changed in the quarantine, or in whose old place something stands, is refused; the others are
    restored. To run it again does no harm, also after a kill.

    Raises:
        UserError: it is no complete log, the folder that the files came from is gone, or another process works by the
            log.
    """
    read = _read(log)
    if not read.source.is_dir():
        raise UserError(f"{read.source}, the folder that the files of {log} came from, is gone. Put it back first.")
    with _held(log):
        moved, refused = _each(read.entries, lambda entry: _put_back(read, entry), "Putting back")
        _remove_empty(read.quarantine)
    return Moves(log, moved, refused)


def _each(
    entries: Sequence[_Entry], move: Callable[[_Entry], bool], description: str
) -> tuple[list[str], list[Refusal]]:
    """What `move` moved, and what it refused."""
    moved, refused = [], []
    for entry in track(entries, description, total=len(entries)):
        try:
            if move(entry):
                moved.append(entry.file)
        except _Stays as reason:
            refused.append(Refusal(entry.file, str(reason)))
        except OSError as error:
            refused.append(Refusal(entry.file, error.strerror or str(error)))
    return moved, refused


def _looked_at(root: Path, path: Path, content: str) -> _Entry:
    """The line for a file, whose real place must be in the folder `root`."""
    try:
        # The file's own name stays: were it resolved too, a link's target would be moved.
        real = path.parent.resolve(strict=True) / path.name
        if not real.is_relative_to(root):
            raise _Stays("it lies outside the folder and is linked there; leave it out with --apply exclude")
        status = real.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise _Stays("it is a link and no file; leave it out with --apply exclude")
        found = _content(real)
    except OSError as error:
        raise _Stays(error.strerror or str(error)) from error
    if content and content != found:
        raise _Stays("it has changed since it was looked at")
    return _Entry(real.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns, found)


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _new_folder(into: Path, name: str) -> Path:
    try:
        into.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, 1000):
            folder = into.resolve() / (name if attempt == 1 else f"{name}-{attempt}")
            with suppress(FileExistsError):
                folder.mkdir()
                return folder
    except OSError as error:
        raise UserError(
            f"The quarantine {into} can't be written: {error.strerror}. Name another place with --quarantine-dir."
        ) from error
    raise UserError(f"{into} already holds 999 quarantines named {name}. Name another place with --quarantine-dir.")


def _set_aside(root: Path, folder: Path, entry: _Entry) -> bool:
    here, there = root / entry.file, folder / entry.file
    status = here.lstat()
    if (status.st_size, status.st_mtime_ns) != (entry.size, entry.mtime_ns):
        raise _Stays("it has changed since it was looked at")
    there.parent.mkdir(parents=True, exist_ok=True)
    os.rename(here, there)  # noqa: PTH104  (a kill test counts these calls)
    return True


def _put_back(log: _Log, entry: _Entry) -> bool:
    """Whether it was moved; not if it is back already."""
    here, there = _within(log.quarantine, entry.file), _within(log.source, entry.file)
    if not os.path.lexists(here):
        if not os.path.lexists(there):
            raise _Stays("it is in neither of its places")
        if _is(there, entry):
            return False
        raise _Stays("it is gone from the quarantine, and something else stands in its old place")
    if os.path.lexists(there):
        raise _Stays(f"something stands in its old place, {there}: move that away and undo again")
    if not _is(here, entry):
        raise _Stays("it was changed in the quarantine")
    there.parent.mkdir(parents=True, exist_ok=True)
    os.rename(here, there)  # noqa: PTH104
    return True


def _within(root: Path, file: str) -> Path:
    """The place of `file` in `root`, in truth too: a log is a file that anyone may have written."""
    relative = PurePosixPath(file)
    if not relative.parts or relative.is_absolute() or ".." in relative.parts:
        raise _Stays("its path leaves the folder")
    place = root / relative
    if not place.parent.resolve().is_relative_to(root.resolve()):
        raise _Stays("a link on its path leads out of the folder")
    return place


def _is(path: Path, entry: _Entry) -> bool:
    """Whether the file at `path` is that of the log, bit for bit."""
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_size == entry.size and _content(path) == entry.content


def _read(log: Path) -> _Log:
    try:
        lines = [json.loads(line) for line in log.read_text(encoding="ascii").splitlines()]
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{log} can't be read as the log of a quarantine: {reason}") from error
    header: Any = lines[0] if lines else None
    try:
        if header["kind"] != _KIND or header["files"] != len(lines) - 1:
            raise ValueError("it has another beginning, or lines are missing")
        entries = [_entry(**line) for line in lines[1:]]
        return _Log(Path(header["source"]), Path(header["quarantine"]), entries)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{log} is no complete log of a quarantine ({error}). `fewlabel clean --apply quarantine` writes one, "
            "ending in .jsonl, beside the files that it moves."
        ) from error


def _entry(file: str, size: int, mtime_ns: int, content: str) -> _Entry:
    if not (isinstance(file, str) and isinstance(content, str)):
        raise TypeError("a path or a hash that is no text")
    return _Entry(file, size, mtime_ns, content)


@contextmanager
def _held(log: Path) -> Iterator[None]:
    """Let one process at a time work by a log."""
    with log.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"Another process is moving the files of {log}. Wait until it is done.") from None
        yield


def _remove_empty(folder: Path) -> None:
    for path, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(path).rmdir()
