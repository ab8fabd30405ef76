"""The contact sheet, by its pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from fewlabel.retrieval.contact_sheet import MOST_STRIPS, Strip, Tile, draw_contact_sheet

BLUE, ORANGE, PAPER = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (255, 255, 255)


def tile(colour, size=(128, 96), lines=("0.987", "some/where/name.png"), **options):
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return Tile(stream.getvalue(), lines, **options)


def pixels_of(path):
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image)


def where(pixels, colour):
    """Left, right, top and bottom of what has this colour."""
    rows, columns = np.nonzero((pixels == colour).all(axis=2))
    return columns.min(), columns.max(), rows.min(), rows.max()


def test_the_lead_is_first_and_framed_and_the_others_follow_in_order(tmp_path):
    colours = [(10, 200, 10), (200, 10, 10), (10, 10, 200)]
    strip = Strip("photo.png", tile(colours[0]), (tile(colours[1]), tile(colours[2], marked=True)))
    assert draw_contact_sheet(tmp_path / "sheet.png", [strip]) == 1
    pixels = pixels_of(tmp_path / "sheet.png")
    lead, first, second = (where(pixels, colour) for colour in colours)
    assert lead[1] < first[0] < first[1] < second[0]
    assert lead[2:] == first[2:] == second[2:]
    for box, colour in ((lead, BLUE), (second, ORANGE)):
        frame = where(pixels, colour)
        assert (frame[0] < box[0], frame[1] > box[1], frame[2] < box[2], frame[3] > box[3]) == (True,) * 4
        assert frame[1] - frame[0] < 145
    # The captions are there, below the pictures and nowhere beside their columns.
    below = pixels[lead[3] + 8 :]
    assert (below != 255).any()
    assert (below[:, first[0] : first[0] + 128] != 255).any()


def test_small_pictures_grow_by_whole_pixels(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.array([[0, 90], [180, 30]], dtype=np.uint8)).save(stream, "PNG")
    draw_contact_sheet(tmp_path / "sheet.png", [Strip("", Tile(stream.getvalue(), ()), ())])
    pixels = pixels_of(tmp_path / "sheet.png")
    for grey in (90, 180, 30):
        left, right, top, bottom = where(pixels, (grey,) * 3)
        assert (right - left, bottom - top) == (63, 63)


def test_long_and_strange_captions_stay_in_their_column(tmp_path):
    long = "a/very/long/path " * 40 + "\n<b>[red]日本 müller.png"
    strip = Strip(long, tile("red", lines=(long, long)), (tile("green", lines=("", "x")),))
    draw_contact_sheet(tmp_path / "sheet.png", [strip])
    pixels = pixels_of(tmp_path / "sheet.png")
    left, _, _, bottom = where(pixels, (0, 128, 0))
    assert (pixels[bottom + 1 :, left - 14 : left] == 255).all()


@pytest.mark.parametrize(("tiles", "lines"), [(0, 1), (10, 1), (11, 2), (40, 4), (900, 4)])
def test_a_strip_breaks_into_lines_and_has_an_end(tmp_path, tiles, lines):
    draw_contact_sheet(tmp_path / "sheet.png", [Strip("title", tile("red"), (tile("green"),) * tiles)])
    height, width, _ = pixels_of(tmp_path / "sheet.png").shape
    assert width <= 12 * 150
    assert height == 14 * 2 + 28 + lines * (128 + 2 * 16 + 14)


def test_of_too_many_strips_the_first_are_drawn(tmp_path):
    strips = [Strip(str(number), tile("red", (8, 8), ()), ()) for number in range(MOST_STRIPS + 5)]
    assert draw_contact_sheet(tmp_path / "sheet.png", strips) == MOST_STRIPS
