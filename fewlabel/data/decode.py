"""From the bytes of an image file to its pixels, with the depth and channels that it has."""

import io
import warnings
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torchvision.io import ImageReadMode, decode_jpeg, decode_png

__all__ = ["ENDINGS", "MAX_PIXELS", "DecodeError", "Header", "Pixels", "decode", "read_header"]

Pixels = npt.NDArray[np.unsignedinteger[Any]]
"""uint8 or uint16."""

MAX_PIXELS: Final = 100_000_000
"""An image of more pixels is refused from its header: a few kilobytes can claim gigabytes."""

ENDINGS: Final = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif"})
"""File name endings (lower case) that are taken for images."""

_FORMATS: Final = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")
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
        deep = image.mode.startswith("I;16") or _is_deep_png(image)
        grey = image.mode.startswith("I;16") or image.mode in ("1", "L", "LA", "La")
        return Header(image.width, image.height, 1 if grey else 3, 16 if deep else 8)


def decode(encoded: bytes, side: int | None = None) -> Pixels:
    """Decode an image file: JPEG, PNG, TIFF, BMP, WebP or GIF, of which an animation gives its first frame.

    Greyscale and 1-bit images give one channel (1-bit as 0 and 255), all others three; 16-bit greyscale PNG
    and TIFF and 16-bit colour PNG keep their depth (a 16-bit colour TIFF is read at 8). CMYK becomes RGB and
    the EXIF orientation is applied. What is transparent becomes black in proportion: it carries no signal,
    and colours hidden under it must not come to light.

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
            if _is_deep_png(image):
                tensor = decode_png(_as_tensor(encoded), mode=ImageReadMode.UNCHANGED)
                return _flatten(_oriented(tensor.permute(1, 2, 0).numpy(), image))
            # MPO is what many cameras write into a .jpg: a JPEG with a second picture behind the first.
            if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
                if side is None or min(image.size) < 2 * side:
                    # Both use libjpeg-turbo and give the same pixels; this way is 1.4 times as fast.
                    tensor = decode_jpeg(_as_tensor(encoded), mode=ImageReadMode.UNCHANGED)
                    return _oriented(tensor.permute(1, 2, 0).numpy(), image)
                image.draft(image.mode, (side, side))
            return _oriented(_pixels(image), image)
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


def _is_deep_png(image: Image.Image) -> bool:
    """Whether this is a 16-bit PNG with colour or alpha, which Pillow would cut to 8 bits.

    Pillow keeps the PNG header's depth and colour type only as the raw mode of its decoder.
    """
    if image.format != "PNG" or not image.tile:  # type: ignore[attr-defined]
        return False
    arguments = image.tile[0][3]  # type: ignore[attr-defined]
    raw_mode = arguments[0] if isinstance(arguments, tuple) else arguments
    return str(raw_mode) in ("RGB;16B", "RGBA;16B", "LA;16B")


def _as_tensor(encoded: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(encoded), dtype=torch.uint8)


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
    return np.asarray(image.convert("RGB"))


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
