"""Files of every format and kind, decoded and compared with what was put in or with Pillow's own way."""

import io
import struct
import threading
import zlib
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageOps

from fewlabel.data.decode import DecodeError, decode, read_header
from fewlabel.data.resize import resize

Encode = Callable[..., bytes]

COLOUR = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
GREY = COLOUR[:, :, 0]
DEEP = np.random.default_rng(1).integers(0, 65536, (40, 30), dtype=np.uint16)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def raw_png(width: int, height: int, depth: int, colour_type: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("TIFF", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
@pytest.mark.parametrize("pixels", [COLOUR, GREY], ids=["colour", "grey"])
def test_lossless_formats_give_back_what_went_in(
    encode: Encode, format: str, options: dict[str, bool], pixels: np.ndarray
) -> None:
    decoded = decode(encode(pixels, format, **options))
    # WebP has no greyscale: it comes back as equal channels.
    expected = np.broadcast_to(pixels.reshape(40, 30, -1), decoded.shape)
    assert decoded.dtype == np.uint8
    assert decoded.shape[2] == (3 if pixels.ndim == 3 or format == "WEBP" else 1)
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("pixels", [COLOUR, GREY], ids=["colour", "grey"])
def test_jpeg_equals_pillow(encode: Encode, pixels: np.ndarray) -> None:
    encoded = encode(pixels, "JPEG", quality=90)
    expected = np.asarray(Image.open(io.BytesIO(encoded))).reshape(40, 30, -1)
    np.testing.assert_array_equal(decode(encoded), expected)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_depth(encode: Encode, format: str) -> None:
    decoded = decode(encode(DEEP, format))
    assert decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded[:, :, 0], DEEP)
    header = read_header(io.BytesIO(encode(DEEP, format)))
    assert (header.channels, header.bits) == (1, 16)


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_16_bit_colour_and_alpha_png_keeps_its_depth(colour_type: int, channels: int) -> None:
    pixels = np.random.default_rng(2).integers(0, 65536, (6, 5, channels), dtype=np.uint16)
    content = [row.astype(">u2").tobytes() for row in pixels]
    # The first row as it is, the others as differences from the row above (filter type 2).
    filtered = [b"\0" + content[0]] + [
        b"\2" + bytes((a - b) % 256 for a, b in zip(row, above, strict=True)) for above, row in pairwise(content)
    ]
    encoded = raw_png(5, 6, 16, colour_type, b"".join(filtered))
    decoded = decode(encoded)
    expected = pixels.astype(np.float64)
    if channels in (2, 4):
        expected = expected[:, :, :-1] * expected[:, :, -1:] / 65535
    assert decoded.dtype == np.uint16
    np.testing.assert_allclose(decoded, expected, atol=0.5)
    assert read_header(io.BytesIO(encoded))[2:4] == (3 - 2 * (channels == 2), 16)


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_colour_tiff_keeps_its_depth(order: str) -> None:
    pixels = np.random.default_rng(3).integers(0, 65536, (4, 5, 3), dtype=np.uint16)
    # Tags 256, 257: size; 258: bits; 259: uncompressed; 262: RGB; 273-279: one strip; TIFF 6.0, section 6.
    tags = [(256, 5), (257, 4), (258, None), (259, 1), (262, 2), (273, 256), (277, 3), (278, 4), (279, 120)]
    entries = b"".join(
        struct.pack(order + "HHIHH", tag, 3, 1, value, 0)
        if value is not None
        else struct.pack(order + "HHII", tag, 3, 3, 200)
        for tag, value in tags
    )
    directory = struct.pack(order + "H", len(tags)) + entries + struct.pack(order + "I", 0)
    magic = b"II" if order == "<" else b"MM"
    head = magic + struct.pack(order + "HI", 42, 8) + directory
    depths = struct.pack(order + "HHH", 16, 16, 16)
    encoded = (head.ljust(200, b"\0") + depths).ljust(256, b"\0") + pixels.astype(order + "u2").tobytes()
    decoded = decode(encoded)
    assert decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded, pixels)
    assert read_header(io.BytesIO(encoded))[:4] == (5, 4, 3, 16)


def test_one_bit_is_black_and_white(encode: Encode) -> None:
    bits = GREY > 127
    decoded = decode(encode(Image.fromarray(bits)))
    np.testing.assert_array_equal(decoded[:, :, 0], np.where(bits, 255, 0))


def test_palette_with_transparency_becomes_black_there(encode: Encode) -> None:
    image = Image.new("P", (4, 2), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((0, 0), 0)
    decoded = decode(encode(image, transparency=0))
    assert decoded.shape == (2, 4, 3)
    assert decoded[0, 0].tolist() == [0, 0, 0]
    assert decoded[1, 3].tolist() == [200, 100, 50]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_half_transparent_is_half_as_bright(encode: Encode, mode: str) -> None:
    image = Image.new(mode, (3, 3), (200,) * (len(mode) - 1) + (128,))
    assert decode(encode(image)).tolist() == [[[100] * (len(mode) - 1)] * 3] * 3


def test_cmyk_jpeg_becomes_rgb(encode: Encode) -> None:
    red = Image.new("RGB", (16, 16), (220, 30, 40)).convert("CMYK")
    decoded = decode(encode(red, "JPEG", quality=95))
    assert decoded.shape == (16, 16, 3)
    np.testing.assert_allclose(decoded[8, 8], [220, 30, 40], atol=4)


def test_animation_gives_its_first_frame(encode: Encode) -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "green", "blue")]
    decoded = decode(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert decoded.shape == (4, 5, 3)
    assert decoded[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(encode: Encode, format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = encode(COLOUR, format, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))))
    np.testing.assert_array_equal(decode(encoded), expected)


def test_large_jpeg_is_decoded_smaller_but_not_too_small(encode: Encode) -> None:
    ramp = np.linspace(0, 255, 400).astype(np.uint8)[:, None, None] * np.ones((1, 300, 3), np.uint8)
    encoded = encode(ramp, "JPEG", quality=95)
    assert decode(encoded).shape == (400, 300, 3)
    assert decode(encoded, 150).shape == (200, 150, 3)
    assert decode(encoded, 151).shape == (400, 300, 3)
    assert decode(encoded, 30).shape == (50, 38, 3)
    whole, quick = (resize(decode(encoded, side), 32, 32).astype(int) for side in (None, 32))
    assert np.abs(whole - quick).max() <= 6


def test_resize_equals_pillow_at_8_bits_and_keeps_16() -> None:
    small = Image.fromarray(COLOUR).resize((11, 13), Image.Resampling.BILINEAR)
    resized = resize(COLOUR, 13, 11)
    assert resized.dtype == np.uint8
    assert np.abs(resized.astype(int) - np.asarray(small)).max() <= 1
    deep = resize(COLOUR.astype(np.uint16) * 257, 13, 11)
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - resized).max() <= 1


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("side", [None, 4])
def test_truncated_files_are_refused(encode: Encode, format: str, side: int | None) -> None:
    encoded = encode(COLOUR, format)
    with pytest.raises(DecodeError, match=r"truncated|unreadable|format"):
        decode(encoded[: len(encoded) // 2], side)


@pytest.mark.parametrize("content", [b"", b"this is a text\n", b"\xff\xd8\xff" + b"\0" * 100])
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(DecodeError, match=r"not an image|unreadable"):
        decode(content)


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (10_001, 10_000)])
def test_decompression_bombs_are_refused_from_their_header(width: int, height: int) -> None:
    row = b"\0" * (1 + -(-width // 8))
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", b"")
    assert len(bomb) < 1_000_000
    for attempt in (lambda: decode(bomb), lambda: read_header(io.BytesIO(bomb))):
        with pytest.raises(DecodeError, match="100 megapixels"):
            attempt()


def test_32_bit_images_are_refused(encode: Encode) -> None:
    with pytest.raises(DecodeError, match="32-bit"):
        decode(encode(GREY.astype(np.float32), "TIFF"))


def test_decoding_is_the_same_in_many_threads(encode: Encode) -> None:
    encoded = encode(COLOUR, "JPEG")
    expected, results = decode(encoded), []
    threads = [threading.Thread(target=lambda: results.append(decode(encoded))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(np.array_equal(result, expected) for result in results)
