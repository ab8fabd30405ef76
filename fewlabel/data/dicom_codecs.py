"""How compressed DICOM frames are unpacked: a decoder plug-in of pydicom, around imagecodecs.

GDCM, which pydicom would take, ends the whole process when a frame is truncated.
"""

import struct
from typing import Any, Final

import imagecodecs
import numpy.typing as npt
from pydicom import uid
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder

from fewlabel.data.decode import DecodeError

__all__ = ["PLUGIN", "SYNTAXES"]

PLUGIN: Final = "imagecodecs"
"""Its name among pydicom's."""

_JPEG: Final = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
_JPEG_LS: Final = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
_JPEG_2000: Final = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)

SYNTAXES: Final = (*_JPEG, *_JPEG_LS, *_JPEG_2000)
"""UIDs of the transfer syntaxes that it decodes."""

DECODER_DEPENDENCIES: Final = dict.fromkeys(SYNTAXES, ("imagecodecs",))
"""As pydicom asks of a plug-in."""


def is_available(syntax: str) -> bool:
    """Whether frames of this transfer syntax can be decoded; asked by pydicom."""
    return syntax in SYNTAXES


def decode_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """Decode a frame to rows of pixels; called by pydicom, which then sees to signs, depth and colour space.

    Raises:
        DecodeError: the frame has another size than the file says.
    """
    syntax, samples = runner.transfer_syntax, runner.samples_per_pixel
    shape = (runner.rows, runner.columns, samples) if samples > 1 else (runner.rows, runner.columns)
    if _size_of(src, syntax) != shape[:2]:
        raise DecodeError("damaged DICOM: a compressed frame has another size than the file says")
    # Of a frame that ends too early libjpeg makes up the rest, and CharLS takes seconds to refuse it.
    if syntax not in _JPEG_2000 and not src.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise DecodeError("truncated DICOM: a compressed frame ends too early")
    pixels: npt.NDArray[Any]
    if syntax in _JPEG:
        # As they lie in the file: what they mean is for pydicom to judge, which knows what the file says of them.
        space = "RGB" if samples > 1 else None
        pixels = imagecodecs.jpeg8_decode(src, colorspace=space, outcolorspace=space)
    elif syntax in _JPEG_LS:
        pixels = imagecodecs.jpegls_decode(src)
    else:
        pixels = imagecodecs.jpeg2k_decode(src)
        if runner.photometric_interpretation in (PhotometricInterpretation.YBR_ICT, PhotometricInterpretation.YBR_RCT):
            runner.set_option("photometric_interpretation", PhotometricInterpretation.RGB)
    if pixels.shape != shape:
        raise DecodeError("damaged DICOM: a compressed frame has another size than the file says")
    runner.set_option("bits_allocated", 8 * pixels.dtype.itemsize)
    if samples > 1:
        runner.set_option("planar_configuration", 0)
    return pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()


def _size_of(frame: bytes, syntax: str) -> tuple[int, int] | None:
    """Height and width that a frame claims, for which a decoder would take memory; None where it does not say."""
    if syntax in _JPEG_2000:
        # The SIZ marker comes first (ISO 15444-1 A.5.1); before it may stand the boxes of a .jp2 file.
        place = frame.find(b"\xff\x4f\xff\x51")
        if place < 0 or place + 24 > len(frame):
            return None
        right, lower, left, upper = struct.unpack(">4I", frame[place + 8 : place + 24])
        return lower - upper, right - left
    place = 2
    while frame[place : place + 1] == b"\xff" and place + 9 <= len(frame):
        marker, length = frame[place + 1], int.from_bytes(frame[place + 2 : place + 4], "big")
        # A start of frame (ISO 10918-1 B.1.1.3; 14495-1 C.1.1), and not DHT, JPG or DAC among their numbers.
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            height, width = (int.from_bytes(frame[place + at : place + at + 2], "big") for at in (5, 7))
            return height, width
        # Bytes of 255 may fill up before a marker.
        place += 1 if marker == 0xFF else 2 + length
    return None


for _syntax in SYNTAXES:
    get_decoder(_syntax).add_plugin(PLUGIN, (__name__, "decode_frame"))
