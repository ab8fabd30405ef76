"""One self-contained HTML page: text, tables, figures and thumbnails, with nothing fetched from anywhere."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewlabel.files import atomic_write_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot

__all__ = ["Cell", "Link", "Page", "Thumbnail", "shown"]


@dataclass(frozen=True)
class Link:
    """Text that leads elsewhere when the reader asks for it."""

    text: str
    address: str
    """Relative, or with http, https or file in front."""


Cell = str | int | float | Mapping[str, float] | Link | None
"""Text, a number, a figure with its interval ("mean", "low", "high"), a link, or nothing."""

_SMALLEST: Final = 96
_LARGEST: Final = 192
"""Pixels that the longer side of a thumbnail lies between."""


@dataclass(frozen=True)
class Thumbnail:
    """A small image with a few words below it."""

    pixels: NDArray[Any]
    """(C, H, W) uint8 or uint16, of 1 or 3 channels."""
    lines: Sequence[str]
    """The caption; the first line stands out."""


def shown(value: Cell, *, signed: bool = False) -> str:
    """A cell of a table as text: three decimals, "0.931 (0.902 to 0.955)" with an interval, "1,000" for a count.

    `signed` puts a plus before fractions above 0, as a difference has it.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Link):
        return value.text
    if isinstance(value, int):
        return f"{value:,}"
    form = "+.3f" if signed else ".3f"
    if isinstance(value, float):
        return format(value, form)
    return f"{value['mean']:{form}} ({value['low']:{form}} to {value['high']:{form}})"


class Page:
    """An HTML page being put together from top to bottom, then written.

    Everything given is text and gets escaped. The page needs no network, and no script unless it has plots, which bring
    theirs: its style is inside, and its pictures are data URIs; it forbids its reader's browser anything else. It
    follows the reader's light or dark setting, and prints.

    Args:
        title: of the page.
        subtitle: a line below it.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self._title, self._subtitle = title, subtitle
        self._sections: dict[str, str] = {}
        self._parts: list[str] = []
        self._plots = 0

    def section(self, title: str) -> None:
        """Begin a section, which the contents list."""
        plain = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        anchor, number = plain, 1
        while anchor in self._sections:
            number += 1
            anchor = f"{plain}-{number}"
        self._sections[anchor] = title
        self._parts.append(f'<h2 id="{anchor}">{escape(title)}</h2>')

    def heading(self, title: str) -> None:
        """A heading within a section."""
        self._parts.append(f"<h3>{escape(title)}</h3>")

    def paragraph(self, text: str, *, lead: bool = False) -> None:
        """A paragraph; a `lead` is what the reader came for, and set larger."""
        mark = ' class="lead"' if lead else ""
        self._parts.append(f"<p{mark}>{escape(text)}</p>")

    def listing(self, items: Sequence[str | Link]) -> None:
        """A bulleted list."""
        self._parts.append(f"<ul>{''.join(f'<li>{_cell(item, False)}</li>' for item in items)}</ul>")

    def definitions(self, terms: Mapping[str, str]) -> None:
        """A two-column table of names and what they stand for; line breaks are kept."""
        rows = "".join(
            f'<tr><th scope="row">{escape(name)}</th><td>{escape(text)}</td></tr>' for name, text in terms.items()
        )
        self._parts.append(f'<div class="wide"><table class="definitions"><tbody>{rows}</tbody></table></div>')

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str, signed: bool = False) -> None:
        """A table; columns of numbers are aligned to the right.

        Args:
            columns: their names.
            rows: of as many cells as there are columns.
            caption: what the table shows.
            signed: whether fractions are differences, and get their sign.

        Raises:
            ValueError: a row has more or fewer cells.
        """
        if any(len(row) != len(columns) for row in rows):
            raise ValueError(f"expected {len(columns)} cells in each row of the table {caption!r}")
        texts = [
            all(row[place] is None or isinstance(row[place], str | Link) for row in rows)
            for place in range(len(columns))
        ]
        marks = ["" if text else ' class="number"' for text in texts]
        head = "".join(f'<th scope="col"{mark}>{escape(name)}</th>' for name, mark in zip(columns, marks, strict=True))
        cells = [
            "".join(f"<td{mark}>{_cell(value, signed)}</td>" for value, mark in zip(row, marks, strict=True))
            for row in rows
        ]
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        self._parts.append(
            f'<div class="wide"><table><caption>{escape(caption)}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def figure(self, picture: Path, caption: str, alternative: str) -> None:
        """A PNG file in the size of its own dots an inch; `alternative` tells who can't see it what it shows."""
        self._parts.append(_figure(picture.read_bytes(), caption, alternative))

    def gallery(self, pictures: Sequence[tuple[bytes, str, str]]) -> None:
        """Figures side by side where there is room: each a PNG, its caption, and what it shows in words."""
        self._parts.append(f'<div class="gallery">{"".join(_figure(*picture) for picture in pictures)}</div>')

    def plot(self, figure: "Plot", caption: str, height: int = 420) -> None:
        """A plotly figure that answers the pointer, as wide as the page and `height` pixels high."""
        self._plots += 1
        markup = figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            default_height=f"{height}px",
            div_id=f"plot-{self._plots}",
            config={"displaylogo": False, "responsive": True},
        )
        self._parts.append(
            f'<figure><div class="plot">{markup}</div><figcaption>{escape(caption)}</figcaption></figure>'
        )

    def thumbnails(self, images: Sequence[Thumbnail]) -> None:
        """A grid of small images with their captions."""
        figures = []
        for image in images:
            first, *rest = (escape(line) for line in image.lines)
            lines = "".join(f"<span>{line}</span>" for line in rest)
            alternative = escape(" · ".join(image.lines))
            figures.append(
                f'<figure><img src="{_data_uri(_thumbnail_png(image.pixels))}" alt="{alternative}">'
                f"<figcaption><strong>{first}</strong>{lines}</figcaption></figure>"
            )
        self._parts.append(f'<div class="thumbnails">{"".join(figures)}</div>')

    def html(self) -> str:
        """The whole page."""
        links = "".join(f'<li><a href="#{anchor}">{escape(name)}</a></li>' for anchor, name in self._sections.items())
        subtitle = f'<p class="subtitle">{escape(self._subtitle)}</p>' if self._subtitle else ""
        contents = f'<nav aria-label="Contents"><ul>{links}</ul></nav>' if links else ""
        script = policy = ""
        if self._plots:
            from plotly.offline import get_plotlyjs

            script, policy = f"<script>{get_plotlyjs()}</script>\n", "; script-src 'unsafe-inline'"
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta http-equiv="Content-Security-Policy" '
            f"content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'{policy}\">\n"
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self._title)}</title>\n<style>{_STYLE}</style>\n{script}</head>\n<body>\n<main>\n"
            f"<header><h1>{escape(self._title)}</h1>{subtitle}</header>\n{contents}\n"
            + "\n".join(self._parts)
            + "\n</main>\n</body>\n</html>\n"
        )

    def write(self, path: Path) -> Path:
        """Write the page to `path` atomically, and return it."""
        atomic_write_text(path, self.html())
        return path


def _cell(value: Cell, signed: bool) -> str:
    """A narrow column may break a figure before its interval, and nowhere else."""
    text = escape(shown(value, signed=signed))
    if isinstance(value, Link):
        return f'<a href="{escape(value.address)}">{text}</a>'
    if isinstance(value, Mapping):
        mean, _, limits = text.partition(" ")
        return f"{mean} <small>{limits}</small>"
    return text


def _figure(png: bytes, caption: str, alternative: str) -> str:
    with Image.open(io.BytesIO(png)) as opened:
        width = round(opened.width * 96 / float(opened.info.get("dpi", (96, 96))[0]))
    return (
        f'<figure><img src="{_data_uri(png)}" width="{width}" alt="{escape(alternative)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _thumbnail_png(pixels: NDArray[Any]) -> bytes:
    """`pixels` (C, H, W) as a PNG; 16 bits are spread from the darkest to the brightest, for few images use all."""
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"expected (1 or 3, H, W) uint8 or uint16, not {pixels.shape} {pixels.dtype}")
    if pixels.dtype == np.uint16:
        low, high = int(pixels.min()), int(pixels.max())
        pixels = ((pixels.astype(np.float64) - low) * 255 / max(high - low, 1)).round().astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)))
    times = -(-_SMALLEST // max(picture.size))
    if times > 1:
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    else:
        picture.thumbnail((_LARGEST, _LARGEST))
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


_STYLE: Final = """
:root { color-scheme: light dark; --text: #1c1e21; --soft: #5c636b; --line: #d5d9dd; --back: #ffffff; --shade: #f4f6f8;
  --link: #0b5394; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e6e8; --soft: #a2a9b1; --line: #3b4148; --back: #16181b;
  --shade: #202429; --link: #8ab8e6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 16px/1.55 system-ui, "Segoe UI", Helvetica, Arial,
  sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; margin: 3rem 0 .8rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 2rem 0 .6rem; }
p, li { max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--link); }
.subtitle { color: var(--soft); margin: .3rem 0 0; }
.lead { font-size: 1.2rem; line-height: 1.45; }
nav ul { list-style: none; padding: 0; margin: 1.5rem 0 0; display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; }
.wide { overflow-x: auto; margin: 1rem 0 1.6rem; }
table { border-collapse: collapse; font-size: .875rem; line-height: 1.4; }
caption { text-align: left; padding-bottom: .4rem; color: var(--soft); }
th, td { padding: .35rem 1.2rem .35rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; }
.number { padding-left: .6rem; padding-right: .6rem; text-align: right; font-variant-numeric: tabular-nums; }
td small { color: var(--soft); white-space: nowrap; font-size: .86em; }
th:first-child, td:first-child { padding-left: 0; }
td:first-child:not(.number), td:last-child:not(.number) { min-width: 8.5rem; }
.number + :not(.number) { padding-left: 1rem; }
.definitions th { white-space: nowrap; padding-right: 1.5rem; }
.definitions td { white-space: pre-wrap; overflow-wrap: anywhere; }
figure { margin: 1.2rem 0 1.8rem; }
figure > img { max-width: 100%; height: auto; background: #ffffff; border-radius: 4px; }
figcaption { color: var(--soft); font-size: .875rem; max-width: 46rem; margin-top: .4rem; }
.plot { background: #ffffff; border-radius: 4px; overflow: hidden; }
.gallery { display: flex; flex-wrap: wrap; gap: 0 2rem; }
.thumbnails { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 1.2rem 1rem; }
.thumbnails figure { margin: 0; }
.thumbnails img { max-width: 9rem; max-height: 9rem; outline: 1px solid var(--line); }
.thumbnails figcaption { font-size: .8rem; line-height: 1.35; }
.thumbnails strong, .thumbnails span { display: block; overflow-wrap: anywhere; }
.thumbnails strong { color: var(--text); }
@media print { :root { color-scheme: light; --text: #000000; --soft: #444444; --line: #bbbbbb; --back: #ffffff; }
  body { font-size: 10pt; } main { max-width: none; padding: 0; } nav { display: none; } .wide { overflow: visible; }
  h2, h3, caption { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""
