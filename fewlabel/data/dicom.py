"""DICOM files: from the stored values to grey levels or colours, as a viewer shows them."""

import io
import logging
import math
import os
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pydicom.config
from pydicom import Dataset, dcmread
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from fewlabel.data.decode import MAX_PIXELS, DecodeError, Header, Pixels
from fewlabel.data.dicom_codecs import PLUGIN, SYNTAXES
from fewlabel.data.window import AUTO, Window, parse_window, percentile_window, to_levels

__all__ = ["Opened", "count_frames", "decode_dicom", "macro", "open_dicom", "read_dicom_header", "refusing"]

_IMAGE_TAGS: Final = (
    *("SOPClassUID", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for part in ("Descriptor", "Data")
    ),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
)
_GREY: Final = ("MONOCHROME1", "MONOCHROME2")
_COLOUR: Final = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_MAX_INFLATED: Final = 2**28
"""Bytes that a deflated file may unpack to."""

_MAX_META: Final = 2**16

_FRAME_HEADER: Final = 8
"""Bytes that each compressed frame has beside its content (PS3.5 A.4)."""

# What they print or log quotes a file's values, of which some say who the patient is.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"pydicom\b")


class Opened(NamedTuple):
    """A DICOM file, read up to its pixels."""

    dataset: Dataset
    pixels: Dataset | BinaryIO
    """Where `pydicom.pixels.pixel_array` reads them."""
    syntax: str
    """UID of the transfer syntax."""
    stored: int
    """Bytes of the file from the pixels on; 0 where it has none."""


@contextmanager
def refusing() -> Iterator[None]:
    """Turn whatever pydicom and its decoders raise into a `DecodeError`, without a value of the file in it."""
    try:
        yield
    except (DecodeError, MemoryError):
        raise
    except Exception as error:
        # Of a plug-in's error pydicom keeps the words alone.
        own = re.search(rf"{PLUGIN}: ((truncated|damaged) DICOM: .+)", str(error))
        if own is not None:
            raise DecodeError(own[1]) from None
        # Their own words may quote a tag. What they raise depends on what is damaged: nearly anything.
        raise DecodeError(f"damaged or truncated DICOM ({type(error).__name__})") from None


def open_dicom(stream: BinaryIO, tags: tuple[str, ...] = ()) -> Opened:
    """Read a DICOM file up to its pixels: what an image needs, and `tags` (keywords) beside.

    Raises:
        DecodeError: it unpacks to more than 256 MiB.
    """
    stream.seek(0)
    start = stream.read(144)
    # The length of the meta information is its first element (PS3.10 7.1).
    meta = stream.read(min(_MAX_META, int.from_bytes(start[140:], "little"))) if start[128:132] == b"DICM" else b""
    if DeflatedExplicitVRLittleEndian.encode() in meta:
        return _inflated(stream, len(start) + len(meta))
    stream.seek(0)
    dataset = dcmread(stream, stop_before_pixels=True, force=True, specific_tags=[*_IMAGE_TAGS, *tags])
    syntax = getattr(dataset.file_meta, "TransferSyntaxUID", None)
    if syntax is None:
        is_implicit, is_little = dataset.original_encoding
        syntax = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
        syntax = syntax if is_little else ExplicitVRBigEndian
    # Tag, type and length of the element come before its value (PS3.5 7.1).
    place = stream.tell() + (8 if syntax == ImplicitVRLittleEndian else 12)
    has_pixels = stream.read(2) in (b"\xe0\x7f", b"\x7f\xe0")
    return Opened(dataset, stream, str(syntax), max(0, stream.seek(0, os.SEEK_END) - place) if has_pixels else 0)


def _inflated(stream: BinaryIO, start: int) -> Opened:
    """Read a file that is compressed from `start` on, with its pixels, which only then can be found."""
    stream.seek(0)
    content = stream.read()
    inflating, size, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, content[start:]
    while rest and size <= _MAX_INFLATED:
        size += len(inflating.decompress(rest, 2**24))
        rest = inflating.unconsumed_tail
    if size > _MAX_INFLATED:
        raise DecodeError(f"unpacks to more than the {_MAX_INFLATED // 2**20} MiB allowed")
    dataset = dcmread(io.BytesIO(content), force=True)
    return Opened(dataset, dataset, str(DeflatedExplicitVRLittleEndian), len(dataset.get("PixelData", b"")))


def read_dicom_header(stream: BinaryIO) -> Header:
    """Size, channels and depth of the frames of a DICOM file, without decoding one.

    Raises:
        DecodeError: it is damaged, has no image, or one too large or of an unknown kind.
    """
    with refusing():
        opened = open_dicom(stream)
        dataset, kind = opened.dataset, _kind_of(opened)
        grey = kind in _GREY
        return Header(
            int(dataset.Columns),
            int(dataset.Rows),
            1 if grey else 3,
            16 if _is_deep(dataset) else 8,
            "DICOM",
            kind,
            windowed=grey,
        )


def count_frames(opened: Opened) -> int:
    """Images in a DICOM file; 1 where it claims more than its size can hold, which decoding it then tells."""
    dataset = opened.dataset
    claimed = int(dataset.get("NumberOfFrames") or 1)
    least = math.prod(int(dataset.get(tag) or 0) for tag in ("Rows", "Columns", "BitsAllocated")) // 8
    least = _FRAME_HEADER if pydicom.uid.UID(opened.syntax).is_compressed else max(1, least)
    return claimed if 1 <= claimed <= opened.stored // least else 1


def _kind_of(opened: Opened) -> str:
    """The photometric interpretation of an image that can be decoded."""
    dataset = opened.dataset
    if not opened.stored or "Rows" not in dataset:
        what = pydicom.uid.UID(dataset.get("SOPClassUID") or "").name
        raise DecodeError("a DICOM file without an image" + (f" ({what})" if what.endswith("Storage") else ""))
    width, height = int(dataset.Columns), int(dataset.Rows)
    if width * height > MAX_PIXELS:
        raise DecodeError(f"{width:,} x {height:,} pixels, more than {MAX_PIXELS // 10**6} megapixels allowed")
    if not (width and height):
        raise DecodeError(f"a DICOM image of {width} x {height} pixels")
    kind = str(dataset.get("PhotometricInterpretation", "MONOCHROME2")).strip()
    if kind not in (*_GREY, *_COLOUR, "PALETTE COLOR"):
        raise DecodeError("a DICOM image of another colour space than grey, RGB, YBR and palettes")
    claimed = int(dataset.get("NumberOfFrames") or 1)
    if claimed > 1 and count_frames(opened) == 1:
        raise DecodeError(f"damaged or truncated DICOM: it claims {claimed:,} frames in {opened.stored:,} bytes")
    if not pydicom.uid.UID(opened.syntax).is_compressed and opened.stored < _plain_size(dataset, kind):
        raise DecodeError("truncated DICOM: it ends before its last pixel")
    return kind


def _plain_size(dataset: Dataset, kind: str) -> int:
    """Bytes of the pixels of an uncompressed file."""
    numbers = ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "NumberOfFrames")
    size = -(-math.prod(int(dataset.get(number) or 1) for number in numbers) // 8)
    # Two pixels share their colour (PS3.3 C.7.6.3.1.2).
    return size * 2 // 3 if kind == "YBR_FULL_422" else size


def _is_deep(dataset: Dataset) -> bool:
    """Whether an image has more than 8 bits a channel."""
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        entries, _, bits = dataset.RedPaletteColorLookupTableDescriptor
        # 256 colours are a scale of colours on 8 bits, however finely each is mixed.
        return int(bits) > 8 and not 0 < int(entries) <= 256
    return int(dataset.get("BitsStored") or dataset.BitsAllocated) > 8


def decode_dicom(stream: BinaryIO, frame: int | None = None, window: str = AUTO) -> Pixels:
    """Decode one frame of a DICOM file of any transfer syntax that pydicom and imagecodecs read.

    Grey values take the way of PS3.4 N.2: through the modality LUT or rescale slope and intercept, then through the
    window; of several windows the first; MONOCHROME1 is inverted, and padding is black. Colours become RGB.

    Args:
        stream: the file.
        frame: counted from 1; None for the only or first one.
        window: as `SourceConfig.window`. "auto" takes the file's VOI LUT or window; without one, files of up to 8 bits
            keep their range, and deeper ones are shown between percentiles.

    Returns:
        (H, W, 1 or 3) uint8, or uint16 where more than 8 bits are stored.

    Raises:
        DecodeError: see `read_dicom_header`; or there is no such frame.
    """
    with refusing():
        opened = open_dicom(stream)
        dataset, kind = opened.dataset, _kind_of(opened)
        if not 1 <= (frame or 1) <= count_frames(opened):
            raise DecodeError(f"no frame {frame}: the file has {count_frames(opened)}")
        source: Any = opened.pixels
        options: dict[str, Any] = {} if isinstance(source, Dataset) else {"transfer_syntax_uid": opened.syntax}
        if opened.syntax in SYNTAXES:
            options["decoding_plugin"] = PLUGIN
        stored = pixel_array(source, index=(frame or 1) - 1, **options)
        white = 65535 if _is_deep(dataset) else 255
        if kind in _GREY:
            return _grey(stored, dataset, frame or 1, window, white, inverted=kind == "MONOCHROME1")[:, :, None]
        if kind == "PALETTE COLOR":
            colours = apply_color_lut(stored, dataset)
            deepest = np.iinfo(colours.dtype).max
            return to_levels(colours, Window(0, deepest), white)
        return to_levels(stored, Window(0, 2 ** int(dataset.BitsStored) - 1), white)


def _grey(
    stored: npt.NDArray[Any], dataset: Dataset, frame: int, window: str, white: int, *, inverted: bool
) -> npt.NDArray[np.unsignedinteger[Any]]:
    padding = _padding(stored, dataset)
    rescaled = macro(dataset, frame, "PixelValueTransformationSequence")
    if rescaled.get("ModalityLUTSequence"):
        values = apply_modality_lut(stored, rescaled)
        full = Window(float(values.min()), float(values.max()))
    else:
        slope, intercept = float(rescaled.get("RescaleSlope") or 1), float(rescaled.get("RescaleIntercept") or 0)
        values = stored.astype(np.float64) * slope + intercept
        ends = [end * slope + intercept for end in _stored_range(stored, dataset)]
        full = Window(min(ends), max(ends))
    looked_up = macro(dataset, frame, "FrameVOILUTSequence")
    if window == AUTO and looked_up.get("VOILUTSequence") and not np.issubdtype(stored.dtype, np.floating):
        values = apply_voi(values.astype(np.int64), looked_up)
        chosen = Window(0, 2 ** int(looked_up.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    else:
        chosen = parse_window(window) or (_own_window(looked_up) if window == AUTO else None) or full
        if window == "percentile" or (chosen is full and window == AUTO and white > 255):
            chosen = percentile_window(values[~padding] if padding is not None else values)
    levels = to_levels(values, chosen, white)
    if inverted:
        levels = white - levels
    if padding is not None:
        levels[padding] = 0
    return levels


def macro(dataset: Dataset, frame: int, sequence: str) -> Dataset:
    """Where the values stand that `sequence`, a functional group macro, has of `frame` (counted from 1): for this
    frame, for all of them, or outside of the functional groups (PS3.3 C.7.6.16)."""
    own = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    for groups in (*own[frame - 1 : frame], *(dataset.get("SharedFunctionalGroupsSequence") or ())[:1]):
        if groups.get(sequence):
            item: Dataset = groups[sequence][0]
            return item
    return dataset


def _stored_range(stored: npt.NDArray[Any], dataset: Dataset) -> tuple[float, float]:
    """The least and the greatest value that could be stored."""
    if np.issubdtype(stored.dtype, np.floating):
        return float(np.nanmin(stored)), float(np.nanmax(stored))
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    return (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0.0, 2.0**bits - 1)


def _padding(stored: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[np.bool_] | None:
    """Which pixels are no part of the image (PS3.3 C.7.5.1.1.2)."""
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends: tuple[int, ...] = (value, limit if isinstance(limit, int) else value)
    if dataset.PixelRepresentation:
        # Some files write negative values as the unsigned numbers of the same bits.
        over = 2 ** int(dataset.BitsAllocated)
        ends = tuple(end - over if end >= over // 2 else end for end in ends)
    return (stored >= min(ends)) & (stored <= max(ends))


def _own_window(dataset: Dataset) -> Window | None:
    """The file's first window; None where it has none that makes sense."""
    centre, width = (dataset.get(name) for name in ("WindowCenter", "WindowWidth"))
    try:
        centre, width = (value[0] if hasattr(value, "__len__") else value for value in (centre, width))
        return Window.of(float(centre), float(width), str(dataset.get("VOILUTFunction") or "LINEAR"))
    except (TypeError, ValueError, IndexError):
        return None
