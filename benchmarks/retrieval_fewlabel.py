"""Our side of the retrieval benchmark. A process of `sides.Side`.

`build` makes the index and writes it, `search` opens what was written as the commands do, mapped.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Memory
from benchmarks.sides import answers
from fewlabel.retrieval.plan import Plan
from fewlabel.retrieval.vectors import VectorIndex

NEIGHBOURS = 10
ALONE = 200
"""Queries asked one by one."""


def build(folder: Path) -> None:
    answer = answers()
    vectors = np.load(folder / "vectors.npy")
    answer({})
    for _ in sys.stdin:
        started = time.perf_counter()
        index = VectorIndex.build(vectors, np.arange(len(vectors)), recall=0.99)
        seconds = time.perf_counter() - started
        index.write(folder / "index.faiss")
        (folder / "plan.json").write_text(json.dumps(index.plan.as_json()), encoding="utf-8")
        answer({"seconds": seconds, "plan": index.plan.as_json()})


def search(folder: Path) -> None:
    answer = answers()
    queries = np.load(folder / "queries.npy")
    memory = Memory(torch.device("cpu"))
    started = time.perf_counter()
    plan = Plan.from_json(json.loads((folder / "plan.json").read_text(encoding="utf-8")))
    index = VectorIndex.read(folder / "index.faiss", plan, mapped=True)
    opened = time.perf_counter() - started
    answer({"seconds": opened})
    for request in sys.stdin:
        started = time.perf_counter()
        if request.strip() == "alone":
            for query in queries[:ALONE]:
                index.search(query[None], NEIGHBOURS)
            answer({"seconds": (time.perf_counter() - started) / ALONE})
        else:
            _, found = index.search(queries, NEIGHBOURS)
            seconds = time.perf_counter() - started
            np.save(folder / "found-fewlabel.npy", found)
            answer({"seconds": seconds, "mib": memory.peak_mib(), "own_mib": memory.own_mib()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=["build", "search"])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    {"build": build, "search": search}[options.work](options.folder)
