"""`python -m benchmarks [--data PATH] [--photos FOLDER] [--only NAME ...]`: measure, print and write the table."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import report
from benchmarks.rows import Row
from fewlabel.console import console
from fewlabel.errors import UserError

RESULTS = Path(__file__).parent / "results"


def _nt_xent(options: argparse.Namespace) -> list[Row]:
    from benchmarks.bench_nt_xent import run

    return run()


def _views(options: argparse.Namespace) -> list[Row]:
    from benchmarks.bench_views import run

    return run(options.photos)


def _training(options: argparse.Namespace) -> list[Row]:
    from benchmarks.bench_training import run

    return run(options.data)


BENCHMARKS: dict[str, tuple[str | None, Callable[[argparse.Namespace], list[Row]]]] = {
    "nt-xent": (None, _nt_xent),
    "views": ("photos", _views),
    "training": ("data", _training),
}
"""Each with the option that gives its images."""


def main() -> int:
    """Run every benchmark whose images are given; 0 also where a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Fewlabel beside its peers.")
    parser.add_argument("--data", type=Path, help="for training: a folder or table of small colour images (CIFAR-10)")
    parser.add_argument("--photos", type=Path, help="for views: a folder with 128 or more JPEG files of about 400 px")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), help="by default all")
    options = parser.parse_args()
    for name in ("data", "photos"):
        path = getattr(options, name)
        if path is not None and not path.exists():
            parser.error(f"--{name}: there is no {path}")

    load = os.getloadavg()[0]
    words = ["--only", *options.only] if len(options.only) < len(BENCHMARKS) else []
    words = [f"--{name} {name.upper()}" for name in ("data", "photos") if getattr(options, name)] + words
    missing = {
        name: needed
        for name, (needed, _) in BENCHMARKS.items()
        if name in options.only and needed is not None and getattr(options, needed) is None
    }
    for name, needed in missing.items():
        console.print(f"Skipped {name}: give its images with --{needed}.")
    chosen = [name for name in BENCHMARKS if name in options.only and name not in missing]
    skipped = [name for name in BENCHMARKS if name not in chosen]
    rows: list[Row] = []
    for name in chosen:
        console.print(f"Measuring {name} ...")
        rows += BENCHMARKS[name][1](options)
    console.print(report.table(rows))
    origin = report.about(" ".join(["python -m benchmarks", *words]), skipped, load)
    for path in report.write(RESULTS, rows, origin):
        console.print(f"Wrote {path.relative_to(RESULTS.parent.parent)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(str(error))
