"""`fewlabel app`: an index, its map and the runs as a page in the browser."""

import webbrowser
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from fewlabel.console import console


@dataclass(frozen=True)
class Config:
    """Search an index in the browser, see its map, and look through the runs; on this machine alone."""

    index: Path | None = None
    """Index directory, or the run that made it. Default: the newest in runs/."""
    runs: Path = Path("runs")
    """Folder of the runs that the page lists."""
    host: str = "127.0.0.1"
    """Address to listen at. 0.0.0.0 serves every machine that can reach this one; there is no password."""
    port: int = 7860
    """Port to listen at, or the next free one; 0 takes any."""
    open: bool = False
    """Open the page in the browser."""


def run(config: Config) -> int:
    """Run the command until Ctrl-C; its exit status."""
    from fewlabel.listening import address_of, is_local, listen
    from fewlabel.pipelines.indexes import find_index
    from fewlabel.retrieval.app.server import private_surroundings, serve

    directory = find_index(config.index)
    local = is_local(config.host)
    with listen(config.host, config.port) as listening, private_surroundings():
        console.print("Opening the index and its encoder ...")
        # Not before: gradio reads its surroundings when it is imported.
        from fewlabel.retrieval.app.collection import Collection
        from fewlabel.retrieval.app.page import build_app

        app = build_app(Collection(directory), config.runs)
        address = address_of(listening)
        taken = listening.getsockname()[1]
        if config.port and taken != config.port:
            console.print(f"Port {config.port} is taken: this is at {taken}.")
        if not local:
            console.print(
                f"[bold yellow]Anyone who can reach {escape(config.host)} can search and see the images:[/] there is "
                "no password. Without --host, only this machine can."
            )
        console.print(f"Page:  {address}", highlight=False)
        console.print("Stop:  Ctrl-C")
        if config.open:
            # The socket listens already: the browser waits there for the server.
            webbrowser.open(address)
        serve(app, listening, local=local)
    return 0
