"""A run: one directory that stands on its own, and its mirror in W&B."""

import secrets
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from rich.markup import escape

from fewlabel.console import console
from fewlabel.errors import UserError
from fewlabel.files import read_json, write_json
from fewlabel.tracking.directory import claim_directory, make_directory
from fewlabel.tracking.lock import DirectoryLock
from fewlabel.tracking.metrics import MetricsFile
from fewlabel.tracking.provenance import provenance
from fewlabel.tracking.record import Figure, figure_values, flattened, jsonable, without_lists
from fewlabel.tracking.wandb_log import WandbLog

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot

__all__ = ["NullRun", "Run", "Status"]

Status = Literal["finished", "interrupted", "failed"]


class Run:
    """A run being written: made by `create` or `resume`, ended by `finish` or `close`.

    The directory holds `config.json` (what repeats the run: command, configuration, parents, source, code,
    versions, machine), `metrics.jsonl` (a line a `log`), `status.json`, `result.json` once finished, what the
    command puts into `checkpoints/` and `encoder/`, and W&B's files in `wandb/`. It is locked while this
    process writes it. As a context manager the run is closed as failed, or interrupted, by an exception that
    leaves the block, and as interrupted where the block ends without `finish`.

    Only the main process has a `Run`; the others take a `NullRun`.
    """

    def __init__(self, directory: Path, lock: DirectoryLock, record: dict[str, Any], *, resumed: bool) -> None:
        """Use `create` or `resume`."""
        self.directory = directory
        self.record = record
        self._lock = lock
        self._metrics = MetricsFile(directory / "metrics.jsonl")
        self._open = True
        self._started = time.monotonic()
        before: dict[str, Any] = {"seconds": 0.0, "sessions": []}
        if resumed and (directory / "status.json").exists():
            before = read_json(directory / "status.json")
        self._seconds_before: float = before["seconds"]
        session = {"started": _now(), "provenance": provenance() if resumed else record["provenance"]}
        self._sessions: list[dict[str, Any]] = [*before["sessions"], session]
        self._write_status("running", None)
        about = {name: record[name] for name in ("command", "parents", "provenance")}
        source = None if record["source"] is None else without_lists(record["source"])
        self._wandb = WandbLog(
            directory,
            record["wandb_id"],
            project=record["project"],
            name=record["run"],
            command=record["command"],
            group=record.get("group"),
            config={**record["config"], "record": {**about, "source": source}},
            resumed=resumed,
        )
        if source is not None and not resumed:
            self._wandb.log_source(str(source.get("name", "unnamed")), source)

    @classmethod
    def create(
        cls,
        command: str,
        config: Mapping[str, Any],
        *,
        out: Path | None = None,
        root: Path = Path("runs"),
        slug: str = "",
        parents: Mapping[str, str] | None = None,
        source: Mapping[str, Any] | None = None,
        project: str = "fewlabel",
        group: str | None = None,
    ) -> Self:
        """Make a run directory, `out` or `root`/<command>-<time>-<slug>, and begin the run in it.

        Args:
            command: what is run, e.g. "pretrain".
            config: complete, so that it repeats the run; paths become text and non-finite numbers null.
            out: the directory; it must not exist or be empty.
            root: where a directory with a made-up name goes.
            slug: a few words that tell runs of a command apart, e.g. "resnet50-digits".
            parents: what the run was made from, by role, e.g. {"source": ..., "encoder": ...}.
            source: what was read, e.g. {"name", "fingerprint", "images"}; W&B gets it as the input artifact.
            project: the W&B project.
            group: the name under which W&B shows this run together with others, e.g. the trials of a study.

        Raises:
            UserError: `out` holds something, is no directory, is in use, or can't be written.
        """
        if out is not None:
            directory, lock = out, claim_directory(out)
        else:
            directory, lock = make_directory(root, command, slug)
        record = {
            "command": command,
            "run": directory.absolute().name,
            "wandb_id": secrets.token_hex(4),
            "project": project,
            "group": group,
            "created": _now(),
            "config": jsonable(config),
            "source": None if source is None else jsonable(source),
            "parents": dict(parents or {}),
            "provenance": provenance(),
            "argv": list(sys.argv),
        }
        try:
            write_json(directory / "config.json", record)
            return cls(directory, lock, record, resumed=False)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def resume(cls, directory: Path, *, command: str) -> Self:
        """Continue the run in `directory` under the same W&B id; call `rewind` once its step is known.

        Raises:
            UserError: there is no run, it is another command's, it has finished, or a process is writing it.
        """
        directory = Path(directory)
        if not (directory / "config.json").is_file():
            raise UserError(
                f"{directory} holds no run to resume: it has no config.json. "
                "Give the run directory itself, as `fewlabel runs` lists it."
            )
        lock = DirectoryLock(directory)
        try:
            record = read_json(directory / "config.json")
            if not isinstance(record, dict) or not {"command", "wandb_id", "config"} <= record.keys():
                raise UserError(f"{directory / 'config.json'} isn't the record of a run: nothing to resume.")
            if record["command"] != command:
                raise UserError(
                    f"{directory} is a run of `fewlabel {record['command']}`, not of `fewlabel {command}`: "
                    f"resume it with `fewlabel {record['command']} --resume {directory}`."
                )
            if (directory / "result.json").exists():
                raise UserError(
                    f"The run in {directory} has finished: its figures are in {directory / 'result.json'}. "
                    "There is nothing to resume; start a new run without --resume."
                )
            return cls(directory, lock, record, resumed=True)
        except BaseException:
            lock.release()
            raise

    @property
    def config(self) -> dict[str, Any]:
        """The complete configuration, as recorded."""
        config: dict[str, Any] = self.record["config"]
        return config

    def require_config(self, config: Mapping[str, Any], free: Collection[str] = ()) -> None:
        """Check that `config` is the recorded one, but for the dotted names in `free`, e.g. "source.workers".

        Raises:
            UserError: it differs; every difference is named, and the run is closed.
        """
        recorded, given = flattened(self.config), flattened(jsonable(config))
        differences = [
            f"{name} is {given.get(name)} and was {recorded.get(name)}"
            for name in sorted(recorded.keys() | given.keys())
            if recorded.get(name) != given.get(name) and name not in free
        ]
        if differences:
            self.close("interrupted")
            raise UserError(
                f"{self.directory} was begun with another configuration: {'; '.join(differences)}. "
                "Resume it with the flags it was begun with, or begin a new run without --resume."
            )

    @property
    def wandb_id(self) -> str:
        """The run's id in W&B, the same after a resume."""
        identity: str = self.record["wandb_id"]
        return identity

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints go."""
        return self.directory / "checkpoints"

    @property
    def encoder(self) -> Path:
        """Where the encoder goes, if the command makes one."""
        return self.directory / "encoder"

    @property
    def classifier(self) -> Path:
        """Where the classifier goes, if the command makes one."""
        return self.directory / "classifier"

    @property
    def wandb_directory(self) -> Path | None:
        """What `wandb sync` and `wandb leet run` take; None where W&B is off."""
        return self._wandb.run_directory

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record `metrics` at `step`, in `metrics.jsonl` at once and in W&B; NaN and infinity become null.

        Raises:
            UserError: the disk is full or the file can't be written.
        """
        if not self._open:
            raise RuntimeError(f"{self.directory} is closed: nothing more can be logged to it")
        self._metrics.append(step, metrics)
        self._wandb.log(step, metrics)

    def log_image(self, name: str, path: Path, step: int) -> None:
        """Show the picture in the file `path` in W&B at `step`."""
        self._wandb.log_image(name, path, step)

    def log_plot(self, name: str, figure: "Plot") -> None:
        """Show a plotly figure in W&B under `name`."""
        self._wandb.log_plot(name, figure)

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Show a table in W&B under `name`; a cell may be a `Picture`."""
        self._wandb.log_table(name, columns, jsonable(rows))

    def log_input(self, name: str, kind: str, directory: Path) -> None:
        """Record the files in `directory` in W&B as something this run read; name and kind as its maker gave them."""
        self._wandb.log_input(name, kind, directory)

    def log_artifact(self, name: str, kind: str, directory: Path, metadata: Mapping[str, Any]) -> None:
        """Record the files in `directory` in W&B as something this run made, e.g. of kind "encoder".

        Its metadata also names the run, the source and the parents, so that it can be traced from its page.
        """
        about = {name: self.record[name] for name in ("run", "command", "parents")}
        about["git"] = self.record["provenance"]["git"]
        about["source"] = without_lists(self.record["source"] or {})
        self._wandb.log_output(name, kind, directory, jsonable({**metadata, **about}))

    def history(self) -> list[dict[str, Any]]:
        """Every line of `metrics.jsonl`, over all sittings."""
        return self._metrics.read()

    def rewind(self, step: int) -> None:
        """Forget the metrics logged after `step`, from where training goes on; -1 forgets all."""
        self._metrics.rewind(step)

    def finish(self, metrics: Mapping[str, Figure], **extra: Any) -> dict[str, Any]:
        """Write `result.json`, end the run as finished and give the directory free.

        Args:
            metrics: plain names to final figures; non-finite numbers become null.
            extra: further entries of the result, e.g. encoder="runs/.../encoder".

        Returns:
            The result as written. Its "seconds" leave out the time between an interruption and its resume.
        """
        record = self.record
        result = {
            "command": record["command"],
            "run": record["run"],
            "created": record["created"],
            "finished": _now(),
            "seconds": self._seconds(),
            "parents": record["parents"],
            "source": record["source"],
            "metrics": {name: figure_values(name, figure) for name, figure in metrics.items()},
        }
        if clash := sorted(result.keys() & extra.keys()):
            raise ValueError(f"result.json has its own {', '.join(clash)}")
        result |= jsonable(extra)
        write_json(self.directory / "result.json", result)
        self._wandb.summarise(result["metrics"])
        self.close("finished")
        return result

    def close(self, status: Status, reason: str | None = None) -> None:
        """End the run for now; unless finished, it can be resumed. A second call does nothing."""
        if not self._open:
            return
        self._open = False
        try:
            self._write_status(status, reason)
        except UserError as error:
            # A full disk must not hide the error that brought us here; the run shows as interrupted then.
            console.print(f"[yellow]{escape(str(error))}[/]")
        finally:
            self._wandb.finish(status)
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self.close("failed", f"{type(error).__name__}: {error}")
        else:
            self.close("interrupted", type(error).__name__ if error is not None else None)

    def _seconds(self) -> float:
        return round(self._seconds_before + time.monotonic() - self._started, 3)

    def _write_status(self, status: str, reason: str | None) -> None:
        write_json(
            self.directory / "status.json",
            {"status": status, "reason": reason, "seconds": self._seconds(), "sessions": self._sessions},
        )


class NullRun(Run):
    """The run as the processes other than the main one have it: it knows the directory and writes nothing."""

    def __init__(self, directory: Path, record: dict[str, Any]) -> None:
        """`directory` and `record` are those of the main process's run."""
        self.directory = directory
        self.record = record

    @property
    def wandb_directory(self) -> Path | None:
        """None."""
        return None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Do nothing."""

    def log_image(self, name: str, path: Path, step: int) -> None:
        """Do nothing."""

    def log_plot(self, name: str, figure: "Plot") -> None:
        """Do nothing."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Do nothing."""

    def log_input(self, name: str, kind: str, directory: Path) -> None:
        """Do nothing."""

    def log_artifact(self, name: str, kind: str, directory: Path, metadata: Mapping[str, Any]) -> None:
        """Do nothing."""

    def history(self) -> list[dict[str, Any]]:
        """Nothing; the metrics are the main process's."""
        return []

    def rewind(self, step: int) -> None:
        """Do nothing."""

    def finish(self, metrics: Mapping[str, Figure], **extra: Any) -> dict[str, Any]:
        """Do nothing; the result is the main process's."""
        return {}

    def close(self, status: Status, reason: str | None = None) -> None:
        """Do nothing."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
