"""What is wrong with a file as such: damage, and names that don't fit the content."""

import io
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from PIL import Image

from fewlabel.cleaning.collection import Fault
from fewlabel.data.decode import DecodeError, medical_kind, read_header
from fewlabel.data.frames import ending_of
from fewlabel.data.origin import Found

__all__ = ["damage", "faults_beside", "wrong_suffix"]

_ENDINGS: Final = {
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jfif"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "NIFTI": (".nii", ".nii.gz"),
}
"""DICOM files may have any name (PS3.10, 8)."""

_STARTS: Final = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
_TAIL: Final = 1024
_STRIP_OFFSETS, _STRIP_SIZES, _TILE_OFFSETS, _TILE_SIZES = 273, 279, 324, 325
"""Tags of TIFF 6.0."""


def damage(stream: BinaryIO, reason: str) -> Fault:
    """The fault of an open file that can't be decoded for a `reason`: "empty", "truncated" where its end is missing,
    else "undecodable"."""
    size = stream.seek(0, io.SEEK_END)
    if not size:
        return Fault("empty", "no bytes")
    if _ends_early(stream, size) or reason.startswith("truncated") or "ends before" in reason:
        return Fault("truncated", f"ends after {size:,} bytes: {reason}")
    return Fault("undecodable", reason)


def _ends_early(stream: BinaryIO, size: int) -> bool:
    """Whether the format's mark of the end is missing, or more bytes are announced than there are."""
    stream.seek(0)
    start = stream.read(8)
    stream.seek(max(0, size - _TAIL))
    tail = stream.read(_TAIL)
    if start.startswith(b"\xff\xd8\xff"):
        return b"\xff\xd9" not in tail
    if start.startswith(b"\x89PNG"):
        return b"IEND" not in tail
    if start.startswith(b"GIF8"):
        return not tail.rstrip(b"\0").endswith(b";")
    if start.startswith(b"RIFF"):
        return int.from_bytes(start[4:8], "little") + 8 > size
    if start.startswith(b"BM"):
        return int.from_bytes(start[2:6], "little") > size
    if start.startswith((b"II*\0", b"MM\0*")):
        directory = int.from_bytes(start[4:8], "little" if start.startswith(b"II") else "big")
        return max([directory, *_strip_ends(stream)]) > size
    return False


def _strip_ends(stream: BinaryIO) -> list[int]:
    """Where the strips or tiles of a TIFF's first image end in the file."""
    try:
        with Image.open(stream, formats=("TIFF",)) as image:
            tags = getattr(image, "tag_v2", {})
            return [
                offset + count
                for offsets, counts in ((_STRIP_OFFSETS, _STRIP_SIZES), (_TILE_OFFSETS, _TILE_SIZES))
                for offset, count in zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False)
            ]
    except Exception:
        # Damaged in another way, which the reason tells.
        return []


def wrong_suffix(path: str, kind: str) -> Fault | None:
    """The fault of a file whose ending names another format than its content has; None where they agree."""
    endings, ending = _ENDINGS.get(kind), ending_of(path)
    if endings is None or ending in endings:
        return None
    return Fault("wrong_suffix", f"a {kind} file under {ending or 'no suffix'}")


def faults_beside(root: Path, found: Found) -> Iterator[tuple[str, Fault]]:
    """What a folder's source passes over and a user should know of: the path in the folder, and the fault."""
    for folder in found.unreadable:
        yield folder.id, Fault("unreadable", f"the folder can't be read: {folder.reason}")
    for name in found.unnamed:
        shown = name.decode(errors="backslashreplace")
        yield shown, Fault("unreadable_name", "no valid text in the file system's encoding: rename it")
    for path in found.passed:
        kind = _image_kind(root / path)
        if kind is not None:
            yield str(path), Fault("foreign_suffix", f"a {kind} file under {PurePosixPath(path).suffix or 'no suffix'}")


def _image_kind(path: Path) -> str | None:
    """The format of a file that is an image, whatever its name; None for any other."""
    try:
        # Anything but a plain file, such as a pipe, could keep whoever opens it waiting.
        if not path.is_file():
            return None
        with path.open("rb") as stream:
            if not stream.read(8).startswith(_STARTS) and medical_kind(stream) is None:
                return None
            stream.seek(0)
            return read_header(stream).format
    except (OSError, DecodeError):
        return None
