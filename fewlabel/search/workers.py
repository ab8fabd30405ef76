"""The workers of a search on this machine: started, watched, started anew when they die, and stopped."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from fewlabel.console import say
from fewlabel.errors import UserError
from fewlabel.search.slots import MOST_DEAD

__all__ = ["environment_of", "supervise"]

POLL_SECONDS = 0.2
TOLD_LINES = 12
"""Of a worker's log, when it has to be told."""


def supervise(
    command: Sequence[str],
    environments: Sequence[Mapping[str, str]],
    logs: Path,
    *,
    progress: Callable[[], int],
) -> int:
    """Run `command` in as many processes as there are environments until all are done; the signal that ended it, or 0.

    A worker that dies is started anew: a trial may be too large for the memory, and the system then kills its process.
    A signal to stop is passed on.

    Args:
        command: of a worker, which ends with status 0 once nothing is left to do.
        environments: what each has beside this process's own.
        logs: folder; what worker n says goes to n/log.txt in it.
        progress: called about every second; how much is settled.

    Raises:
        UserError: a worker reported one, or workers die again and again without anything being settled between.
    """
    processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(index: int) -> None:
        log = logs / str(index) / "log.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            processes[index] = subprocess.Popen(
                command,
                env={**os.environ, **environments[index]},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Out of the terminal's foreground: Ctrl-C reaches this process alone, which passes it on once.
                process_group=0,
            )

    with _passing_on(processes) as signals:
        try:
            for index in range(len(environments)):
                start(index)
            settled, deaths, told = progress(), 0, time.monotonic()
            while processes:
                time.sleep(POLL_SECONDS)
                ended = {index: process for index, process in processes.items() if process.poll() is not None}
                if ended or time.monotonic() > told + 1:
                    now, told = progress(), time.monotonic()
                    settled, deaths = now, 0 if now > settled else deaths
                for index, process in ended.items():
                    del processes[index]
                    status = process.returncode
                    if status == 0 or signals:
                        continue
                    log = logs / str(index) / "log.txt"
                    deaths += 1
                    if status == 2 or deaths > MOST_DEAD * len(environments):
                        raise UserError(f"Worker {index} ended. The last it said, in {log}:\n{_last_lines(log)}")
                    how = signal.Signals(-status).name if status < 0 else f"status {status}"
                    say(f"Worker {index} died ({how}; see {log}); its trial is given to another, and it starts anew.")
                    start(index)
        finally:
            for process in processes.values():
                process.terminate()
            for process in processes.values():
                process.wait()
        progress()
    return signals[0] if signals else 0


@contextmanager
def _passing_on(processes: "Mapping[int, subprocess.Popen[bytes]]") -> Iterator[list[int]]:
    """Send signals to stop on to all `processes`, and collect them."""
    signals: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        if not signals:
            say("Stopping: each worker ends with its step and writes a checkpoint; once more Ctrl-C stops at once.")
        signals.append(number)
        for process in list(processes.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    # What is ignored, as SIGHUP under nohup, stays so.
    heard = [n for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in heard}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-TOLD_LINES:])


def environment_of(index: int, workers: int, processes: int, *, cores: int, devices: Sequence[str]) -> dict[str, str]:
    """What a worker's processes take of the machine, so that workers don't stand in each other's way.

    Args:
        index: of the worker, from 0.
        workers: how many there are.
        processes: of each worker.
        cores: of the machine; they are divided among all processes.
        devices: names of its GPUs; each process has one of its own while there are as many.
    """
    threads = str(max(1, cores // (workers * processes)))
    taken = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}
    if devices:
        own = sorted({devices[(index * processes + rank) % len(devices)] for rank in range(processes)})
        taken["CUDA_VISIBLE_DEVICES"] = ",".join(own)
    return taken
