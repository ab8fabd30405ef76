"""The page as a whole: its tabs, and the addresses that its pictures and reports come from."""

from html import escape
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import gradio as gr
from fastapi import FastAPI, Request, Response

from fewlabel.errors import UserError
from fewlabel.retrieval.app.collection import Collection
from fewlabel.retrieval.app.map_tab import MapTab
from fewlabel.retrieval.app.markup import picture_type
from fewlabel.retrieval.app.received import Received
from fewlabel.retrieval.app.runs_tab import RunsTab, report_of
from fewlabel.retrieval.app.search_tab import SearchTab

__all__ = ["build_app"]

_WAITING: Final = 100
"""Questions that may wait; whoever comes then is told to try again."""

_AT_ONCE: Final = 4
"""Questions that are answered side by side."""

_SANDBOX: Final = (
    "sandbox allow-popups; default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'self'"
)
"""A report is a file that anybody may have written: it runs no script, and sees nothing of the page."""


def build_app(collection: Collection, runs: Path) -> FastAPI:
    """The page over an index and the runs in a folder, as a web application without any file of its own to give."""
    app = FastAPI(openapi_url=None)
    received = Received()

    @app.get("/thumbnail/{key}")
    def thumbnail(key: int) -> Response:
        view = collection.view()
        entries = view.entries_of(key)
        return _picture(view.index.thumbnail(entries[0]) if entries else None)

    @app.get("/picture/{key}")
    def picture(key: int) -> Response:
        return _picture(collection.view().picture(key))

    @app.post("/image")
    async def image(request: Request) -> Response:
        name = unquote(request.headers.get("x-name", ""))
        return Response(received.put(name, await request.body()), media_type="text/plain")

    @app.get("/report/{run}")
    def report(run: str) -> Response:
        try:
            page = report_of(runs, run)
        except UserError:
            page = None
        headers = {"content-security-policy": _SANDBOX, "cache-control": "no-store"}
        return Response(page or b"", 404 if page is None else 200, headers, "text/html; charset=utf-8")

    # FastAPI takes such a handler's first argument for the request.
    @app.exception_handler(UserError)
    def gone(_: object, error: Exception) -> Response:
        return Response(str(error), 404, media_type="text/plain; charset=utf-8")

    page = _page(collection, runs, received)
    # Mounted, gradio thinks itself not launched, and takes any file of this machine for one that a visitor has sent.
    page.has_launched = True
    whole: FastAPI = gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        # System fonts: gradio's own come from elsewhere, or take a second to load.
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css_paths=Path(__file__).with_name("page.css"),
    )
    return whole


def _picture(encoded: bytes | None) -> Response:
    if encoded is None:
        return Response(status_code=404)
    # They may be of patients: no browser keeps them on its disk.
    return Response(encoded, media_type=picture_type(encoded), headers={"cache-control": "no-store"})


def _page(collection: Collection, runs: Path, received: Received) -> gr.Blocks:
    page: gr.Blocks
    with gr.Blocks(title="Fewlabel", analytics_enabled=False, fill_width=True) as page:
        heading = gr.HTML(elem_id="heading")
        with gr.Tabs():
            with gr.Tab("Search", id="search"):
                search = SearchTab(collection, received)
            with gr.Tab("Map", id="map") as map_tab:
                MapTab(map_tab, search, collection)
            with gr.Tab("Runs", id="runs") as runs_tab:
                RunsTab(runs_tab, runs)
        search.on_load(page)
        page.load(lambda: _heading(collection), None, heading, show_progress="hidden", api_visibility="private")
    page.queue(max_size=_WAITING, default_concurrency_limit=_AT_ONCE, api_open=False)
    return page


def _heading(collection: Collection) -> str:
    try:
        view = collection.view()
    except UserError:
        return "<h1>Fewlabel</h1>"
    about = view.index.description
    said = f"{about.vectors:,} images · {about.encoder.backbone} at {about.encoder.image_size} px · {about.plan.metric}"
    return f"<h1>Fewlabel</h1><p>{escape(said)}</p>"
