"""One writer to a run directory."""

import errno
import os
import socket
import sys
import time
from pathlib import Path
from typing import Literal

from fewlabel.errors import UserError

if sys.platform != "win32":
    import fcntl

__all__ = ["LOCK_NAMES", "DirectoryLock", "is_locked"]

_LOCK = ".lock"
_MARKER = ".lock.held"
LOCK_NAMES = frozenset({_LOCK, _MARKER})
"""What a lock may leave in a directory that is otherwise empty."""

_NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
# `is_locked` holds a shared lock for an instant; a writer that comes just then tries again.
_ATTEMPTS, _PAUSE_SECONDS = 4, 0.05


class DirectoryLock:
    """Holds a directory for this process until `release`, or until the process ends in any way.

    It is an advisory `flock` on the file `.lock`, which the kernel drops when the process dies. Where the
    platform or the file system has none, a file `.lock.held` is made exclusively instead; a killed process
    leaves that behind, and the message then says to delete it.

    Args:
        directory: where; it must exist.
        kind: what lies in it, for the message: a run's directory, or an index.

    Raises:
        UserError: another process, or another `DirectoryLock` of this one, holds the directory.
    """

    def __init__(self, directory: Path, kind: Literal["run", "index"] = "run") -> None:
        self._kind = kind
        self._marker: Path | None = None
        try:
            self._descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(
                f"Can't write in the {self._kind} directory {directory}: {error.strerror}. "
                + ("Choose a directory of your own with --out." if kind == "run" else "Ask whoever owns it.")
            ) from error
        try:
            locked = _flock(self._descriptor)
            if locked is None:
                locked = self._mark(directory / _MARKER)
            if not locked:
                raise UserError(self._refusal(directory))
        except BaseException:
            os.close(self._descriptor)
            raise
        os.truncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)

    def _mark(self, marker: Path) -> bool:
        try:
            os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        except FileExistsError:
            return False
        self._marker = marker
        return True

    def _refusal(self, directory: Path) -> str:
        pid, _, host = os.pread(self._descriptor, 300, 0).decode(errors="replace").strip().partition(" ")
        where = f" on {host}" if host and host != socket.gethostname() else ""
        message = f"The {self._kind} directory {directory} is in use by process {pid or '(unknown)'}{where}, and "
        if self._kind == "run":
            message += (
                "two runs never write into one directory. Wait for it or stop it, or choose another directory with "
                "--out."
            )
        else:
            message += "an index has one writer at a time. Wait for it or stop it, then run again; searching goes on."
        if (directory / _MARKER).exists():
            message += f" If that process is gone, delete {directory / _MARKER} and run again."
        return message

    def release(self) -> None:
        """Give the directory free; a second call does nothing."""
        if self._descriptor >= 0:
            if self._marker is not None:
                self._marker.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1


def _flock(descriptor: int) -> bool | None:
    """Take the lock: True if taken, False if another has it, None where there is no such lock."""
    if sys.platform == "win32":
        return None
    for attempt in range(_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if attempt + 1 < _ATTEMPTS:
                time.sleep(_PAUSE_SECONDS)
        except OSError as error:
            if error.errno in _NO_LOCKS_HERE:
                return None
            raise
    return False


def is_locked(directory: Path) -> bool:
    """Whether a process is writing into `directory` now; nothing is made or changed."""
    if (directory / _MARKER).exists():
        return True
    if sys.platform == "win32":
        return False
    try:
        descriptor = os.open(directory / _LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
