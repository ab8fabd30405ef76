"""Pieces of the page as HTML; everything that comes from the index or a run is escaped."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

from fewlabel.retrieval.app.collection import Query, View
from fewlabel.retrieval.index import Hit
from fewlabel.retrieval.manifest import Entry

__all__ = [
    "DROP_ZONE",
    "FOLLOW",
    "LIVE",
    "MAP",
    "PICK",
    "PICTURES",
    "SEND",
    "Card",
    "card_of_entry",
    "card_of_hit",
    "cards",
    "data_uri",
    "message",
    "name_of",
    "picture_type",
    "query_markup",
]


def _script(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


PICTURES: Final = _script("pictures.js")
"""Of whatever holds pictures."""

PICK: Final = PICTURES + _script("pick.js")
"""Of a list of pictures, or of other buttons."""

FOLLOW: Final = _script("follow.js")
SEND: Final = _script("send.js")
MAP: Final = PICK + _script("map.js")

LIVE: Final = "element.setAttribute('role', 'status'); element.setAttribute('aria-live', 'polite');"
"""Script of a line that a screen reader reads out when it changes."""

DROP_ZONE: Final = (
    '<label><input type="file" accept="image/*,.tif,.tiff"><b>Drop an image here</b>'
    "<span>or paste one, or choose it</span></label>"
)
"""For `SEND`."""

_COPIES_TOLD: Final = 3


@dataclass(frozen=True)
class Card:
    """An image of the collection, to look at and to search from."""

    key: int
    name: str
    labels: str
    split: str
    rank: int | None = None
    similarity: float | None = None
    copies: int = 0
    """Further places of the same content."""


def name_of(entry: Entry) -> str:
    """What a reader knows the image by."""
    return entry.path or entry.id


def card_of_entry(entry: Entry) -> Card:
    """An image to choose."""
    return Card(entry.key, name_of(entry), ", ".join(entry.labels), entry.split)


def card_of_hit(hit: Hit) -> Card:
    """A neighbour."""
    entry = hit.entry
    labels = ", ".join(entry.labels)
    return Card(entry.key, name_of(entry), labels, entry.split, hit.rank, hit.similarity, len(hit.copies))


def cards(items: Sequence[Card], stamp: str) -> str:
    """A list of pictures, each a button; `stamp` names the state of the index, so that no stale picture is shown."""
    return f'<ol class="cards">{"".join(_card(item, stamp) for item in items)}</ol>'


def _card(item: Card, stamp: str) -> str:
    copies = f"+{item.copies} {'copy' if item.copies == 1 else 'copies'}" if item.copies else ""
    similarity = "" if item.similarity is None else f"{item.similarity:.3f}"
    told = [
        "" if item.rank is None else f"{item.rank}.",
        similarity and f"similarity {similarity},",
        f"label {item.labels}," if item.labels else "",
        f"{item.split}," if item.split else "",
        item.name,
    ]
    lines = [
        f'<span class="rank">{item.rank}</span>' if item.rank else "",
        f'<span class="similarity">{similarity}</span>' if similarity else "",
        f'<span class="label">{escape(item.labels)}</span>' if item.labels else "",
        f'<span class="place">{escape(" · ".join(filter(None, (item.split, copies))))}</span>',
        f'<span class="name">{escape(item.name.rpartition("/")[2])}</span>',
    ]
    return (
        f'<li><button type="button" data-key="{item.key}" title="{escape(item.name)}" '
        f'aria-label="{escape(" ".join(filter(None, told)))}: search from it">'
        f'<img src="thumbnail/{item.key}?{stamp}" alt="" loading="lazy">{"".join(lines)}</button></li>'
    )


def query_markup(query: Query, view: View) -> str:
    """The image that is asked about, and what is known of it."""
    if query.key is None:
        address = data_uri(query.picture)
        lines = [f"<b>{escape(query.name)}</b>", "Your image; it is not kept."]
    else:
        address = f"picture/{query.key}?{view.stamp}"
        entries = view.entries_of(query.key)
        lines = [_place(entry) for entry in entries[:_COPIES_TOLD]]
        if len(entries) > _COPIES_TOLD:
            lines.append(f"… and {len(entries) - _COPIES_TOLD:,} more copies")
        if entries and all(entry.moved for entry in entries):
            lines.append("<em>The file has moved; this is the index's own small picture of it.</em>")
    return (
        f'<figure class="query"><img src="{address}" alt="The image that is asked about">'
        f"<figcaption>{''.join(f'<p>{line}</p>' for line in lines)}</figcaption></figure>"
    )


def picture_type(picture: bytes) -> str:
    """The media type of a PNG or JPEG."""
    return "image/png" if picture.startswith(b"\x89PNG") else "image/jpeg"


def data_uri(picture: bytes) -> str:
    """A PNG or JPEG as the address of itself."""
    return f"data:{picture_type(picture)};base64,{base64.b64encode(picture).decode('ascii')}"


def _place(entry: Entry) -> str:
    folder, _, name = name_of(entry).rpartition("/")
    about = " · ".join(filter(None, (", ".join(entry.labels), entry.split)))
    return f"<b>{escape(name)}</b> {escape(about)}<small>{escape(folder)}</small>"


def message(text: str, *, wrong: bool = False) -> str:
    """A line for the reader; `wrong` where it is one that asks for another try."""
    return f'<p class="{"wrong" if wrong else "message"}">{escape(text)}</p>'
