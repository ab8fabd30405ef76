"""What autofaiss makes of the vectors, for the retrieval benchmark. A process of `sides.Side` in a venv of its own.

It is given twice the memory of the vectors, as much as any of its choices takes. Its index is searched with the least
efSearch (or else what it set itself) that finds 0.99 of the neighbours that exact search, which ran before, found.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import faiss
import numpy as np
from autofaiss import build_index

from benchmarks.sides import answers

NEIGHBOURS = 10
RECALL = 0.99
EFFORTS = (16, 32, 64, 128, 256, 512, 1024)


def serve(folder: Path) -> None:
    answer = answers()
    vectors, queries = np.load(folder / "vectors.npy"), np.load(folder / "queries.npy")
    exact = np.load(folder / "found-torch.npy")
    started = time.perf_counter()
    index, about = build_index(
        vectors,
        save_on_disk=False,
        metric_type="ip",
        max_index_memory_usage=f"{2 * vectors.nbytes // 2**20}MB",
        current_memory_available=f"{6 * vectors.nbytes // 2**20}MB",
        nb_cores=os.cpu_count(),
        verbose=30,
    )
    built = time.perf_counter() - started

    def recall() -> float:
        found = index.search(queries, NEIGHBOURS)[1]
        return float(np.mean([len(set(a) & set(b)) / NEIGHBOURS for a, b in zip(found, exact, strict=True)]))

    setting, reached = about["index_param"], recall()
    if "efSearch" in setting:
        for effort in EFFORTS:
            setting = f"efSearch={effort}"
            faiss.ParameterSpace().set_index_parameters(index, setting)
            if (reached := recall()) >= RECALL:
                break
    answer({"seconds": built, "factory": about["index_key"], "setting": setting, "recall": reached})
    for _ in sys.stdin:
        started = time.perf_counter()
        index.search(queries, NEIGHBOURS)
        answer({"seconds": time.perf_counter() - started})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    serve(parser.parse_args().folder)
