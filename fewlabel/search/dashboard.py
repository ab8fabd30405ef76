"""optuna-dashboard with the study's report and the runs of its trials, for browsers of this machine."""

import re
import signal
import socket
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from fewlabel.listening import is_local
from fewlabel.search.notes import report_address, trial_address
from fewlabel.search.report import html_of
from fewlabel.search.table import FULL_LENGTH, rows_of
from fewlabel.search.trial_page import trial_page

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    import optuna
    from optuna.storages import BaseStorage

__all__ = ["Dashboard", "serve"]

_NOTE: Final = re.compile(r"/api/studies/\d+(/\d+)?/note")
"""All that a browser may change; a study that workers are on can't be renamed or deleted from here."""

_NOTE_BYTES: Final = 2**20

_HEADERS: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
    ("Cache-Control", "no-store"),
)


class Dashboard:
    """WSGI application: optuna-dashboard on `storage`, the reports at /report and the trials' runs at /trials.

    A name from a browser is looked for among the names in the storage, and never made into a path.

    Args:
        storage: with one study or several.
        study: name of the one whose report /report shows; None: the only one, or a list of all.
        local: whether only browsers of this machine are served. Then the host that a request names must be local too:
            else a foreign page whose name is made to point here (DNS rebinding) could read the study.
    """

    def __init__(self, storage: "BaseStorage", *, study: str | None = None, local: bool) -> None:
        import optuna_dashboard

        self._storage, self._study, self._local = storage, study, local
        self._behind: WSGIApplication = optuna_dashboard.wsgi(storage)
        self._one_page = threading.Lock()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request, or hand it on to optuna-dashboard."""
        # WSGI has the bytes of the decoded path as Latin-1 (PEP 3333).
        path = environ.get("PATH_INFO", "").encode("latin-1").decode(errors="replace")
        refusal = self._refusal(environ, path)
        if refusal is not None:
            return _answer(start_response, *refusal)
        if path.rstrip("/") == "/report":
            return self._reports(start_response)
        for prefix, page in (("/report/", self._report), ("/trials/", self._trial)):
            if path.startswith(prefix):
                # Plots are made with modules that keep a state.
                with self._one_page:
                    found = page(path.removeprefix(prefix))
                if found is None:
                    return _answer(start_response, HTTPStatus.NOT_FOUND, "There is no such study or trial here.")
                return _answer(start_response, HTTPStatus.OK, found, "text/html")
        return self._behind(environ, _guarded(start_response))

    def _refusal(self, environ: "WSGIEnvironment", path: str) -> tuple[HTTPStatus, str] | None:
        host = environ.get("HTTP_HOST", "")
        if self._local and not is_local(urlsplit(f"//{host}").hostname or ""):
            return HTTPStatus.MISDIRECTED_REQUEST, "This page is for browsers of the machine that it runs on."
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return None
        if environ["REQUEST_METHOD"] != "PUT" or not _NOTE.fullmatch(path):
            return HTTPStatus.FORBIDDEN, "Only notes can be changed here."
        length = environ.get("CONTENT_LENGTH") or ""
        if not length.isdigit() or int(length) > _NOTE_BYTES:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "A note has at most 1 MiB."
        return None

    def _names(self) -> list[str]:
        import optuna

        return optuna.get_all_study_names(self._storage)

    def _load(self, name: str) -> "optuna.Study | None":
        import optuna

        return optuna.load_study(study_name=name, storage=self._storage) if name in self._names() else None

    def _reports(self, start_response: "StartResponse") -> Iterable[bytes]:
        from fewlabel.tracking.report import Link, Page

        names = [name for name in self._names() if not name.endswith(FULL_LENGTH)]
        chosen = self._study if self._study in names else names[0] if len(names) == 1 else None
        if chosen is not None:
            return _answer(start_response, HTTPStatus.FOUND, "", headers=[("Location", report_address(chosen))])
        page = Page("Studies", "in this storage")
        page.listing([Link(name, report_address(name)) for name in names])
        return _answer(start_response, HTTPStatus.OK, page.html(), "text/html")

    def _report(self, name: str) -> str | None:
        study = self._load(name)
        return None if study is None else html_of(study, lambda name, row: trial_address(name, row.number))

    def _trial(self, rest: str) -> str | None:
        name, _, number = rest.rpartition("/")
        study = self._load(name)
        if study is None or not (number.isascii() and number.isdigit()):
            return None
        rows = {str(row.number): row for row in rows_of(study)}
        return trial_page(study, rows[number]) if number in rows else None


def _guarded(start_response: "StartResponse") -> "StartResponse":
    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], object]:
        own = {name.lower() for name, _ in headers}
        return start_response(status, [*headers, *(pair for pair in _HEADERS if pair[0].lower() not in own)], *rest)

    return start


def _answer(
    start_response: "StartResponse",
    status: HTTPStatus,
    text: str,
    kind: str = "text/plain",
    headers: Iterable[tuple[str, str]] = (),
) -> Iterable[bytes]:
    body = text.encode()
    own = [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body))), *headers]
    _guarded(start_response)(f"{status.value} {status.phrase}", own)
    return [body]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep silent: a browser that closes a tab while it is served is no error."""


class _Handler(WSGIRequestHandler):
    timeout = 60

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep silent; the console is the user's."""


def serve(app: Dashboard, listening: socket.socket) -> None:
    """Serve `app` until Ctrl-C or a termination signal, then return."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    server = _Server(listening.getsockname()[:2], _Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    server.server_name, server.server_port = listening.getsockname()[:2]
    server.setup_environ()
    server.set_app(app)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, before)
