"""The map tab: the embeddings on a plane, and the query's place among them."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from html import escape
from typing import Any, Final

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from fewlabel.errors import UserError
from fewlabel.retrieval.app.collection import Collection, View
from fewlabel.retrieval.app.markup import LIVE, MAP, PICK, card_of_hit, cards, message, name_of, query_markup
from fewlabel.retrieval.app.search_tab import SearchTab, Shown
from fewlabel.retrieval.embedding_map import EmbeddingMap
from fewlabel.retrieval.manifest import Entry

__all__ = ["MapTab"]

_SIDE: Final = 1000
_MARGIN: Final = 30
"""Of the drawing, in its own units."""

# Colours of Okabe and Ito (as in Wong 2011, Nature Methods 8:441) first, then of Tol's muted scheme.
_COLOURS: Final = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#882255",
    "#999933",
    "#332288",
    "#44AA99",
    "#AA4499",
    "#6E4B1F",
)
_OTHER: Final = "#8a9099"

_BESIDE: Final = 6
"""Neighbours that stand beside the map."""


class MapTab:
    """The tab's components and what they do; to be made inside `tab`, after the search tab."""

    def __init__(self, tab: gr.Tab, search: SearchTab, collection: Collection) -> None:
        self._collection = collection
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                status = gr.HTML(elem_id="map-status", js_on_load=LIVE)
                drawing = gr.HTML(elem_id="map", js_on_load=MAP)
            with gr.Column(scale=1, min_width=240):
                aside = gr.HTML(elem_id="map-aside", js_on_load=PICK)
        shown: dict[str, Any] = {
            "fn": self._draw,
            "inputs": search.shown,
            "outputs": [status, drawing, aside],
            # Of several questions in a row the last is drawn; by default it would be the first.
            "trigger_mode": "always_last",
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        tab.select(concurrency_id="map", concurrency_limit=4, **shown)
        for chooser in (drawing, aside):
            chooser.pick(
                search.search_key,
                search.filters,
                search.answer,
                trigger_mode="always_last",
                show_progress="hidden",
                api_visibility="private",
            ).then(**shown)

    def _draw(self, shown: Shown) -> Iterator[tuple[Any, Any, Any]]:
        start = time.monotonic()
        try:
            view = self._collection.view()
            while not view.map().done():
                passed = f"{time.monotonic() - start:.0f} s so far"
                doing = f"Laying out the map, once: {passed}. The search works meanwhile."
                yield message(doing), gr.skip(), gr.skip()
                wait([view.map()], timeout=1)
            mapped = view.map().result()
        except UserError as error:
            yield message(str(error), wrong=True), "", ""
            return
        aside = message("Choose a dot to search from its image; with the keyboard, by the arrows and Enter.")
        if shown.query is not None:
            neighbours = cards([card_of_hit(hit) for hit in shown.hits[:_BESIDE]], view.stamp)
            aside = query_markup(shown.query, view) + neighbours
        yield message(_told(mapped, len(view.index))), _drawing(mapped, view, shown), aside


def _told(mapped: EmbeddingMap, images: int) -> str:
    all_of = f"All {images:,} images" if len(mapped.keys) == images else f"{len(mapped.keys):,} of {images:,} images"
    return (
        f"{all_of}, by {mapped.method}. Near means similar; how far groups lie apart means nothing. What is not on "
        "the map, such as your own image, stands at the weighted mean of its 5 nearest there."
    )


def _drawing(mapped: EmbeddingMap, view: View, shown: Shown) -> str:
    """The map as SVG with a legend below."""
    manifest = view.index.manifest
    entries = manifest.at([manifest.rows_of(int(key))[0] for key in mapped.keys])
    groups = [" + ".join(entry.labels) for entry in entries]
    counts = Counter(groups).most_common()
    named = [group for group, _ in counts if group]
    colours = dict(zip(named, _COLOURS, strict=False))
    places = _on_paper(mapped.points)
    top, bottom = float(places[:, 1].min()) - _MARGIN, float(places[:, 1].max()) + _MARGIN
    dots = [
        _dot(entry, group, colours.get(group, _OTHER), place)
        for entry, group, place in zip(entries, groups, places, strict=True)
    ]
    return (
        f'<svg viewBox="0 {top:.0f} {_SIDE} {bottom - top:.0f}" role="application" tabindex="0" '
        f'aria-label="Map of {len(entries)} images: arrow keys go from one to the next, Enter searches from it">'
        f'<g class="dots">{"".join(dots)}</g>{_marks(mapped, view, shown)}</svg>{_legend(counts, colours)}'
        f'<img class="glimpse" data-stamp="{view.stamp}" alt="" width="128" height="128" hidden>'
    )


def _on_paper(points: NDArray[np.float32]) -> NDArray[np.float32]:
    return _MARGIN + points * np.float32(_SIDE - 2 * _MARGIN)


def _dot(entry: Entry, group: str, colour: str, place: NDArray[np.float32]) -> str:
    title = escape(" · ".join(filter(None, (group, entry.split, name_of(entry)))))
    return (
        f'<circle data-key="{entry.key}" cx="{place[0]:.0f}" cy="{place[1]:.0f}" r="7" fill="{colour}">'
        f"<title>{title}</title></circle>"
    )


def _marks(mapped: EmbeddingMap, view: View, shown: Shown) -> str:
    """Rings around the neighbours and a cross hair at the query."""
    if shown.query is None:
        return ""
    features = [shown.query.features]
    # Some may have left the index since they were found.
    if still := [hit.entry.key for hit in shown.hits if view.entries_of(hit.entry.key)]:
        features.append(view.index.features(still))
    places = _on_paper(mapped.place(np.concatenate(features)))
    (x, y), *neighbours = places.tolist()
    rings = "".join(f'<circle class="ring" cx="{across:.0f}" cy="{down:.0f}" r="13"/>' for across, down in neighbours)
    return (
        f'<g class="marks">{rings}<circle class="query" cx="{x:.0f}" cy="{y:.0f}" r="20"/>'
        f'<path class="query" d="M{x - 36:.0f} {y:.0f}h22m28 0h22M{x:.0f} {y - 36:.0f}v22m0 28v22"/></g>'
    )


def _legend(counts: Sequence[tuple[str, int]], colours: dict[str, str]) -> str:
    rest = sum(count for group, count in counts if group not in colours)
    rows = [(colours[group], group, count) for group, count in counts if group in colours]
    if rest:
        rows.append((_OTHER, "other labels or none" if colours else "no label", rest))
    items = "".join(
        f'<li><span style="background:{colour}"></span>{escape(group)} <small>{count:,}</small></li>'
        for colour, group, count in rows
    )
    return f'<ul class="legend">{items}</ul>'
