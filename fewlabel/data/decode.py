"""From the bytes of an image file to its pixels, with the depth and channels that it has."""

import io
import re
import sys
import warnings
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from fewlabel.data.window import AUTO

__all__ = ["ENDINGS", "MAX_PIXELS", "DecodeError", "Header", "Pixels", "decode", "read_header"]

Pixels = npt.NDArray[np.unsignedinteger[Any]]
"""uint8 or uint16."""

MAX_PIXELS: Final = 100_000_000
"""An image of more pixels is refused from its header: a few kilobytes can claim gigabytes."""

ENDINGS: Final = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif"}
    | {".dcm", ".dicom", ".ima", ".nii", ".nii.gz"}
)
"""File name endings (lower case) that are taken for images."""

_FORMATS: Final = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")
_DEEP: Final = re.compile("(RGB|RGBA|LA);16([BLN])")
_ORIENTATION_TAG: Final = 0x0112
_SUBFILE_TAG: Final = 254
_REDUCED_OR_MASK: Final = 0b101
"""Kinds of TIFF pages that are no images of their own (TIFF 6.0, NewSubfileType)."""

_DICOM_STARTS: Final = (b"\x02\x00\x00\x00", *(b"\x08\x00" + bytes([element, 0]) for element in (0, 1, 5, 8, 0x16)))
"""Elements that a DICOM file without the preamble of PS3.10 begins with."""

# Between its limit and twice that Pillow only warns, and MAX_PIXELS lies between; beyond that it raises.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class DecodeError(Exception):
    """An image can't be used; the message is the reason, without the image's name."""


class Header(NamedTuple):
    """What an image file says of itself before any pixel is decoded."""

    width: int
    height: int
    channels: int
    """1 or 3."""
    bits: int
    """8 or 16, per channel."""
    format: str = ""
    """Pillow's word for it, "DICOM" or "NIFTI"."""
    mode: str = ""
    """Pillow's word for the kind of pixels; of DICOM the photometric interpretation."""
    windowed: bool = False
    """Whether its grey levels depend on `SourceConfig.window`."""


def read_header(stream: BinaryIO, frame: int | None = None) -> Header:
    """Read size, channels and depth from an open image file, without decoding it.

    Args:
        stream: the file.
        frame: which of several images in it, counted from 1; None for the only or first one.

    Raises:
        DecodeError: it is no image of a known format, or larger than `MAX_PIXELS`, or of 32 bits a channel.
    """
    kind = medical_kind(stream)
    if kind == "DICOM":
        from fewlabel.data.dicom import read_dicom_header

        return read_dicom_header(stream)
    if kind == "NIFTI":
        from fewlabel.data.nifti import read_slice_header

        return read_slice_header(stream)
    with _open(stream, frame) as image:
        # A palette counts as colour, whatever its entries: only decoding would tell.
        raw = _raw_mode(image)
        grey = image.mode.startswith("I;16") or image.mode in ("1", "L", "LA", "La") or raw.startswith("LA;16")
        deep = image.mode.startswith("I;16") or _DEEP.fullmatch(raw) is not None
        return Header(image.width, image.height, 1 if grey else 3, 16 if deep else 8, image.format or "", image.mode)


def medical_kind(stream: BinaryIO) -> Literal["DICOM", "NIFTI"] | None:
    """Which medical format an open file has, by its content; it is left at its start."""
    stream.seek(0)
    start = stream.read(352)
    stream.seek(0)
    # The two kinds of NIfTI have their magic number at either end of a header; a gzipped file can be nothing else here.
    if start[344:348] == b"n+1\0" or start[4:8] == b"n+2\0" or start[:2] == b"\x1f\x8b":
        return "NIFTI"
    return "DICOM" if start[128:132] == b"DICM" or start.startswith(_DICOM_STARTS) else None


def tiff_pages(stream: BinaryIO) -> tuple[int, ...]:
    """The pages of an open TIFF file that are images of their own, counted from 1, without smaller copies and masks.

    (1,) where none can be told.
    """
    try:
        with Image.open(stream, formats=("TIFF",)) as image:
            pages = []
            for page in range(getattr(image, "n_frames", 1)):
                image.seek(page)
                tags: Any = getattr(image, "tag_v2", {})
                if not int(tags.get(_SUBFILE_TAG, 0)) & _REDUCED_OR_MASK:
                    pages.append(page + 1)
    except Exception:
        # What is wrong with the file is told when it is read.
        return (1,)
    return tuple(pages) or (1,)


def decode(
    encoded: bytes | BinaryIO, side: int | None = None, *, frame: int | None = None, window: str = AUTO
) -> Pixels:
    """Decode an image file: JPEG, PNG, TIFF, BMP, WebP, GIF (an animation gives its first frame), DICOM or NIfTI.

    Greyscale and 1-bit images give one channel (1-bit as 0 and 255), all others three; PNG and TIFF of 16
    bits keep their depth. CMYK becomes RGB and the EXIF orientation is applied. What is transparent becomes
    black in proportion: it carries no signal, and colours hidden under it must not come to light. Of DICOM and NIfTI
    see `decode_dicom` and `decode_slice`.

    Args:
        encoded: the file's content, or the open file.
        side: the side of the square that the image will be resized to, where known: a JPEG more than twice as
            large is then decoded at a half, a quarter or an eighth of its size, never below `side`.
        frame: which of several images in a TIFF, DICOM or NIfTI file, counted from 1; None for the only or first one.
        window: as `SourceConfig.window`, for DICOM and NIfTI.

    Returns:
        (H, W, C) uint8 or uint16, C 1 or 3.

    Raises:
        DecodeError: it is no image of a known format, damaged, truncated, or larger than `MAX_PIXELS`; or it has no
            such frame.
    """
    stream = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
    kind = medical_kind(stream)
    if kind == "DICOM":
        from fewlabel.data.dicom import decode_dicom

        return decode_dicom(stream, frame, window)
    if kind == "NIFTI":
        from fewlabel.data.nifti import decode_slice

        return decode_slice(stream, frame, window)
    with _open(stream, frame) as image:
        try:
            if side is not None and image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
                image.draft(image.mode, (side, side))
            raw = _DEEP.fullmatch(_raw_mode(image))
            pixels = _deep_pixels(stream, frame, image, raw[1], raw[2]) if raw is not None else _pixels(image)
            return _oriented(pixels, image)
        except DecodeError:
            raise
        except Exception as error:
            # The decoders raise OSError, SyntaxError, ValueError, struct.error, RuntimeError, ... by format.
            reason = (str(error) or type(error).__name__).splitlines()[0][:120]
            raise DecodeError(f"damaged or truncated {image.format}: {reason}") from error


def _open(stream: BinaryIO, frame: int | None) -> Image.Image:
    try:
        image = Image.open(stream, formats=_FORMATS)
        if frame is not None:
            image.seek(frame - 1)
    except UnidentifiedImageError:
        raise DecodeError("not an image of a known format (JPEG, PNG, TIFF, BMP, WebP, GIF, DICOM, NIfTI)") from None
    except EOFError:
        raise DecodeError(f"no image {frame} in this file") from None
    except Image.DecompressionBombError:
        raise DecodeError(f"more than the {MAX_PIXELS // 10**6} megapixels allowed") from None
    except Exception as error:
        raise DecodeError(f"unreadable header: {error}") from error
    if image.width * image.height > MAX_PIXELS:
        raise DecodeError(
            f"{image.width:,} x {image.height:,} pixels, more than {MAX_PIXELS // 10**6} megapixels allowed"
        )
    if image.mode in ("I", "F"):
        raise DecodeError("32-bit pixels, whose white is unknown: convert the image to 8 or 16 bits")
    return image


def _raw_mode(image: Image.Image) -> str:
    """How the samples lie in the file, in Pillow's words; "" where there is no single way."""
    tiles = getattr(image, "tile", [])
    arguments = tiles[0].args if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _deep_pixels(stream: BinaryIO, frame: int | None, image: Image.Image, channels: str, order: str) -> Pixels:
    """Pixels of a file of 16-bit samples in two to four channels, of which Pillow keeps the high bytes alone.

    Told that the samples are of the other byte order, it takes the low bytes for the high ones: so the file
    is decoded both ways. For grey with alpha there is no such way, but read as four channels of 8 bits it
    gives all its bytes.
    """
    with _open_again(stream) as again, _open(again, frame) as other:
        if channels == "LA":
            pairs = np.asarray(_read_as(other, "RGBA"), np.uint16)
            return _flatten(pairs[:, :, 0::2] * np.uint16(256) + pairs[:, :, 1::2])
        native_is_little = order == "N" and sys.byteorder == "little"
        swapped = "B" if order == "L" or native_is_little else "L"
        low = np.asarray(_read_as(other, f"{channels};16{swapped}"), np.uint16)
    return _flatten(np.asarray(image, np.uint16) * np.uint16(256) + low)


def _open_again(stream: BinaryIO) -> BinaryIO:
    return io.BytesIO(stream.getvalue()) if isinstance(stream, io.BytesIO) else Path(stream.name).open("rb")


def _read_as(image: Image.Image, raw_mode: str) -> Image.Image:
    tiles: list[Any] = getattr(image, "tile", [])
    for index, tile in enumerate(tiles):
        rest = tile.args[1:] if isinstance(tile.args, tuple) else None
        tiles[index] = tile._replace(args=raw_mode if rest is None else (raw_mode, *rest))
    image.load()
    return image


def _pixels(image: Image.Image) -> Pixels:
    """Pixels (H, W, C) of an image that Pillow decodes, as grey or RGB."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16, copy=False)[:, :, None]
    if image.mode == "1":
        return np.asarray(image.convert("L"))[:, :, None]
    if image.mode == "L" and "transparency" not in image.info:
        return np.asarray(image)[:, :, None]
    if image.mode in ("L", "LA", "La"):
        return _flatten(np.asarray(image.convert("LA")))
    if image.has_transparency_data:
        return _flatten(np.asarray(image.convert("RGBA")))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _flatten(pixels: Pixels) -> Pixels:
    """Composite (H, W, 2 or 4) grey or colour with alpha onto black; (H, W, 1 or 3) stays as it is."""
    if pixels.shape[2] in (1, 3):
        return pixels
    white = np.iinfo(pixels.dtype).max
    colour, alpha = pixels[:, :, :-1].astype(np.uint64), pixels[:, :, -1:].astype(np.uint64)
    flat = (colour * alpha + white // 2) // white
    return flat.astype(np.uint8) if pixels.dtype == np.uint8 else flat.astype(np.uint16)


def _oriented(pixels: Pixels, image: Image.Image) -> Pixels:
    """Turn and mirror as EXIF orientation 1-8 asks (EXIF 2.3, tag 0x0112); damaged EXIF counts as none."""
    if image.format in ("JPEG", "MPO", "WEBP") and not image.info.keys() & {"exif", "xmp"}:
        return pixels
    try:
        orientation: Any = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        return pixels
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
