"""NIfTI volumes: their slices as images."""

import gzip
import io
import logging
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from fewlabel.data.decode import MAX_PIXELS, DecodeError, Header, Pixels
from fewlabel.data.window import AUTO, Window, parse_window, percentile_window, to_levels

__all__ = ["count_slices", "decode_slice", "read_slice_header", "slice_spacing"]

_MAX_UNPACKED: Final = 2**31
"""Bytes of a gzipped volume; it has to be unpacked as a whole."""

_MOST_PACKED: Final = 1032
"""Times that gzip can make anything smaller."""

_SAMPLED_SLICES: Final = 16
"""Of a volume, spread evenly, that percentiles are taken over."""

_HEADER: Final = 1024

_TOWARDS: Final = {"R": "L", "A": "P", "S": "I"}
"""How a picture is turned, as radiologists look at it: its right is the patient's left, and its lower end their back or
feet."""

# Told for each slice anew, of headers that are read all the same.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"nibabel\b")


class _Volume(NamedTuple):
    shape: tuple[int, ...]
    """In three dimensions or more."""
    values: Any
    """What gives the values as stored, when indexed."""
    slope: float
    intercept: float
    own: tuple[float, float]
    """The range that the file wants shown; two equal numbers where it has none."""
    affine: npt.NDArray[np.float64]
    zooms: tuple[float, ...]


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        import nibabel  # noqa: F401
    except ImportError:
        raise DecodeError("NIfTI files need the package nibabel: pip install 'fewlabel[nifti]'") from None
    try:
        yield
    except (DecodeError, MemoryError):
        raise
    except Exception as error:
        raise DecodeError(f"damaged or truncated NIfTI ({type(error).__name__})") from None


def read_slice_header(stream: BinaryIO) -> Header:
    """Size, channels and depth of the slices of a NIfTI file.

    Raises:
        DecodeError: it is damaged or too large, or nibabel is not installed.
    """
    with _refusing():
        volume = _open(stream)
        height, width = _turned(volume, np.empty(volume.shape[:2], np.uint8)).shape
        return Header(width, height, _channels(volume), 16 if _is_deep(volume) else 8, "NIFTI", windowed=True)


def count_slices(stream: BinaryIO) -> int:
    """Slices of a NIfTI file, of all its time points.

    Raises:
        DecodeError: as `read_slice_header`.
    """
    with _refusing():
        return math.prod(_open(stream).shape[2:])


def slice_spacing(stream: BinaryIO) -> tuple[float, float] | None:
    """Distance of the pixels' centres in mm, down and across a slice; None where the file does not say.

    Raises:
        DecodeError: as `read_slice_header`.
    """
    with _refusing():
        volume = _open(stream)
        first, second = (float(zoom) for zoom in volume.zooms[:2])
        if not (first > 0 and second > 0):
            return None
        return (first, second) if _is_upright(volume) else (second, first)


def decode_slice(stream: BinaryIO, frame: int | None = None, window: str = AUTO) -> Pixels:
    """Decode one slice of a NIfTI file: across the third axis, which for most scanners goes through the body.

    It is turned as radiologists look at it: the picture's right is the patient's left, and down is towards back or
    feet.

    Args:
        stream: the file, gzipped or not.
        frame: counted from 1, slices first and then time points; None for the first.
        window: as `SourceConfig.window`. "auto" takes the range that the file wants shown (cal_min, cal_max); without
            one, unscaled 8-bit volumes keep theirs, and others are shown between percentiles of at most 16 slices.

    Returns:
        (H, W, 1 or 3) uint8, or uint16 where a value has more than 8 bits.

    Raises:
        DecodeError: as `read_slice_header`; or there is no such slice.
    """
    with _refusing():
        volume = _open(stream)
        count = math.prod(volume.shape[2:])
        if not 1 <= (frame or 1) <= count:
            raise DecodeError(f"no slice {frame}: the volume has {count}")
        stored = _slice(volume, (frame or 1) - 1)
        if _channels(volume) == 3:
            return np.stack([_turned(volume, stored[name]) for name in ("R", "G", "B")], axis=2)
        values = _turned(volume, stored * volume.slope + volume.intercept)
        return to_levels(values, _window(volume, window, stream), 65535 if _is_deep(volume) else 255)[:, :, None]


def _open(stream: BinaryIO) -> _Volume:
    stream.seek(0)
    if stream.read(2) != b"\x1f\x8b":
        stream.seek(0, os.SEEK_END)
        return _volume(stream, stream.tell())
    name = getattr(stream, "name", None)
    if isinstance(name, str) and Path(name).is_file():
        status = os.fstat(stream.fileno())
        return _unpacked_file(name, status.st_size, status.st_mtime_ns)
    return _unpacked(stream)


@lru_cache(maxsize=2)
def _unpacked_file(path: str, size: int, modified: int) -> _Volume:
    with Path(path).open("rb") as stream:
        return _unpacked(stream)


def _unpacked(stream: BinaryIO) -> _Volume:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    packed = gzip.GzipFile(fileobj=stream)
    start = io.BytesIO(packed.read(_HEADER))
    needed = _needed(start)
    if needed > _MAX_UNPACKED:
        raise DecodeError("a gzipped volume of more than the 2 GiB allowed: unpack it")
    if needed > size * _MOST_PACKED:
        raise DecodeError(f"damaged or truncated NIfTI: it claims {needed:,} bytes")
    packed.seek(0)
    return _volume(io.BytesIO(packed.read(needed)), needed)


def _needed(stream: BinaryIO) -> int:
    """Bytes of a volume, unpacked, from its header."""
    header = _header(stream)
    values = math.prod(map(int, header.get_data_shape()))
    return int(header.get_data_offset()) + values * int(header.get_data_dtype().itemsize)


def _header(stream: BinaryIO) -> Any:
    import nibabel

    stream.seek(0)
    start = stream.read(8)
    stream.seek(0)
    kind = nibabel.Nifti2Header if b"n+2" in start else nibabel.Nifti1Header
    return kind.from_fileobj(stream)


def _volume(stream: BinaryIO, size: int) -> _Volume:
    from nibabel.arrayproxy import ArrayProxy

    header = _header(stream)
    shape = tuple(map(int, header.get_data_shape()))
    shape += (1,) * (3 - len(shape))
    if min(shape) < 1 or shape[0] * shape[1] > MAX_PIXELS:
        raise DecodeError(
            f"slices of {shape[0]:,} x {shape[1]:,} pixels; up to {MAX_PIXELS // 10**6} megapixels allowed"
        )
    if _needed(stream) > size:
        raise DecodeError("damaged or truncated NIfTI: it ends before its last slice")
    dtype, offset = header.get_data_dtype(), int(header.get_data_offset())
    slope, intercept = header.get_slope_inter()
    return _Volume(
        shape,
        ArrayProxy(stream, (shape, dtype, offset, 1.0, 0.0), mmap=False),
        1.0 if slope is None else float(slope),
        0.0 if intercept is None else float(intercept),
        (float(header["cal_min"]), float(header["cal_max"])),
        np.asarray(header.get_best_affine(), dtype=np.float64),
        tuple(header.get_zooms()) + (1.0,) * (3 - len(shape)),
    )


def _slice(volume: _Volume, number: int) -> npt.NDArray[Any]:
    place = np.unravel_index(number, volume.shape[2:], order="F")
    return np.asarray(volume.values[(slice(None), slice(None), *map(int, place))])


def _channels(volume: _Volume) -> int:
    dtype = volume.values.dtype
    if dtype.names is not None and dtype.names[:3] == ("R", "G", "B"):
        return 3
    if dtype.kind not in "iuf":
        raise DecodeError("a NIfTI volume of other values than numbers and RGB")
    return 1


def _is_deep(volume: _Volume) -> bool:
    return bool(_channels(volume) == 1 and volume.values.dtype.itemsize > 1)


def _window(volume: _Volume, window: str, stream: BinaryIO) -> Window:
    chosen = parse_window(window)
    if chosen is not None:
        return chosen
    dtype = volume.values.dtype
    if window == AUTO and volume.own[1] > volume.own[0]:
        return Window(*volume.own)
    if dtype.kind in "iu" and (window == "full" or (window == AUTO and not _is_deep(volume))):
        ends = [end * volume.slope + volume.intercept for end in (np.iinfo(dtype).min, np.iinfo(dtype).max)]
        return Window(min(ends), max(ends))
    name = getattr(stream, "name", None)
    if isinstance(name, str) and Path(name).is_file():
        status = os.fstat(stream.fileno())
        return _window_of_file(name, status.st_size, status.st_mtime_ns, window == "full")
    return _spread(volume, window == "full")


@lru_cache(maxsize=64)
def _window_of_file(path: str, size: int, modified: int, whole: bool) -> Window:
    with Path(path).open("rb") as stream:
        return _spread(_open(stream), whole)


def _spread(volume: _Volume, whole: bool) -> Window:
    """The window between the percentiles of a volume, or between its ends where `whole`: of at most 16 slices."""
    count = math.prod(volume.shape[2:])
    numbers = np.unique(np.linspace(0, count - 1, min(count, _SAMPLED_SLICES)).astype(int))
    sample = np.stack([_slice(volume, int(number)) for number in numbers]) * volume.slope + volume.intercept
    finite = sample[np.isfinite(sample)]
    if whole and finite.size:
        return Window(float(finite.min()), float(finite.max()))
    return percentile_window(finite)


def _is_upright(volume: _Volume) -> bool:
    """Whether the first axis goes down the picture: through head and feet, or through front and back of a cut across
    the body."""
    first, second, *_ = _codes(volume)
    return first in "SI" or (first in "AP" and second not in "SI")


def _codes(volume: _Volume) -> tuple[str, ...]:
    """Which way each axis goes, as "RAS"; the patient's own sides where the file does not say."""
    from nibabel.orientations import aff2axcodes

    return tuple(code or usual for code, usual in zip(aff2axcodes(volume.affine), "RAS", strict=True))


def _turned(volume: _Volume, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`pixels` (first axis, second axis) as a picture (H, W)."""
    first, second, *_ = _codes(volume)
    if first in _TOWARDS:
        pixels = pixels[::-1]
    if second in _TOWARDS:
        pixels = pixels[:, ::-1]
    return pixels if _is_upright(volume) else pixels.T
