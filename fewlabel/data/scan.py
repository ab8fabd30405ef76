"""The one look at every image that each load takes: is it readable, how large, and what is its content."""

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import datasets

from fewlabel.console import track
from fewlabel.data.decode import DecodeError, Header, read_header
from fewlabel.data.parallel import ordered_map

__all__ = ["Seen", "available_cores", "read_content", "scan"]

_CHUNK = 64


class Seen(NamedTuple):
    """What a look at an image gives: a header, or the reason why there is none."""

    digest: bytes
    """BLAKE2b of the content, 16 bytes."""
    header: Header | None
    reason: str


def available_cores() -> int:
    """Cores that this process may use, which a container can set below those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_content(image: dict[str, Any]) -> bytes:
    """The encoded bytes of an undecoded Image cell.

    Raises:
        DecodeError: its file is missing or can't be read.
    """
    encoded: bytes | None = image["bytes"]
    if encoded is not None:
        return encoded
    try:
        return Path(image["path"]).read_bytes()
    except OSError as error:
        raise DecodeError(error.strerror or str(error)) from error


def scan(part: datasets.Dataset, workers: int, description: str) -> list[Seen]:
    """Hash and read the header of each image, in threads; a file is streamed, never held whole."""
    undecoded = part.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))

    def chunks() -> Iterator[list[dict[str, Any]]]:
        for start in range(0, len(undecoded), _CHUNK):
            yield undecoded[start : start + _CHUNK]["image"]

    seen: list[Seen] = []
    looks = ordered_map(lambda images: [_look(image) for image in images], chunks(), workers)
    for chunk in track(looks, description, total=-(-len(undecoded) // _CHUNK)):
        seen += chunk
    return seen


def _look(image: dict[str, Any] | None) -> Seen:
    if image is None or (image["bytes"] is None and image["path"] is None):
        return Seen(b"", None, "no image in this row")
    try:
        if image["bytes"] is not None:
            digest = hashlib.blake2b(image["bytes"], digest_size=16).digest()
            return _header(digest, io.BytesIO(image["bytes"]))
        with Path(image["path"]).open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
            file.seek(0)
            return _header(digest, file)
    except OSError as error:
        return Seen(b"", None, error.strerror or str(error))


def _header(digest: bytes, stream: Any) -> Seen:
    try:
        return Seen(digest, read_header(stream), "")
    except DecodeError as error:
        return Seen(digest, None, str(error))
