"""A picture of rows of small images with captions: queries with their neighbours, or groups of duplicates."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageDraw

from fewlabel.files import atomic_path
from fewlabel.retrieval.thumbnails import SIDE

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

__all__ = ["MOST_STRIPS", "Strip", "Tile", "draw_contact_sheet"]

MOST_STRIPS: Final = 60
"""Strips of one sheet: more make a picture that few programs open."""

_MOST_TILES: Final = 40
_COLUMNS: Final = 10

_INK, _SOFT, _PAPER, _LEAD, _MARK = "#1c1e21", "#5c636b", "#ffffff", "#0072B2", "#D55E00"
_GAP: Final = 14
_LINE: Final = 16
_TEXT: Final = 12
_TITLE: Final = 15
_TITLE_HEIGHT: Final = 28


@dataclass(frozen=True)
class Tile:
    """A small image with a few words below it."""

    picture: bytes
    """Encoded, its longest side at most `SIDE` pixels."""
    lines: tuple[str, ...]
    """The caption; the first line stands out, and what doesn't fit in a line loses its middle."""
    marked: bool = False
    """Framed, as something that deserves a look."""


@dataclass(frozen=True)
class Strip:
    """An image and those that belong to it."""

    title: str
    lead: Tile
    """In the first column, framed."""
    tiles: tuple[Tile, ...]


def draw_contact_sheet(path: Path, strips: Sequence[Strip]) -> int:
    """Write a PNG with one strip below the other, each with its title, its lead and its tiles to the right of that.

    A strip breaks into lines of 10 tiles and shows the first 40.

    Args:
        path: of the PNG, written atomically.
        strips: one at least; the first 60 are drawn.

    Returns:
        How many were drawn.

    Raises:
        UserError: the file can't be written.
    """
    drawn = strips[:MOST_STRIPS]
    columns = min(_COLUMNS, max(len(strip.tiles) for strip in drawn))
    captions = max(len(tile.lines) for strip in drawn for tile in (strip.lead, *strip.tiles))
    sheet = _Sheet(SIDE + _GAP, SIDE + captions * _LINE + _GAP)
    heights = [_TITLE_HEIGHT + max(1, -(-len(strip.tiles[:_MOST_TILES]) // _COLUMNS)) * sheet.row for strip in drawn]
    size = (2 * _GAP + _GAP + (1 + columns) * sheet.column, 2 * _GAP + sum(heights))
    sheet.begin(size)
    top = _GAP
    for strip, height in zip(drawn, heights, strict=True):
        sheet.title(strip.title, top, more=len(strip.tiles) - _MOST_TILES)
        top += _TITLE_HEIGHT
        sheet.tile(strip.lead, _GAP, top, _LEAD)
        for place, tile in enumerate(strip.tiles[:_MOST_TILES]):
            left = 2 * _GAP + (1 + place % _COLUMNS) * sheet.column
            sheet.tile(tile, left, top + place // _COLUMNS * sheet.row, _MARK if tile.marked else None)
        top += height - _TITLE_HEIGHT
    with atomic_path(path) as temporary:
        sheet.image.save(temporary, "PNG", optimize=True)
    return len(drawn)


class _Sheet:
    """The picture being drawn; `column` and `row` are the pixels from one tile to the next."""

    def __init__(self, column: int, row: int) -> None:
        self.column, self.row = column, row
        self._bold, self._plain, self._large = _font(_TEXT, bold=True), _font(_TEXT), _font(_TITLE, bold=True)

    def begin(self, size: tuple[int, int]) -> None:
        self.image = Image.new("RGB", size, _PAPER)
        self._draw = ImageDraw.Draw(self.image)

    def title(self, text: str, top: int, more: int) -> None:
        text += f" ({more} more not shown)" if more > 0 else ""
        text = _shortened(text, self._large, self.image.width - 2 * _GAP)
        self._draw.text((_GAP, top), text, _INK, self._large)

    def tile(self, tile: Tile, left: int, top: int, frame: str | None) -> None:
        with Image.open(io.BytesIO(tile.picture)) as opened:
            picture = opened.convert("RGB")
        times = max(1, SIDE // max(picture.size))
        if times > 1:
            # Whole multiples: the pixels of a small image stay as they are.
            picture = picture.resize((times * picture.width, times * picture.height), Image.Resampling.NEAREST)
        at = (left + (SIDE - picture.width) // 2, top + (SIDE - picture.height) // 2)
        self.image.paste(picture, at)
        if frame is not None:
            box = (at[0] - 4, at[1] - 4, at[0] + picture.width + 3, at[1] + picture.height + 3)
            self._draw.rectangle(box, outline=frame, width=3)
        for number, line in enumerate(tile.lines):
            font = self._plain if number else self._bold
            position = (left, top + SIDE + 5 + number * _LINE)
            self._draw.text(position, _shortened(line, font, SIDE), _SOFT if number else _INK, font)


def _font(size: int, *, bold: bool = False) -> "FreeTypeFont":
    # Pillow's own knows Latin alone; matplotlib brings DejaVu, with most alphabets.
    import matplotlib
    from PIL import ImageFont

    fonts = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return ImageFont.truetype(str(fonts / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")), size)


def _shortened(text: str, font: "FreeTypeFont", width: int) -> str:
    """`text` on one line and not wider than `width` pixels: a path is told by its ends."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    kept = min(len(text) - 1, width // 2)
    while kept and font.getlength(_without_middle(text, kept)) > width:
        kept -= 1
    return _without_middle(text, kept)


def _without_middle(text: str, kept: int) -> str:
    return f"{text[: kept // 3]}…{text[len(text) - (kept - kept // 3) :]}"
