"""Search among many vectors with what `auto` makes of them, beside exact brute force and autofaiss's choice.

All sides have the same vectors, queries and cores, and take turns. A search is of all queries at once, for ten
neighbours.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.retrieval_vectors import CLUSTERS, WIDTH, write_clustered
from benchmarks.rows import Row, at_least
from benchmarks.sides import PEER_SETTINGS, Side

__all__ = ["run"]

QUERIES = 1000
ROUNDS = 3
LEAST_SPEED = 15.0
LEAST_RECALL = 0.99
SEED = 0


def run(count: int = 1_000_000, autofaiss: Path | None = None) -> list[Row]:
    """Speed, recall, memory and time to build.

    Args:
        count: vectors.
        autofaiss: the Python of a virtual environment that has it.
    """
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        write_clustered(folder / "vectors.npy", count, SEED, part=0)
        write_clustered(folder / "queries.npy", QUERIES, SEED, part=1)
        with Side("benchmarks.retrieval_fewlabel", "build", scratch) as builder:
            built = builder.ask("build")
        file_mib = (folder / "index.faiss").stat().st_size / 2**20
        sides = {"fewlabel": stack.enter_context(Side("benchmarks.retrieval_fewlabel", "search", scratch))}
        for name in ("torch", "sklearn"):
            sides[name] = stack.enter_context(Side("benchmarks.retrieval_exact", name, scratch, settings=PEER_SETTINGS))
        last: dict[str, dict[str, Any]] = {}
        opened = sides["fewlabel"].facts["seconds"]
        seconds = _turns(sides, last)
        alone = sides["fewlabel"].ask("alone")["seconds"]
        exact = np.load(folder / "found-torch.npy")
        found = np.load(folder / "found-fewlabel.npy")
        if autofaiss is not None:
            other = stack.enter_context(
                Side("benchmarks.retrieval_autofaiss", scratch, settings=PEER_SETTINGS, python=autofaiss)
            )
            peer = other.facts
            pair = _turns({"fewlabel": sides["fewlabel"], "autofaiss": other}, last)
    recall = float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, exact, strict=True)]))
    rates = {name: QUERIES / taken for name, taken in seconds.items()}
    better = max(("torch", "sklearn"), key=rates.__getitem__)
    plan = built["plan"]
    what = f"{count:,} vectors of width {WIDTH}"
    set_to = ", ".join(f"{name} {value}" for name, value in plan["parameters"].items()) or "exact"
    rows = [
        at_least(
            LEAST_SPEED,
            f"queries a second, {what}, beside the better brute force",
            rates["fewlabel"],
            rates[better],
            "/s",
            note=f"{plan['factory']} ({set_to}), recall {recall:.4f}; torch {rates['torch']:.1f}/s, scikit-learn "
            f"{rates['sklearn']:.1f}/s; one by one {1000 * alone:.2f} ms a query; {CLUSTERS:,} clusters",
        ),
        Row(
            name=f"recall@10 of {QUERIES:,} queries, {what}",
            ours=recall,
            peer=1.0,
            ratio=recall,
            unit="",
            target=f"at least {LEAST_RECALL:g}",
            met=recall >= LEAST_RECALL,
            note=f"when it was built {plan['recall']['measured']:.4f}, over {plan['recall']['queries']:,} others",
        ),
        _as_it_comes(
            f"memory of a process that searches, {what}, beside {better}",
            last["fewlabel"]["mib"],
            last[better]["mib"],
            "MiB",
            f"{last['fewlabel']['own_mib']:,.0f} MiB its own, the rest touched pages of a mapped file of "
            f"{file_mib:,.0f} MiB, which the system may take back; opened in {opened:.2f} s",
        ),
    ]
    if autofaiss is None:
        return [
            *rows,
            _as_it_comes(
                f"building the index, {what}, beside that many queries' brute force with {better}",
                built["seconds"],
                count / rates[better],
                "s",
                "training, filling, exact search for held-out queries and tuning; autofaiss was not given",
            ),
        ]
    chosen = f"{peer['factory']} ({peer['setting']}), recall {peer['recall']:.4f}"
    return [
        *rows,
        _as_it_comes(
            f"building the index, {what}, beside autofaiss",
            built["seconds"],
            peer["seconds"],
            "s",
            f"ours with training, exact search for held-out queries and tuning; autofaiss: {chosen}",
        ),
        _as_it_comes(
            f"time of {QUERIES:,} queries, {what}, beside autofaiss's choice",
            pair["fewlabel"],
            pair["autofaiss"],
            "s",
            f"autofaiss: {chosen}",
        ),
    ]


def _turns(sides: dict[str, Side], last: dict[str, dict[str, Any]]) -> dict[str, float]:
    """The median seconds of each side over the rounds, after one that warms up; `last` gets the last answers."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS + 1):
        for name, side in sides.items():
            last[name] = side.ask("search")
            seconds[name].append(last[name]["seconds"])
    return {name: median(taken[1:]) for name, taken in seconds.items()}


def _as_it_comes(name: str, ours: float, peer: float, unit: str, note: str) -> Row:
    """A row that states what it takes; less is better."""
    return Row(name=name, ours=ours, peer=peer, ratio=peer / ours, unit=unit, target="as it comes", met=True, note=note)
