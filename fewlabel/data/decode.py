"""From the bytes of an image file to its pixels, with the depth and channels that it has."""

import io
import re
import sys
import warnings
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

__all__ = ["ENDINGS", "MAX_PIXELS", "DecodeError", "Header", "Pixels", "decode", "read_header"]

Pixels = npt.NDArray[np.unsignedinteger[Any]]
"""uint8 or uint16."""

MAX_PIXELS: Final = 100_000_000
"""An image of more pixels is refused from its header: a few kilobytes can claim gigabytes."""

ENDINGS: Final = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif"})
"""File name endings (lower case) that are taken for images."""

_FORMATS: Final = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")
_DEEP: Final = re.compile("(RGB|RGBA|LA);16([BLN])")
_ORIENTATION_TAG: Final = 0x0112

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


def read_header(stream: BinaryIO) -> Header:
    """Read size, channels and depth from an open image file, without decoding it.

    Raises:
        DecodeError: it is no image of a known format, or larger than `MAX_PIXELS`, or of 32 bits a channel.
    """
    with _open(stream) as image:
        # A palette counts as colour, whatever its entries: only decoding would tell.
        raw = _raw_mode(image)
        grey = image.mode.startswith("I;16") or image.mode in ("1", "L", "LA", "La") or raw.startswith("LA;16")
        deep = image.mode.startswith("I;16") or _DEEP.fullmatch(raw) is not None
        return Header(image.width, image.height, 1 if grey else 3, 16 if deep else 8)


def decode(encoded: bytes, side: int | None = None) -> Pixels:
    """Decode an image file: JPEG, PNG, TIFF, BMP, WebP or GIF, of which an animation gives its first frame.

    Greyscale and 1-bit images give one channel (1-bit as 0 and 255), all others three; PNG and TIFF of 16
    bits keep their depth. CMYK becomes RGB and the EXIF orientation is applied. What is transparent becomes
    black in proportion: it carries no signal, and colours hidden under it must not come to light.

    Args:
        encoded: the file's content.
        side: the side of the square that the image will be resized to, where known: a JPEG more than twice as
            large is then decoded at a half, a quarter or an eighth of its size, never below `side`.

    Returns:
        (H, W, C) uint8 or uint16, C 1 or 3.

    Raises:
        DecodeError: it is no image of a known format, damaged, truncated, or larger than `MAX_PIXELS`.
    """
    with _open(io.BytesIO(encoded)) as image:
        try:
            if side is not None and image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
                image.draft(image.mode, (side, side))
            raw = _DEEP.fullmatch(_raw_mode(image))
            pixels = _deep_pixels(encoded, image, raw[1], raw[2]) if raw is not None else _pixels(image)
            return _oriented(pixels, image)
        except DecodeError:
            raise
        except Exception as error:
            # The decoders raise OSError, SyntaxError, ValueError, struct.error, RuntimeError, ... by format.
            reason = (str(error) or type(error).__name__).splitlines()[0][:120]
            raise DecodeError(f"damaged or truncated {image.format}: {reason}") from error


def _open(stream: BinaryIO) -> Image.Image:
    try:
        image = Image.open(stream, formats=_FORMATS)
    except UnidentifiedImageError:
        raise DecodeError("not an image of a known format (JPEG, PNG, TIFF, BMP, WebP, GIF)") from None
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


def _deep_pixels(encoded: bytes, image: Image.Image, channels: str, order: str) -> Pixels:
    """Pixels of a file of 16-bit samples in two to four channels, of which Pillow keeps the high bytes alone.

    Told that the samples are of the other byte order, it takes the low bytes for the high ones: so the file
    is decoded both ways. For grey with alpha there is no such way, but read as four channels of 8 bits it
    gives all its bytes.
    """
    with _open(io.BytesIO(encoded)) as other:
        if channels == "LA":
            pairs = np.asarray(_read_as(other, "RGBA"), np.uint16)
            return _flatten(pairs[:, :, 0::2] * np.uint16(256) + pairs[:, :, 1::2])
        native_is_little = order == "N" and sys.byteorder == "little"
        swapped = "B" if order == "L" or native_is_little else "L"
        low = np.asarray(_read_as(other, f"{channels};16{swapped}"), np.uint16)
    return _flatten(np.asarray(image, np.uint16) * np.uint16(256) + low)


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
