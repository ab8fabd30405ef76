"""NT-Xent forward and backward beside lightly's: time, memory and agreement on the same embeddings.

Each side has a process of its own, so that neither inherits the other's memory or threads. Their steps take
turns, and the medians are compared. Extra memory is the growth of a process's peak resident size over what it
was once imports and embeddings were there.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

TEMPERATURE = 0.1


def run(pairs: int = 8192, width: int = 128, threads: int = 2, repeats: int = 5) -> list[dict[str, Any]]:
    """Rows of name, ours, peer (lightly), ratio (peer / ours) and unit."""
    sides = {side: _start(side, pairs, width, threads) for side in ("ours", "peer")}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    last: dict[str, dict[str, float]] = {}
    try:
        for _ in range(repeats + 1):
            for side, process in sides.items():
                last[side] = _step(process)
                seconds[side].append(last[side]["seconds"])
    finally:
        for process in sides.values():
            process.kill()
            process.wait()
    # The first step warms up: it makes threads and touches memory for the first time.
    times = {side: median(measured[1:]) for side, measured in seconds.items()}
    what = f"NT-Xent, {pairs:,} pairs of width {width}, float32"
    ours, peer = last["ours"], last["peer"]
    return [
        _row(f"{what}: forward and backward", times["ours"], times["peer"], "s"),
        _row(f"{what}: extra peak memory", ours["extra_mib"], peer["extra_mib"], "MiB"),
        _row(f"{what}: loss", ours["loss"], peer["loss"], "nats"),
    ]


def _row(name: str, ours: float, peer: float, unit: str) -> dict[str, Any]:
    return {"name": name, "ours": ours, "peer": peer, "ratio": peer / ours, "unit": unit}


def _start(side: str, pairs: int, width: int, threads: int) -> "subprocess.Popen[str]":
    arguments = [sys.executable, __file__, "--serve", side]
    arguments += ["--pairs", str(pairs), "--width", str(width), "--threads", str(threads)]
    # Threads that sleep while they wait, rather than spin, take nothing from the other side.
    settings = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=settings)
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        raise RuntimeError(f"the process that measures {side} did not start")
    return process


def _step(process: "subprocess.Popen[str]") -> dict[str, float]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("step\n")
    process.stdin.flush()
    answer: dict[str, float] = json.loads(process.stdout.readline())
    return answer


def _serve(side: str, pairs: int, width: int, threads: int) -> None:
    """Do a step for each line of standard input, and answer with its figures in a line of JSON."""
    import torch

    torch.set_num_threads(threads)
    loss_of: Callable[..., torch.Tensor]
    if side == "ours":
        from fewlabel.ssl.nt_xent import nt_xent

        def loss_of(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            return nt_xent(first, second, TEMPERATURE)
    else:
        from lightly.loss import NTXentLoss

        loss_of = NTXentLoss(TEMPERATURE)

    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(pairs, width, generator=generator).requires_grad_() for _ in range(2))
    # What the first product and gradient of a process allocate once (thread pools, the libraries' buffers) is
    # neither loss's own.
    loss_of(first[:8], second[:8]).backward()
    first.grad = second.grad = None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        loss = loss_of(first, second)
        loss.backward()
        seconds = time.perf_counter() - started
        first.grad = second.grad = None
        extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(json.dumps({"seconds": seconds, "extra_mib": extra, "loss": loss.item()}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8192)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--serve", choices=["ours", "peer"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        _serve(options.serve, options.pairs, options.width, options.threads)
        return
    rows = run(options.pairs, options.width, options.threads, options.repeats)
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        ours, peer = f"{row['ours']:.7g}", f"{row['peer']:.7g}"
        print(f"{row['name']:68} ours {ours:>10} lightly {peer:>10} {row['unit']:4} {row['ratio']:6.2f} x")


if __name__ == "__main__":
    main()
