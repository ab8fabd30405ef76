"""A process that takes one training of a study after another, until none is left."""

import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fewlabel.console import say
from fewlabel.errors import Diverged, UserError
from fewlabel.search.candidate import Candidate
from fewlabel.search.claims import BUSY, Claim, Rules, Stage, claim, conclude
from fewlabel.search.notes import write_note
from fewlabel.search.slots import DIVERGED, FAILED, OUT_OF_MEMORY, STOPPED, STOPPED_EARLY, TRAINED
from fewlabel.search.storage import telling_of_loss
from fewlabel.search.study import Studies
from fewlabel.search.watching import ending_with, noting_signals, repeating
from fewlabel.tracking.lock import DirectoryLock, is_locked

if TYPE_CHECKING:
    from fewlabel.search.objective import Outcome
    from fewlabel.tracking.run import Run
    from fewlabel.training.checkpoint import Checkpoint

__all__ = ["Share", "Stopped", "Trainer", "Worker", "follow"]

POLL_SECONDS = 0.5
"""How often a worker with nothing to do looks whether the others are done."""

Share = Callable[[list[Any]], Any]
"""Puts what the main process has in the list into those of all processes, as `accelerate` does."""


class Stopped(Exception):
    """A training was ended before its time, by the pruner (`STOPPED_EARLY`) or the user (`STOPPED`)."""


class Trainer(Protocol):
    """What gives a candidate its value."""

    def train(
        self,
        candidate: Candidate,
        log: "Run",
        report: Callable[[int, float], None],
        *,
        full: bool,
        checkpoint: "Checkpoint | None",
    ) -> "Outcome":
        """Train `candidate`, on all processes alike, and say what it is worth.

        Args:
            candidate: what is tried.
            log: its record.
            report: called with the step and an intermediate value; it may raise `Stopped`.
            full: at full length, else as long as a trial is.
            checkpoint: where to go on from.

        Raises:
            Stopped: `report` did.
            Diverged: the loss is no number any more.
        """


@dataclass
class Worker:
    """The main process of a worker; its other processes `follow` it.

    Args:
        studies: the search.
        stages: what it consists of.
        rules: how candidates are chosen, refused and stopped.
        trainer: gives a candidate its value.
        directory: of the search's run; the search locks it for as long as it goes on.
        index: of this worker in the run, from 0.
        about: `Run.create`'s config, source, parents and project for every trial.
        share: see `Share`; a single process has nothing to do.
        processes: of this worker.
    """

    studies: Studies
    stages: list[Stage]
    rules: Rules
    trainer: Trainer
    directory: Path
    index: int
    about: Mapping[str, Any] = field(default_factory=dict)
    share: Share = lambda values: None
    processes: int = 1
    _signals: list[int] = field(default_factory=list)

    def work(self) -> int:
        """Work until all is settled or a signal comes; the signal's number, or 0.

        Raises:
            UserError: the base could not be trained, the storage was lost, or something that would keep all trials from
                training.
        """
        place = self.directory / "workers" / str(self.index)
        place.mkdir(parents=True, exist_ok=True)
        while is_locked(place):
            # One whose search was killed ends with its step.
            time.sleep(POLL_SECONDS)
        lock = DirectoryLock(place)
        try:
            loss = telling_of_loss(self.studies.storage)
            with loss, noting_signals(self._signals), ending_with(self.directory):
                while not self._signals:
                    found = claim(self.studies, self.stages, self.rules, place)
                    if found is None:
                        break
                    if isinstance(found, Claim):
                        self._take(found)
                    else:
                        self.share([found])
                        time.sleep(POLL_SECONDS)
                self.share([None])
        finally:
            lock.release()
        return self._signals[0] if self._signals else 0

    def _take(self, found: Claim) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            with self._heartbeats(found):
                refusal = self.rules.refusal(found)
                if refusal is None:
                    self._train(found)
                else:
                    conclude(found.study, found.trial, refusal, self.rules)
        except UpdateFinishedTrialError:
            # Too long without a heartbeat reaching the storage: the slot is another's by now.
            say(f"Trial {found.trial.number} was given to another worker, as no sign of life came from this one.")

    def _train(self, found: Claim) -> None:
        record, resumed = self._recorded(found)
        with record:
            found.trial.set_user_attr("run", str(record.directory.absolute()))
            found.trial.set_user_attr("wandb_id", record.wandb_id)
            write_note(found.trial)
            checkpoint = _checkpoint(record.directory) if resumed else None
            record.rewind(checkpoint.step if checkpoint else -1)
            for line in record.history() if checkpoint else []:
                if line.get("objective") is not None:
                    self.rules.stops(found, line["step"], line["objective"])
            self.share([_Order(found.candidate, found.full, record.directory, record.record, resumed)])

            def report(step: int, value: float) -> None:
                stops = self.rules.stops(found, step, value)
                decision = [STOPPED if self._signals else STOPPED_EARLY if stops else None]
                self.share(decision)
                if decision[0]:
                    raise Stopped(decision[0])

            try:
                outcome = self.trainer.train(found.candidate, record, report, full=found.full, checkpoint=checkpoint)
            except BaseException as error:
                if not self._broken_off(found, record, error):
                    raise
                return
            value = {"mean": outcome.value, "low": outcome.low, "high": outcome.high}
            said: dict[str, Any] = {"value": value, "figures": outcome.figures, "seconds": outcome.seconds}
            for name, told in said.items():
                found.trial.set_user_attr(name, told)
            record.finish({"objective": value, **outcome.figures})
            self._conclude(found, record, TRAINED)

    def _broken_off(self, found: Claim, record: "Run", error: BaseException) -> bool:
        """Record how a training ended before its time; whether this process can go on with the next."""
        outcome, goes_on = _outcome_of(error)
        if outcome.startswith((OUT_OF_MEMORY, DIVERGED)):
            # The sampler keeps away from what violates a constraint.
            found.trial.set_constraint("trainable", 1.0)
        if outcome == STOPPED:
            record.close("interrupted", str(error) or "stopped at once")
            self._signals.append(getattr(error, "number", signal.SIGINT))
        elif outcome == STOPPED_EARLY:
            record.finish({}, outcome=outcome)
        else:
            record.close("failed", outcome)
        self._conclude(found, record, outcome)
        # What only one process could not hold leaves the others waiting for it.
        return goes_on and (outcome != OUT_OF_MEMORY or self.processes == 1)

    def _conclude(self, found: Claim, record: "Run", outcome: str) -> None:
        write_note(found.trial)
        conclude(found.study, found.trial, outcome, self.rules)
        if outcome != STOPPED and not outcome.startswith(FAILED):
            shutil.rmtree(record.checkpoints, ignore_errors=True)

    def _recorded(self, found: Claim) -> "tuple[Run, bool]":
        """The record of a trial: that of the one broken off before it, if it lies here, else a new one."""
        from fewlabel.tracking.run import Run

        earlier = None if found.before is None else found.before.user_attrs.get("run")
        if earlier is not None and (Path(earlier) / "config.json").is_file():
            try:
                return Run.resume(Path(earlier), command="trial"), True
            except UserError:
                # It has finished, or its worker still writes it.
                pass
        folder = self.directory / ("full-length" if found.full else "trials")
        about = dict(self.about)
        config = {
            **about.pop("config", {}),
            "slot": found.slot.key,
            "full_length": found.full,
            "candidate": found.candidate.as_json(),
            "cost": found.trial.user_attrs["cost"],
            "cost_ratio": found.trial.user_attrs["cost_ratio"],
        }
        out = folder / f"{found.trial.number:04d}"
        return Run.create("trial", config, out=out, group=self.studies.name, **about), False

    @contextmanager
    def _heartbeats(self, found: Claim) -> Iterator[None]:
        """Tell the storage, as often as it asks, that this trial's worker lives."""
        interval = self.studies.storage.get_heartbeat_interval() or 1
        with repeating(interval, lambda: self.studies.beat(found.trial), last=self.studies.storage.remove_session):
            yield


def follow(trainer: Trainer, share: Share) -> None:
    """Train what the worker's main process trains, in its other processes."""
    from fewlabel.tracking.run import NullRun

    def report(step: int, value: float) -> None:
        decision: list[Any] = [None]
        share(decision)
        if decision[0]:
            raise Stopped(decision[0])

    with noting_signals([]):
        while True:
            box: list[Any] = [None]
            share(box)
            order = box[0]
            if order is None:
                return
            if order == BUSY:
                continue
            record = NullRun(order.directory, order.record)
            checkpoint = _checkpoint(order.directory) if order.resumed else None
            try:
                trainer.train(order.candidate, record, report, full=order.full, checkpoint=checkpoint)
            except Exception as error:
                if not _outcome_of(error)[1]:
                    raise


@dataclass(frozen=True)
class _Order:
    """What a worker's processes are to train."""

    candidate: Candidate
    full: bool
    directory: Path
    record: dict[str, Any]
    resumed: bool


def _outcome_of(error: BaseException) -> tuple[str, bool]:
    """What a training's exception makes of its trial, and whether the next trial may go better."""
    if isinstance(error, Stopped):
        return str(error), True
    if isinstance(error, Diverged):
        return f"{DIVERGED}: {error}", True
    if isinstance(error, MemoryError):
        return OUT_OF_MEMORY, True
    from fewlabel.training.loop import Interrupted

    if isinstance(error, Interrupted | KeyboardInterrupt):
        return STOPPED, True
    return f"{FAILED}: {type(error).__name__}: {error}", False


def _checkpoint(directory: Path) -> "Checkpoint | None":
    from fewlabel.training.checkpoint import latest_checkpoint

    return latest_checkpoint(directory / "checkpoints")
