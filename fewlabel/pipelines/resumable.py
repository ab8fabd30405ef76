"""What the commands that train share: their processes, their record, and that a stopped one goes on."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from fewlabel.console import as_typed, console
from fewlabel.data.config import SourceConfig
from fewlabel.errors import UserError
from fewlabel.pipelines.configuration import as_dict
from fewlabel.pipelines.sources import keep_left_out, record_of
from fewlabel.tracking.config import RunConfig
from fewlabel.training.config import TrainingConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

    from fewlabel.data.source import Source
    from fewlabel.data.store import ImageStore
    from fewlabel.tracking.run import Run

__all__ = ["Resumable", "recorded", "require_parent", "run_training"]

FREE = ("source.data", "source.exclude", "source.workers", "source.cache_dir")
"""Options that a resumed run may have others of: the source's fingerprint says whether its images are the same."""


class Resumable(Protocol):
    """The configuration of a command that trains: a frozen dataclass with these fields among others."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def source(self) -> SourceConfig:
        """Its images."""

    @property
    def training(self) -> TrainingConfig:
        """How it trains."""

    @property
    def run(self) -> RunConfig:
        """Where its record goes."""

    @property
    def resume(self) -> Path | None:
        """The stopped run to go on with."""

    @property
    def json(self) -> bool:
        """Whether to print the result."""


Config = TypeVar("Config", bound=Resumable)


def run_training(
    config: Config,
    check: Callable[[Config], Config],
    train: Callable[[Config, "Accelerator"], Mapping[str, Any]],
) -> int:
    """Train in as many processes as asked for; the command's exit status.

    Args:
        config: as given.
        check: refuses what takes no look at the images, before that look; the configuration with what it found out.
        train: on each process; its result is that of the main one.
    """
    from fewlabel.training.processes import choose_precision, launched, make_accelerator, run_processes

    if (config.training.processes or 1) > 1 and not launched():
        return run_processes(sys.argv[1:], config.training.processes or 1)
    config = check(config)
    precision = choose_precision(config.training.precision)
    accelerator = make_accelerator(config.training, precision)
    training = replace(config.training, precision=precision, processes=accelerator.num_processes)

    from fewlabel.training.loop import Interrupted

    status = 0
    try:
        result = train(replace(config, training=training), accelerator)
        if accelerator.is_main_process and config.json:
            print(json.dumps(result, indent=2))
    except Interrupted as stop:
        status = 128 + stop.number
    # Not after an error: the other processes would report the end of their group before the error itself is told.
    accelerator.end_training()
    return status


@contextmanager
def recorded(
    command: str,
    config: Resumable,
    source: "Source",
    stores: "Mapping[str, ImageStore]",
    accelerator: "Accelerator",
    *,
    slug: str,
    parents: Mapping[str, str],
) -> Iterator["Run"]:
    """The run's record on the main process, a silent one on the others; closed as what ended the block says.

    Args:
        command: what is run.
        config: complete; `--resume` goes on with the run that it names.
        source: what is read, a parent of the run beside `parents`.
        stores: its splits.
        accelerator: all of its processes must enter.
        slug: see `Run.create`, like `parents`.
        parents: by role.
    """
    from accelerate.utils import broadcast_object_list

    from fewlabel.tracking.run import NullRun
    from fewlabel.training.loop import Interrupted

    shared: list[Any] = [None, None]
    if accelerator.is_main_process:
        if config.resume:
            record = _resumed(command, config, source, config.resume)
        else:
            parents = {**parents, "source": f"{source.name}@{source.fingerprint}"}
            record = _created(command, config, source, stores, slug, parents)
        shared = [record.directory, record.record]
    broadcast_object_list(shared)
    if not accelerator.is_main_process:
        record = NullRun(*shared)
    with record:
        try:
            yield record
        except (Interrupted, KeyboardInterrupt) as stop:
            # A stop is no failure, and all that went before the last checkpoint is kept.
            reason = str(stop) or "stopped at once"
            record.close("interrupted", reason)
            console.print(f"{reason[:1].upper()}{reason[1:]}. Go on with:", highlight=False)
            typed = f"  {as_typed()} {command} --resume {shlex.quote(str(record.directory))}"
            console.print(typed, style="bold", soft_wrap=True, markup=False, highlight=False)
            raise


def require_parent(record: "Run", parent: str, encoder: str) -> None:
    """Refuse to go on with a run that began from another encoder than `parent`, which `encoder` names to the user.

    Raises:
        UserError: it did; the run is closed.
    """
    if record.record["parents"]["encoder"] != parent:
        record.close("interrupted")
        raise UserError(
            f"{encoder} is not the encoder that {record.directory} began with: it was made anew since. Put it back as "
            "it was, or begin a new run without --resume."
        )


def _created(
    command: str,
    config: Resumable,
    source: "Source",
    stores: "Mapping[str, ImageStore]",
    slug: str,
    parents: Mapping[str, str],
) -> "Run":
    from fewlabel.tracking.run import Run

    # Some damage shows in an image's header, some only in its pixels.
    bad = [*source.bad, *(bad for store in stores.values() for bad in store.bad)]
    record = Run.create(
        command,
        as_dict(_repeatable(config)),
        out=config.run.out,
        slug=slug,
        parents=parents,
        source={
            **record_of(source, config.source),
            "images": {split: len(store) for split, store in stores.items()},
            "bad_images": [{"id": image.id, "reason": image.reason} for image in bad],
        },
        project=config.run.project,
    )
    keep_left_out(source, bad, record.directory)
    return record


def _resumed(command: str, config: Resumable, source: "Source", directory: Path) -> "Run":
    from fewlabel.tracking.run import Run

    record = Run.resume(directory, command=command)
    record.require_config(as_dict(_repeatable(config)), free=FREE)
    if record.record["source"]["fingerprint"] != source.fingerprint:
        record.close("interrupted")
        raise UserError(
            f"The images of {config.source.data} are not those that {directory} began with. "
            "Put them back as they were, or begin a new run without --resume."
        )
    return record


def _repeatable(config: Resumable) -> Resumable:
    """What `--config` takes over: all but the place of this run and how it was called."""
    return replace(config, run=replace(config.run, out=None), resume=None, config=None, json=False)
