"""`fewlabel dashboard`: a study in the browser, with its report and the runs of its trials."""

import webbrowser
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from fewlabel.console import console
from fewlabel.errors import UserError


@dataclass(frozen=True)
class Config:
    """Look at a study in the browser while it runs or later: Optuna's dashboard, the report, the trials' runs."""

    study: Path | None = None
    """Run directory of a search. Default: the newest in runs/."""
    storage: str | None = None
    """All studies in a storage instead, as postgresql://USER@HOST/NAME or sqlite:///FILE."""
    host: str = "127.0.0.1"
    """Address to listen at. 0.0.0.0 serves every machine that can reach this one; there is no password."""
    port: int = 8080
    """Port to listen at, or the next free one; 0 takes any."""
    open: bool = False
    """Open the page in the browser."""


def run(config: Config) -> int:
    """Run the command until Ctrl-C; its exit status."""
    from fewlabel.listening import address_of, is_local, listen
    from fewlabel.search.storage import keep_password, open_storage

    if config.study is not None and config.storage is not None:
        raise UserError("--study and --storage both say what to show: give one of them.")
    if config.storage is not None:
        url, name = keep_password(config.storage), None
    else:
        url, name = _storage_of(config.study or _newest())
    file = url.removeprefix("sqlite:///")
    if file != url and not Path(file).is_file():
        raise UserError(f"There is no study yet: {file} does not exist. Begin one with `fewlabel search`.")
    local = is_local(config.host)
    with listen(config.host, config.port) as listening:
        from fewlabel.search.dashboard import Dashboard, serve

        app = Dashboard(open_storage(url, stale_after=STALE_AFTER), study=name, local=local)
        address = address_of(listening)
        taken = listening.getsockname()[1]
        if config.port and taken != config.port:
            console.print(f"Port {config.port} is taken: this is at {taken}.")
        if not local:
            console.print(
                f"[bold yellow]Anyone who can reach {escape(config.host)} can see the study:[/] there is no password. "
                "Without --host, only this machine can."
            )
        console.print(f"Page:    {address}", highlight=False)
        console.print(f"Report:  {address}report", highlight=False)
        console.print("Stop:    Ctrl-C")
        if config.open:
            # The socket listens already: the browser waits there for the server.
            webbrowser.open(address)
        serve(app, listening)
    return 0


STALE_AFTER = 120
"""Seconds; a page has no trial of its own that could become stale."""


def _storage_of(run: Path) -> tuple[str, str | None]:
    """The storage of a search's run, and the name of its study there."""
    from fewlabel.files import read_json
    from fewlabel.search.storage import sqlite_url

    if not (run / "config.json").is_file():
        raise UserError(f"{run} is no run: it has no config.json. `fewlabel runs` lists the runs.")
    record = read_json(run / "config.json")
    if not isinstance(record, dict) or record.get("command") != "search":
        raise UserError(f"{run} is no run of `fewlabel search`: give the directory of one.")
    storage = record.get("config", {}).get("study", {}).get("storage")
    return storage or sqlite_url(run / "study.db"), record.get("group")


def _newest() -> Path:
    from fewlabel.tracking.catalogue import list_runs

    root = Path("runs")
    found = [record.directory for record in list_runs(root) if record.command == "search"]
    if not found:
        raise UserError(
            "No search in runs/ yet: begin one with `fewlabel search`, or say where one is with --study or --storage."
        )
    return found[-1]
