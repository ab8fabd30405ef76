"""The web server around the page: few doors, nothing from outside, gone without a trace."""

import os
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from fewlabel.listening import is_local

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from fastapi import FastAPI

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

__all__ = ["UPLOAD_BYTES", "Doors", "private_surroundings", "serve"]

UPLOAD_BYTES: Final = 50 * 2**20
"""The largest image that may be sent."""

_OTHER_BYTES: Final = 2**20
"""The largest body of any other request: choices, and what the page remembers of itself."""

_UPLOAD: Final = "/image"
_OPEN: Final = (
    "/assets/",
    "/static/",
    "/picture/",
    "/thumbnail/",
    "/report/",
    "/gradio_api/heartbeat/",
)
_OPEN_EXACTLY: Final = frozenset(
    {
        "/",
        "/config",
        "/favicon.ico",
        "/manifest.json",
        "/theme.css",
        "/gradio_api/queue/data",
        "/gradio_api/queue/join",
        "/gradio_api/startup-events",
        _UPLOAD,
    }
)
"""What the page itself asks for. Gradio can do more (take and serve files, fetch addresses, record the
screen): not here."""

_POLICY: Final = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; manifest-src 'self'; frame-src 'self'; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)
"""The browser itself then refuses to ask any other machine for anything. Gradio's templates need the eval."""

_HEADERS: Final = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-dns-prefetch-control", b"off"),
)


class Doors:
    """ASGI middleware that opens the addresses which the page needs and no others, to bodies of a sane size.

    Args:
        app: what lies behind.
        local: whether only browsers of this machine are served. Then the host that a request names must be local
            too: else a foreign page whose name is made to point here (DNS rebinding) could read the images.
    """

    def __init__(self, app: Any, *, local: bool) -> None:
        self._app, self._local = app, local

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer 404, 411, 413 or 421, or let the request through and forbid the browser other machines."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is not None:
            await send({"type": "http.response.start", "status": refusal, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return

        async def send_guarded(message: "MutableMapping[str, Any]") -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message["headers"]}
                added = [header for header in _HEADERS if header[0] not in own]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self._app(scope, receive, send_guarded)

    def _refusal(self, scope: "Scope") -> int | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if self._local and not is_local(urlsplit(f"//{host}").hostname or ""):
            return 421
        path = scope["path"]
        if not (path in _OPEN_EXACTLY or path.startswith(_OPEN)):
            return 404
        if scope["method"] in ("GET", "HEAD"):
            return None
        length = headers.get(b"content-length", b"")
        if not length.isdigit():
            return 411
        return 413 if int(length) > (UPLOAD_BYTES if path == _UPLOAD else _OTHER_BYTES) else None


@contextmanager
def private_surroundings() -> Iterator[None]:
    """Keep what gradio does in this process to this process: no network, and a folder of its own that goes.

    It must be entered before gradio is imported for the first time.
    """
    with tempfile.TemporaryDirectory(prefix="fewlabel-app-") as folder:
        wanted: Mapping[str, str] = {
            "GRADIO_TEMP_DIR": folder,
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_SHARE": "False",
            "GRADIO_MCP_SERVER": "False",
            "GRADIO_SSR_MODE": "False",
            "GRADIO_ALLOWED_PATHS": "",
        }
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def serve(app: "FastAPI", listening: socket.socket, *, local: bool) -> None:
    """Serve `app`, to browsers of this machine alone if `local`, until Ctrl-C or a termination signal, then return."""
    import uvicorn

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    # Uvicorn ends well on both signals, and raises them again afterwards.
    before = signal.signal(signal.SIGTERM, stop)
    config = uvicorn.Config(
        Doors(app, local=local),
        ws="none",
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, before)
