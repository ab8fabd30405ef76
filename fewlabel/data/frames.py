"""Several images in one file: how one of them is named."""

import errno
import hashlib
import io
import os
import re
import stat
from functools import lru_cache
from pathlib import Path
from typing import Final

__all__ = [
    "CHOICES",
    "choose_frames",
    "ending_of",
    "frame_digest",
    "frame_path",
    "open_file",
    "path_digest",
    "split_frame",
]

CHOICES: Final = ("all", "first", "middle")
"""What `--frames` may be."""

_MARKED: Final = re.compile(r"(?P<file>.+)#frame=(?P<frame>[1-9]\d{0,8})", re.DOTALL)


def split_frame(path: str) -> tuple[str, int | None]:
    """The file that an image's path or id names, and which image of the file is meant, counted from 1; None where the
    file is one image."""
    match = _MARKED.fullmatch(path)
    return (path, None) if match is None else (match["file"], int(match["frame"]))


def frame_path(file: str, frame: int) -> str:
    """The path, or id, of one image of a file that holds several; `split_frame` takes it apart."""
    return f"{file}#frame={frame}"


def choose_frames(frames: tuple[int, ...], choice: str) -> tuple[int, ...]:
    """Those of a file's `frames` that `--frames` asks for; of an even number, the later one in the middle."""
    return {"all": frames, "first": frames[:1], "middle": frames[len(frames) // 2 : len(frames) // 2 + 1]}[choice]


def ending_of(name: str) -> str:
    """The ending of a file's name in lower case, with its dot; of "brain.nii.gz" all of ".nii.gz"."""
    lower = name.lower()
    return ".nii.gz" if lower.endswith(".nii.gz") else Path(lower).suffix


def frame_digest(file_digest: bytes, frame: int | None) -> bytes:
    """The hash of an image's content from that of its file: BLAKE2b of 16 bytes."""
    if frame is None:
        return file_digest
    return hashlib.blake2b(file_digest + frame_path("", frame).encode(), digest_size=16).digest()


def path_digest(path: str) -> bytes:
    """`frame_digest` of what stands at an image's path now; a file of several images is read once.

    Raises:
        OSError: its file is missing or can't be read.
    """
    file, frame = split_frame(path)
    if frame is None:
        return _digest(file)
    status = Path(file).stat()
    return frame_digest(_digest_of(file, status.st_size, status.st_mtime_ns), frame)


def open_file(path: str) -> io.BufferedReader:
    """A file to read from; anything but a plain file, such as a pipe, could keep its reader waiting for ever.

    Raises:
        OSError: it is missing, can't be read or is no plain file.
    """
    kind = os.stat(path).st_mode  # noqa: PTH116  # the number says more than is_file
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise OSError(errno.EINVAL, "no plain file", path)
    return Path(path).open("rb")


@lru_cache(maxsize=64)
def _digest_of(file: str, size: int, modified: int) -> bytes:
    return _digest(file)


def _digest(file: str) -> bytes:
    with open_file(file) as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).digest()
