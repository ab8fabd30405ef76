"""The one look at every image that each load takes: is it readable, how large, and what is its content."""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import datasets

from fewlabel.console import track
from fewlabel.data.decode import DecodeError, Header, Pixels, decode, read_header
from fewlabel.data.frames import open_file, path_digest, split_frame
from fewlabel.data.parallel import ordered_map
from fewlabel.data.window import AUTO

__all__ = ["Seen", "available_cores", "look", "open_cell", "read_cell", "scan"]

_CHUNK = 64
_READ_AT_ONCE = 2**28


class Seen(NamedTuple):
    """What a look at an image gives: a header, or the reason why there is none."""

    digest: bytes
    """BLAKE2b of the content, 16 bytes."""
    header: Header | None
    reason: str


def available_cores() -> int:
    """Cores that this process may use, which a container can set below those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def open_cell(image: dict[str, Any]) -> Iterator[tuple[BinaryIO, int | None]]:
    """The file that an undecoded Image cell stands for, and which of several images in it (see `split_frame`).

    Raises:
        DecodeError: the file is missing or can't be read.
    """
    if image["bytes"] is not None:
        yield io.BytesIO(image["bytes"]), None
        return
    path, frame = split_frame(image["path"])
    try:
        with open_file(path) as file:
            yield file, frame
    except OSError as error:
        raise DecodeError(error.strerror or str(error)) from error


def read_cell(image: dict[str, Any], side: int | None = None, window: str = AUTO) -> Pixels:
    """The pixels of an undecoded Image cell; see `decode`.

    Raises:
        DecodeError: its file is missing, can't be read, or is no image that can be decoded.
    """
    with open_cell(image) as (stream, frame):
        # At once, as the decoders would ask for it in small pieces; of a large file only what is needed.
        is_small = frame is None and stream.seek(0, os.SEEK_END) <= _READ_AT_ONCE
        stream.seek(0)
        return decode(stream.read() if is_small else stream, side, frame=frame, window=window)


def scan(part: datasets.Dataset, workers: int, description: str) -> list[Seen]:
    """Hash and read the header of each image, in threads; a file is streamed, never held whole."""
    undecoded = part.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))

    def chunks() -> Iterator[list[dict[str, Any]]]:
        for start in range(0, len(undecoded), _CHUNK):
            yield undecoded[start : start + _CHUNK]["image"]

    seen: list[Seen] = []
    looks = ordered_map(lambda images: [look(image) for image in images], chunks(), workers)
    for chunk in track(looks, description, total=-(-len(undecoded) // _CHUNK)):
        seen += chunk
    return seen


def look(image: dict[str, Any] | None) -> Seen:
    """Hash and read the header of an undecoded Image cell."""
    if image is None or (image["bytes"] is None and image["path"] is None):
        return Seen(b"", None, "no image in this row")
    digest = b""
    try:
        if image["bytes"] is not None:
            digest = hashlib.blake2b(image["bytes"], digest_size=16).digest()
        else:
            digest = path_digest(image["path"])
        with open_cell(image) as (stream, frame):
            return Seen(digest, read_header(stream, frame), "")
    except OSError as error:
        return Seen(b"", None, error.strerror or str(error))
    except DecodeError as error:
        return Seen(digest, None, str(error))
