"""Processes that take turns at being measured, one for each side of a comparison."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["PEER_SETTINGS", "Side", "answers"]

PEER_SETTINGS = {"THP_MEM_ALLOC_ENABLE": "0"}
"""Torch's default, which importing Fewlabel changes: a user of the peer has it."""

_ROOT = Path(__file__).resolve().parent.parent


class Side:
    """A process of its own, so that no side inherits another's memory or threads.

    Outside its turn it is stopped with all its children: nothing that it would prepare ahead takes time from
    the other side, nor is it given away for free.

    Attributes:
        facts: what the process said of itself once it was ready.
    """

    def __init__(
        self, module: str, *arguments: str, settings: Mapping[str, str] | None = None, python: Path | None = None
    ) -> None:
        """Start `python -m <module> <arguments>`, which uses `answers`, and wait until it is ready.

        `settings` are environment variables; `python` is that of another environment.
        """
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable if python is None else str(python.absolute()), "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            # Threads that sleep while they wait, rather than spin, leave the cores to a side's other processes.
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **(settings or {})},
            process_group=0,
        )
        try:
            self.facts = self._read()
        except BaseException:
            self.close()
            raise

    def ask(self, request: str) -> dict[str, Any]:
        """Let it do what a line of its standard input asks for; its answer."""
        os.killpg(self._process.pid, signal.SIGCONT)
        assert self._process.stdin is not None
        self._process.stdin.write(f"{request}\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End it: its standard input is over, and if that doesn't do it within a minute, it is killed."""
        assert self._process.stdin is not None
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGCONT)
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            try:
                self._process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._module} ended before it answered; what it printed above says why.")
        os.killpg(self._process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        answer: dict[str, Any] = json.loads(line)
        return answer


def answers() -> Callable[[dict[str, Any]], None]:
    """In a side's process: what sends an answer; whatever else it prints goes to standard error from now on."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(facts: dict[str, Any]) -> None:
        print(json.dumps(facts), file=channel, flush=True)

    return answer
