"""Writing files so that a kill, a crash or a full disk at any instant leaves the old file or the new one."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fewlabel.errors import UserError

__all__ = ["atomic_directory", "atomic_path", "atomic_write_text", "locked", "read_json", "write_json"]


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`; when the block ends well it is fsynced and renamed to `target`.

    The block may create a file or a directory there. On any exception the temporary path is removed and
    `target` stays as it was.

    Raises:
        UserError: the disk is full or the place can't be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mktemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(target)
        _sync_directory(target.parent)
    except OSError as error:
        free = shutil.disk_usage(target.parent).free
        raise UserError(
            f"Could not write {target}: {error.strerror or error}. {free / 2**20:,.0f} MiB are free there; "
            "what was written before is untouched. Free some space or choose another place, then run again."
        ) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Give a new, empty directory that takes the place of `target` when the block ends well, as `atomic_path` does.

    What stands at `target` is moved out of the way of the block, and back if the block fails. A kill in between
    loses nothing: the old one is then left as `.NAME.old`.
    """
    with _set_aside(target), atomic_path(target) as temporary:
        temporary.mkdir()
        yield temporary


@contextmanager
def _set_aside(directory: Path) -> Iterator[None]:
    """Move what stands at `directory` out of the way of the block, and back if the block fails."""
    if not directory.exists():
        yield
        return
    aside = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    directory.replace(aside)
    try:
        yield
    except BaseException:
        aside.replace(directory)
        raise
    shutil.rmtree(aside)


def atomic_write_text(target: Path, text: str) -> None:
    """Write `text` to `target` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Write `value` as indented JSON to `target` atomically; NaN and infinity are refused, as JSON has none."""
    atomic_write_text(target, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read as JSON: {error}") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time into the block; the others wait. The lock file `path` stays, for the next.

    Raises:
        UserError: the folder of `path` can't be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise UserError(
            f"The cache folder {path.parent} can't be written ({error.strerror}): choose another."
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
