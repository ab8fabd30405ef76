"""The W&B side of a run, in the one module that imports wandb.

A run is offline unless the user has logged in: no account, no network, no prompt. Nothing about the user, the
host, the source code or the terminal is recorded, and everything that wandb writes lies in the run directory.
Whatever goes wrong in here costs the run one warning on the console and nothing else.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from fewlabel.console import console
from fewlabel.tracking.record import Picture

if TYPE_CHECKING:
    import wandb
    from plotly.graph_objects import Figure

__all__ = ["WandbLog", "artifact_name"]

EXIT_CODES = {"finished": 0, "failed": 1, "interrupted": 255}
"""What W&B is told at the end; 255 is what wandb itself reports after Ctrl-C."""

_INIT_SECONDS = 20.0
_FINISH_SECONDS = 300.0

_PRIVATE: dict[str, Any] = {
    "silent": True,
    "console": "off",
    "save_code": False,
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "host": "",
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}

_directories_set_here: set[str] = set()


class WandbLog:
    """A W&B run in `directory`/wandb, or nothing where W&B is disabled or has failed.

    W&B shows the runs of one `group` together, with the `command` as their job type. `resumed` says that a run of this
    `run_id` was there before: it is continued under the same id. Every method returns normally whatever W&B does.
    """

    def __init__(
        self,
        directory: Path,
        run_id: str,
        *,
        project: str,
        name: str,
        command: str,
        config: Mapping[str, Any],
        group: str | None = None,
        resumed: bool = False,
    ) -> None:
        self.directory = directory
        self._run: wandb.Run | None = None
        if os.environ.get("WANDB_MODE") == "disabled":
            return
        arguments: dict[str, Any] = {
            "id": run_id,
            "project": project,
            "name": name,
            "job_type": command,
            "group": group,
            "config": dict(config),
            "resume": "allow" if resumed else None,
        }
        try:
            self._run = _init(directory, arguments)
        except (Exception, SystemExit) as error:
            self._give_up(error)

    @property
    def run_directory(self) -> Path | None:
        """The folder with the `.wandb` file, for `wandb sync` and `wandb leet run`; None if W&B is off."""
        return Path(self._run.settings.sync_dir) if self._run is not None else None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add `metrics` at `step`; steps must not go down, W&B ignores those that do."""
        self._attempt(lambda run: run.log(dict(metrics), step=step))

    def log_image(self, name: str, path: Path, step: int) -> None:
        """Add the picture in the file `path` at `step`."""

        def send(run: "wandb.Run") -> None:
            import wandb

            run.log({name: wandb.Image(str(path))}, step=step)

        self._attempt(send)

    def log_plot(self, name: str, figure: "Figure") -> None:
        """Add a plotly figure, to be looked at with the pointer."""

        def send(run: "wandb.Run") -> None:
            import wandb

            run.log({name: wandb.Plotly(figure)})

        self._attempt(send)

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add a table under `name`; a cell may be a `Picture`."""

        def send(run: "wandb.Run") -> None:
            import wandb

            def cell(value: Any) -> Any:
                return wandb.Image(value.image, caption=value.caption) if isinstance(value, Picture) else value

            run.log({name: wandb.Table(columns=list(columns), data=[[cell(value) for value in row] for row in rows])})

        self._attempt(send)

    def log_output(self, name: str, kind: str, directory: Path, metadata: Mapping[str, Any]) -> None:
        """Record the files under `directory` as an artifact that this run made.

        They are referred to where they lie, not copied: offline, they must stay until `wandb sync`.
        """
        self._attempt(lambda run: run.log_artifact(_artifact_of(name, kind, directory, metadata)))

    def log_input(self, name: str, kind: str, directory: Path) -> None:
        """Record the files under `directory` as an artifact that this run read.

        W&B tells artifacts apart by their files: it is the very version that the run which made them logged.
        """
        self._attempt(lambda run: _use(run, _artifact_of(name, kind, directory, {})))

    def log_source(self, name: str, record: Mapping[str, Any]) -> None:
        """Record what the run read as its input artifact: `record` in one small JSON file, no image."""

        def send(run: "wandb.Run") -> None:
            import wandb

            # W&B tells versions apart by their files alone, so the fingerprint must be in one.
            artifact = wandb.Artifact(artifact_name(f"source-{name}"), "source", metadata=dict(record))
            with artifact.new_file("source.json", encoding="utf-8") as file:
                json.dump(dict(record), file, indent=2, sort_keys=True)
            _use(run, artifact)

        self._attempt(send)

    def summarise(self, figures: Mapping[str, Any]) -> None:
        """Set the final figures: a number under its name, an interval's mean so and its ends beside it.

        Tables stay in `result.json`.
        """
        flat: dict[str, Any] = {}
        for name, figure in figures.items():
            if isinstance(figure, list):
                continue
            if isinstance(figure, Mapping):
                flat |= {name: figure["mean"], f"{name}_low": figure["low"], f"{name}_high": figure["high"]}
            else:
                flat[name] = figure
        self._attempt(lambda run: run.summary.update(flat))

    def finish(self, status: str) -> None:
        """End the W&B run as `status`: "finished", "interrupted" or "failed"; the id can be resumed."""

        def send(run: "wandb.Run") -> None:
            # Online, this waits until everything has been sent.
            with console.status("Ending the W&B run"):
                run.finish(exit_code=EXIT_CODES[status])

        self._attempt(send)
        self._run = None

    def _attempt(self, action: Callable[["wandb.Run"], object]) -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except (Exception, SystemExit) as error:
            failed, self._run = self._run, None
            self._give_up(error)
            _abandon(failed)

    def _give_up(self, error: BaseException) -> None:
        console.print(
            f"[yellow]W&B is off for the rest of this run[/] ({_reason(error)}). "
            f"The run goes on, and {escape(str(self.directory))} has its whole record."
        )


def _artifact_of(name: str, kind: str, directory: Path, metadata: Mapping[str, Any]) -> "wandb.Artifact":
    """The files under `directory`, referred to where they lie."""
    import wandb

    artifact = wandb.Artifact(artifact_name(name), kind, metadata=dict(metadata))
    for file in sorted(file for file in directory.rglob("*") if file.is_file()):
        artifact.add_file(str(file), str(file.relative_to(directory)), policy="immutable", skip_cache=True)
    return artifact


def _use(run: "wandb.Run", artifact: "wandb.Artifact") -> None:
    """Make `artifact` an input of `run`.

    The public `use_artifact` refuses to work offline and waits for the network online. This is what it calls itself;
    the link to the run is made when the record reaches W&B.
    """
    run._log_artifact(artifact, is_user_created=True, use_after_commit=True)


def artifact_name(name: str) -> str:
    """`name` in the characters and the length that W&B takes."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-")[:128] or "unnamed"


def _reason(error: BaseException) -> str:
    """The first line of an error, safe to print."""
    return escape(str(error).strip().partition("\n")[0] or type(error).__name__)


def _abandon(run: "wandb.Run") -> None:
    """End `run` after a failure, so that wandb doesn't fail once more when the process exits."""
    import wandb

    try:
        run.finish(exit_code=EXIT_CODES["failed"])
    except (Exception, SystemExit):
        with contextlib.suppress(Exception, SystemExit):
            wandb.teardown()


def _init(directory: Path, arguments: dict[str, Any]) -> "wandb.Run":
    _keep_inside(directory)
    import wandb

    mode = _mode()
    if mode == "online":
        try:
            return _start(directory, mode, arguments)
        except Exception as error:
            # Its service still holds the id of the run that failed to start.
            with contextlib.suppress(Exception, SystemExit):
                wandb.teardown()
            console.print(
                f"[yellow]W&B can't be reached[/] ({_reason(error)}). This run is recorded offline; "
                f"`wandb sync {escape(str(directory / 'wandb'))}/offline-run-*` sends it later."
            )
            mode = "offline"
    return _start(directory, mode, arguments)


def _start(directory: Path, mode: str, arguments: dict[str, Any]) -> "wandb.Run":
    import wandb

    # Silences the messages that wandb prints before and outside of a run.
    wandb.setup(settings=wandb.Settings(silent=True))
    settings = wandb.Settings(
        **_PRIVATE,
        init_timeout=_INIT_SECONDS,
        login_timeout=_INIT_SECONDS,
        finish_timeout=_FINISH_SECONDS,
        # A run of ours never takes over, ends or becomes another run of the same process.
        reinit="create_new",
    )
    return wandb.init(mode=mode, dir=str(directory), settings=settings, **arguments)  # type: ignore[arg-type]


def _keep_inside(directory: Path) -> None:
    """Point wandb's folders, by default in the user's home, into `directory`; turn its error reports off."""
    inside = directory / "wandb"
    for variable, folder in (("WANDB_CACHE_DIR", "cache"), ("WANDB_DATA_DIR", "data")):
        if variable not in os.environ or variable in _directories_set_here:
            os.environ[variable] = str(inside.absolute() / folder)
            _directories_set_here.add(variable)
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    inside.mkdir(exist_ok=True)


def _mode() -> str:
    """What WANDB_MODE or wandb's settings files say, but online only for who has logged in.

    The key is looked for on this machine alone (environment, settings files, netrc); nobody is asked for one.
    """
    import wandb

    settings = wandb.setup(settings=wandb.Settings(silent=True)).settings
    mode = os.environ.get("WANDB_MODE") or settings.mode
    if mode in {"offline", "dryrun", "disabled"}:
        return "disabled" if mode == "disabled" else "offline"
    problem = "nobody has logged in" if os.environ.get("WANDB_MODE") else None
    try:
        if wandb.login(prompt=False, verify=False):
            return "online"
    except wandb.errors.Error as error:
        problem = _reason(error)
    if problem is not None:
        console.print(f"[yellow]W&B can't go online[/] ({problem}). This run is recorded offline.")
    return "offline"
