"""Several processes on one machine: starting them, checking what came, and what the hardware can do."""

import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from fewlabel.errors import UserError
from fewlabel.training.config import Precision, TrainingConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["choose_precision", "first_to_fail", "launched", "make_accelerator", "run_processes"]


def launched() -> bool:
    """Whether a launcher (ours, torchrun, `accelerate launch`) started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


_TOKEN = "FEWLABEL_FAILURE_TOKEN"
"""Environment variable with the file descriptor of a pipe that holds one byte: who reads it may report."""


def first_to_fail() -> bool:
    """Whether this process is the first of those that `run_processes` started to ask, and so to report its error.

    What the others report after it is the same error, or that a process has gone. Under another launcher every
    process is told yes: an error twice is better than an error lost.
    """
    if _TOKEN not in os.environ:
        return True
    try:
        return len(os.read(int(os.environ[_TOKEN]), 1)) == 1
    except BlockingIOError:
        return False


def run_processes(arguments: Sequence[str], count: int) -> int:
    """Run `python -m fewlabel <arguments>` in `count` processes of one group; their first bad exit status, or 0.

    A signal to stop is passed on to all of them; when one fails the others are stopped.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    threads = max(1, (os.cpu_count() or 1) // count)
    reading, writing = os.pipe()
    os.write(writing, b"!")
    os.set_blocking(reading, False)
    shared = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        _TOKEN: str(reading),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "fewlabel", *arguments],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            # An open writing end keeps a reader that comes too late from seeing an end of file.
            pass_fds=(reading, writing),
            # Out of the terminal's foreground: Ctrl-C reaches this process alone, which passes it on once.
            process_group=0,
        )
        for rank in range(count)
    ]

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    # What is ignored, as SIGHUP under nohup, stays so.
    heard = [n for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in heard}
    try:
        while True:
            statuses = [process.poll() for process in processes]
            failed = next((status for status in statuses if status), None)
            if failed is not None:
                _stop(processes)
                return failed if failed > 0 else 128 - failed
            if all(status == 0 for status in statuses):
                return 0
            time.sleep(0.1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _stop(processes)
        os.close(reading)
        os.close(writing)


def _stop(processes: Sequence["subprocess.Popen[bytes]"], patience: float = 10.0) -> None:
    """Wait a little for processes that are ending by themselves, then terminate, then kill."""
    for send in (lambda process: None, subprocess.Popen.terminate, subprocess.Popen.kill):
        for process in processes:
            if process.poll() is None:
                send(process)
        until = time.monotonic() + patience
        while any(process.poll() is None for process in processes) and time.monotonic() < until:
            time.sleep(0.05)


def choose_precision(wanted: Precision) -> Precision:
    """What `auto` means on this machine: never a slower or less exact kind without a gain.

    Raises:
        UserError: fp16 without a GPU.
    """
    import torch

    if wanted == "fp16" and not torch.cuda.is_available():
        raise UserError("--precision fp16 needs a GPU. On a CPU use bf16, or leave out --precision.")
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if _cpu_computes_bf16() else "fp32"


def _cpu_computes_bf16() -> bool:
    """Whether the processor has bf16 instructions; without them autocast is slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def make_accelerator(config: TrainingConfig, precision: Precision) -> "Accelerator":
    """The Accelerator of this process; in place of one of another precision, where it had one.

    Raises:
        UserError: the launcher gave another number of processes than --processes asked for.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    # The name that torch now prefers is unknown to the older versions that we take.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
    mixed_precision = "no" if precision == "fp32" else precision
    shared = AcceleratorState._shared_state
    if shared and shared.get("_mixed_precision") != mixed_precision:
        # Accelerate holds one precision a process, and refuses another: in Python two commands may follow each other.
        AcceleratorState._reset_state()
    accelerator = Accelerator(
        # Accelerate joins processes without a GPU only where it is told that they compute on the CPU.
        cpu=launched() and not torch.accelerator.is_available(),
        mixed_precision=mixed_precision,
        # Synchronised batch norms hold equal buffers everywhere; broadcasting them each step is waste.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)],
    )
    asked = config.processes or int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != asked:
        raise UserError(
            f"{asked} processes were asked for, but {accelerator.num_processes} take part. Start "
            f"`fewlabel` itself with --processes {asked}, or with a launcher that sets RANK and WORLD_SIZE."
        )
    return accelerator
