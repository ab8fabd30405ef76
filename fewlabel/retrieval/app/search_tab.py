"""The search tab: an image in, its neighbours out, and each of them the next question."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import gradio as gr

from fewlabel.errors import UserError
from fewlabel.retrieval.app.collection import Collection, Query, View
from fewlabel.retrieval.app.markup import (
    DROP_ZONE,
    FOLLOW,
    LIVE,
    PICK,
    PICTURES,
    SEND,
    card_of_entry,
    card_of_hit,
    cards,
    message,
    query_markup,
)
from fewlabel.retrieval.app.received import Received
from fewlabel.retrieval.app.server import UPLOAD_BYTES
from fewlabel.retrieval.index import Hit
from fewlabel.retrieval.manifest import Filter

__all__ = ["SearchTab", "Shown"]

_COUNTS: Final = (5, 10, 20, 50, 100)
_OFFERED: Final = 18
"""Images of the collection that are offered."""


@dataclass(frozen=True)
class Shown:
    """What a visitor's page shows now."""

    query: Query | None = None
    hits: tuple[Hit, ...] = ()


class SearchTab:
    """The tab's components and what they do; to be made inside a `gr.Blocks`."""

    def __init__(self, collection: Collection, received: Received) -> None:
        self._collection, self._received = collection, received
        self.shown = gr.State(Shown())
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                self._drop = gr.HTML(DROP_ZONE, elem_id="drop", js_on_load=SEND)
                self._query = gr.HTML(elem_id="query", js_on_load=PICTURES)
                with gr.Group():
                    self._count = gr.Radio(_COUNTS, value=10, label="Neighbours", elem_id="count")
                    self._splits = gr.CheckboxGroup([], label="Only of split", elem_id="splits")
                    self._labels = gr.Dropdown(
                        [], value=[], multiselect=True, label="Only with label", elem_id="labels"
                    )
            with gr.Column(scale=3, min_width=320):
                self._status = gr.HTML(elem_id="status", js_on_load=LIVE)
                self._results = gr.HTML(elem_id="results", js_on_load=PICK + FOLLOW)
                gr.HTML("<h2>From the collection</h2>")
                with gr.Row(elem_id="find"):
                    self._words = gr.Textbox(
                        label="Find by name, folder or label",
                        placeholder="Part of it, then Enter",
                        scale=4,
                        max_length=200,
                        elem_id="words",
                    )
                    self._others = gr.Button("Show others", size="md", scale=0, min_width=140, elem_id="others")
                self._offered = gr.HTML(elem_id="offered", js_on_load=PICK)
        self.filters: list[Any] = [self._count, self._labels, self._splits]
        """The inputs of `search_key`."""
        self.answer = [self._query, self._status, self._results, self.shown]
        """The outputs of `search_key`."""
        self._connect()

    def _connect(self) -> None:
        quietly: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        self._drop.sent(
            self._search_sent, self.filters, self.answer, concurrency_id="encoder", concurrency_limit=1, **quietly
        )
        for listing in (self._results, self._offered):
            listing.pick(self.search_key, self.filters, self.answer, trigger_mode="always_last", **quietly)
        for component in self.filters:
            component.input(
                self._again, [self.shown, *self.filters], self.answer, trigger_mode="always_last", **quietly
            )
        self._words.submit(self._find, self._words, self._offered, **quietly)
        self._others.click(self._offer, None, self._offered, **quietly)

    def on_load(self, page: gr.Blocks) -> None:
        """Fill the tab whenever a browser opens `page`."""
        page.load(
            self._begin,
            None,
            [self._labels, self._splits, self._status, self._offered],
            show_progress="hidden",
            api_visibility="private",
        )

    def _begin(self) -> tuple[Any, ...]:
        try:
            manifest = self._collection.view().index.manifest
            return (
                gr.update(choices=manifest.labels, visible=bool(manifest.labels)),
                gr.update(choices=manifest.splits, visible=len(manifest.splits) > 1),
                message("Drop an image on the left, or choose one below."),
                self._offer(),
            )
        except UserError as error:
            return gr.skip(), gr.skip(), message(str(error), wrong=True), ""

    def _offer(self) -> str:
        view = self._collection.view()
        seed = time.monotonic_ns()
        return cards([card_of_entry(entry) for entry in view.sample(_OFFERED, seed)], view.stamp)

    def _find(self, words: str) -> str:
        if not words.strip():
            return self._offer()
        view = self._collection.view()
        found = view.named(words.strip(), _OFFERED)
        if not found:
            return message(f"No image has {words.strip()!r} in its name, folder or label.")
        return cards([card_of_entry(entry) for entry in found], view.stamp)

    def search_key(self, count: int, labels: list[str], splits: list[str], event: gr.EventData) -> Iterator[Any]:
        """Search from the image that was picked, in a list or on the map."""

        def chosen(view: View) -> Query:
            key = str(_told(event).get("key"))
            if not key.isdecimal() or int(key) >= 2**63:
                raise UserError("That is no image of the index: choose one on the page.")
            return view.chosen(int(key))

        yield from self._search("", chosen, count, labels, splits)

    def _search_sent(self, count: int, labels: list[str], splits: list[str], event: gr.EventData) -> Iterator[Any]:
        """Search from an image that the browser has just sent, or tell why it could not."""
        told = _told(event)
        sent = self._received.take(str(told.get("word")))

        def uploaded(view: View) -> Query:
            if sent is not None:
                return view.uploaded(sent.name, sent.content)
            size = (
                f"it is larger than {UPLOAD_BYTES / 2**20:.0f} MB"
                if told.get("status") in (0, 413)
                else "send it again"
            )
            raise UserError(f"The image did not arrive: {size}.")

        yield from self._search(f"Looking at {sent.name} …" if sent else "", uploaded, count, labels, splits)

    def _again(self, shown: Shown, count: int, labels: list[str], splits: list[str]) -> Iterator[Any]:
        query = shown.query
        if query is not None:
            yield from self._search("", lambda _: query, count, labels, splits)

    def _search(
        self, doing: str, query_of: Callable[[View], Query], count: int, labels: Sequence[str], splits: Sequence[str]
    ) -> Iterator[tuple[Any, ...]]:
        try:
            view = self._collection.view()
            if doing:
                yield gr.skip(), message(doing), gr.skip(), gr.skip()
            query = query_of(view)
            asked = query_markup(query, view)
            yield asked, message(f"Searching {len(view.index):,} images …"), gr.skip(), gr.skip()
            start = time.perf_counter()
            hits = view.neighbours(query, count, Filter(tuple(labels), tuple(splits)))
            milliseconds = (time.perf_counter() - start) * 1000
        except UserError as error:
            yield gr.skip(), message(str(error), wrong=True), "", Shown()
            return
        told = message(_summary(hits, count, len(view.index), milliseconds))
        yield asked, told, cards([card_of_hit(hit) for hit in hits], view.stamp), Shown(query, tuple(hits))


def _told(event: gr.EventData) -> Mapping[str, Any]:
    """What the page's script says of an event; whoever writes their own may send anything."""
    return event._data if isinstance(event._data, dict) else {}


def _summary(hits: Sequence[Hit], asked: int, images: int, milliseconds: float) -> str:
    found = f"{len(hits)} nearest of {images:,} images, in {milliseconds:.0f} ms."
    fewer = f" You asked for {asked}: no more pass." if len(hits) < asked else ""
    counts = Counter(label for hit in hits for label in hit.entry.labels)
    labels = ", ".join(f"{times} of {label!r}" for label, times in counts.most_common(4))
    return found + fewer + (f" Labels: {labels}{' and others' if len(counts) > 4 else ''}." if labels else "")
