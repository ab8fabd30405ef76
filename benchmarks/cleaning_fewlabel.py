"""What `fewlabel clean` finds in a folder, for the cleaning benchmark. A process of `sides.Side`."""

import argparse
import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet

from benchmarks.dirty_folder import GROUP_PATTERN
from benchmarks.sides import answers
from fewlabel.pipelines.clean import CleanedSource, Config, run
from fewlabel.tracking.config import RunConfig


def serve(folder: Path, scratch: Path, out: Path) -> None:
    answer = answers()
    answer({})
    for turn, _ in enumerate(sys.stdin):
        record = scratch / f"cleaned-{turn}"
        config = Config(
            source=CleanedSource(data=str(folder), group_pattern=GROUP_PATTERN), run=RunConfig(out=record), json=True
        )
        started = time.perf_counter()
        run(config)
        seconds = time.perf_counter() - started
        out.write_text(json.dumps(_found(record / "manifest.parquet")), encoding="utf-8")
        answer({"seconds": seconds})


def _found(manifest: Path) -> dict[str, Any]:
    """Ids by kind of finding, and the groups of duplicates."""
    images: dict[str, list[str]] = defaultdict(list)
    groups: dict[str, dict[str, list[str]]] = {
        "exact_duplicate": defaultdict(list),
        "near_duplicate": defaultdict(list),
    }
    for row in pyarrow.parquet.read_table(manifest).to_pylist():
        for kind in row["findings"]:
            images[kind].append(row["id"])
        for kind, column in (("exact_duplicate", "pixels"), ("near_duplicate", "duplicate_group")):
            if kind in row["findings"]:
                groups[kind][row[column]].append(row["id"])
    return {"images": images, "groups": {kind: list(found.values()) for kind, found in groups.items()}}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    serve(**vars(options))
