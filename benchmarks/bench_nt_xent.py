"""NT-Xent forward and backward beside lightly's: time, memory and agreement on the same embeddings.

Each side has a process of its own, and their steps take turns; the medians are compared. Extra memory is the
growth of a process's peak resident size over what it was once imports and embeddings were there.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks.rows import Row, at_least
from benchmarks.sides import PEER_SETTINGS, Side, answers

__all__ = ["run"]

PAIRS, WIDTH = 8192, 128
TEMPERATURE = 0.1
THREADS = 2
ROUNDS = 5

LEAST_SPEED = 2.0
MOST_MEMORY = 0.08
MOST_DIFFERENCE = 1e-5


def run() -> list[Row]:
    """Time, memory and loss of one batch on the CPU."""
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    last: dict[str, dict[str, Any]] = {}
    with (
        Side("benchmarks.bench_nt_xent", "ours") as ours,
        Side("benchmarks.bench_nt_xent", "peer", settings=PEER_SETTINGS) as peer,
    ):
        for _ in range(ROUNDS + 1):
            for name, side in (("ours", ours), ("peer", peer)):
                last[name] = side.ask("step")
                seconds[name].append(last[name]["seconds"])
    # The first step warms up: it makes threads and touches memory for the first time.
    times = {name: median(taken[1:]) for name, taken in seconds.items()}
    what = f"NT-Xent, {PAIRS:,} pairs of width {WIDTH}"
    note = f"both in fp32 on {THREADS} threads"
    memory = {name: answer["extra_mib"] for name, answer in last.items()}
    loss = {name: answer["loss"] for name, answer in last.items()}
    return [
        at_least(
            LEAST_SPEED,
            f"{what}: forward and backward",
            times["ours"],
            times["peer"],
            "s",
            lower_is_better=True,
            note=note,
        ),
        Row(
            name=f"{what}: extra peak memory",
            ours=memory["ours"],
            peer=memory["peer"],
            ratio=memory["peer"] / memory["ours"],
            unit="MiB",
            target=f"at most {100 * MOST_MEMORY:g} % of the peer's",
            met=memory["ours"] <= MOST_MEMORY * memory["peer"],
            note=f"{100 * memory['ours'] / memory['peer']:.1f} % of the peer's",
        ),
        Row(
            name=f"{what}: loss",
            ours=loss["ours"],
            peer=loss["peer"],
            ratio=loss["peer"] / loss["ours"],
            unit="nats",
            target=f"equal to {MOST_DIFFERENCE:g}",
            met=abs(loss["ours"] - loss["peer"]) <= MOST_DIFFERENCE,
            note=f"they differ by {abs(loss['ours'] - loss['peer']):.1e}",
        ),
    ]


def _serve(side: str) -> None:
    """Do a step for each line of standard input, and answer with its figures."""
    import torch

    answer = answers()
    torch.set_num_threads(THREADS)
    loss_of: Callable[..., torch.Tensor]
    if side == "ours":
        from fewlabel.ssl.nt_xent import nt_xent

        def loss_of(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            return nt_xent(first, second, TEMPERATURE)
    else:
        from lightly.loss import NTXentLoss

        loss_of = NTXentLoss(TEMPERATURE)

    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(PAIRS, WIDTH, generator=generator).requires_grad_() for _ in range(2))
    # What the first product and gradient of a process allocate once (thread pools, the libraries' buffers) is
    # neither loss's own.
    loss_of(first[:8], second[:8]).backward()
    first.grad = second.grad = None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer({})
    for _ in sys.stdin:
        started = time.perf_counter()
        loss = loss_of(first, second)
        loss.backward()
        seconds = time.perf_counter() - started
        first.grad = second.grad = None
        extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        answer({"seconds": seconds, "extra_mib": extra, "loss": loss.item()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=["ours", "peer"])
    _serve(parser.parse_args().side)
