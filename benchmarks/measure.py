"""Time and memory of a piece of work in this process."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

__all__ = ["Memory", "median_seconds"]


def median_seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """The median time of `repeats` calls; whoever wants a warm-up calls before."""
    seconds = []
    for _ in range(repeats):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return median(seconds)


class Memory:
    """The most memory in use since this was made, above what was in use then.

    On a CPU the process's resident memory as Linux counts it, on a GPU what torch's allocator gave out.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
        else:
            # Linux forgets the highest mark when 5 is written there.
            Path("/proc/self/clear_refs").write_text("5")
            self._before = _status("VmRSS")
            self._own = _status("RssAnon")

    def peak_mib(self) -> float:
        """In MiB."""
        if self._device.type == "cuda":
            return (torch.cuda.max_memory_allocated(self._device) - self._before) / 2**20
        return (_status("VmHWM") - self._before) / 2**10

    def own_mib(self) -> float:
        """In MiB, what a CPU's process holds now apart from pages of files, which Linux takes back when it needs to."""
        return (_status("RssAnon") - self._own) / 2**10


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
