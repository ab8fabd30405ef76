"""Exact search by brute force in torch or in scikit-learn, for the retrieval benchmark. A process of `sides.Side`."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import Memory
from benchmarks.sides import answers

NEIGHBOURS = 10
BATCH = 128
"""Queries of torch at a time: a million scores each, half a gibibyte together."""

Search = Callable[[NDArray[np.float32]], NDArray[np.int64]]


def _torch(vectors: NDArray[np.float32]) -> Search:
    bank = torch.from_numpy(vectors)

    def search(queries: NDArray[np.float32]) -> NDArray[np.int64]:
        batches = torch.from_numpy(queries).split(BATCH)
        return torch.cat([(batch @ bank.T).topk(NEIGHBOURS).indices for batch in batches]).numpy()

    return search


def _sklearn(vectors: NDArray[np.float32]) -> Search:
    from sklearn.neighbors import NearestNeighbors

    # Unit vectors have the same neighbours by distance as by cosine, and it is the faster of the two there.
    neighbours: Any = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute", metric="euclidean").fit(vectors)
    return lambda queries: neighbours.kneighbors(queries, return_distance=False)


def serve(library: str, folder: Path) -> None:
    answer = answers()
    queries = np.load(folder / "queries.npy")
    memory = Memory(torch.device("cpu"))
    search = {"torch": _torch, "sklearn": _sklearn}[library](np.load(folder / "vectors.npy"))
    search(queries[:2])
    answer({})
    for _ in sys.stdin:
        started = time.perf_counter()
        found = search(queries)
        seconds = time.perf_counter() - started
        np.save(folder / f"found-{library}.npy", found)
        answer({"seconds": seconds, "mib": memory.peak_mib()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=["torch", "sklearn"])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    serve(options.library, options.folder)
