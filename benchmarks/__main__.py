"""`python -m benchmarks [--data PATH] [--photos FOLDER] [--labelled PATH --encoder DIRECTORY] [--only NAME ...]`:
measure, print and write the tables."""

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


def _probe(options: argparse.Namespace) -> list[Row]:
    from benchmarks.bench_probe import run

    return run(options.labelled, options.encoder)


def _index(options: argparse.Namespace) -> list[Row]:
    from benchmarks.bench_index import run

    return run(options.photos, options.photo_encoder)


def _retrieval(options: argparse.Namespace) -> list[Row]:
    from benchmarks.bench_retrieval import run

    return run(options.vectors, options.autofaiss)


def _cleaning(options: argparse.Namespace) -> list[Row]:
    from benchmarks.bench_cleaning import run

    return run(options.photos, options.cleanvision)


def _epochs(options: argparse.Namespace) -> list[Row]:
    from benchmarks.bench_epochs import run

    return run(options.data, options.images, options.runs)


def _pretraining_copies(options: argparse.Namespace) -> list[Row]:
    from benchmarks.bench_pretraining_copies import run

    return run(options.data)


BENCHMARKS: dict[str, tuple[tuple[str, ...], Callable[[argparse.Namespace], list[Row]]]] = {
    "nt-xent": ((), _nt_xent),
    "views": (("photos",), _views),
    "training": (("data",), _training),
    "epochs": (("data", "runs"), _epochs),
    "probe": (("labelled", "encoder"), _probe),
    "index": (("photos",), _index),
    "retrieval": ((), _retrieval),
    "cleaning": (("photos",), _cleaning),
    "pretraining-copies": (("data",), _pretraining_copies),
}
"""Each with the options that give what it needs."""

PATHS = ("data", "photos", "photo_encoder", "labelled", "encoder", "autofaiss", "cleanvision")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def main() -> int:
    """Run every benchmark whose images are given; 0 also where a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Fewlabel beside its peers.")
    parser.add_argument(
        "--data", type=Path, help="for training, epochs and pretraining-copies: small colour images (CIFAR-10)"
    )
    parser.add_argument("--images", type=int, default=45_000, help="for epochs: training images")
    parser.add_argument(
        "--runs", type=Path, help="for epochs, which takes an hour or two: folder of its runs, to go on from"
    )
    parser.add_argument(
        "--photos",
        type=Path,
        help="for views, index and cleaning: 128 or more JPEG files of about 400 px, each class in a folder of its own",
    )
    parser.add_argument(
        "--photo-encoder", type=Path, help="for index: an encoder pretrained on the photos; by default one is made"
    )
    parser.add_argument("--labelled", type=Path, help="for probe: a source of labelled images, such as PneumoniaMNIST")
    parser.add_argument("--encoder", type=Path, help="for probe: an encoder directory")
    parser.add_argument("--vectors", type=int, default=1_000_000, help="for retrieval: how many")
    parser.add_argument(
        "--autofaiss", type=Path, help="for retrieval: the Python of a virtual environment that has autofaiss"
    )
    parser.add_argument(
        "--cleanvision", type=Path, help="for cleaning: the Python of a virtual environment that has cleanvision"
    )
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), help="by default all")
    options = parser.parse_args()
    for name in PATHS:
        path = getattr(options, name)
        if path is not None and not path.exists():
            parser.error(f"{_flag(name)}: there is no {path}")

    load = os.getloadavg()[0]
    words = ["--only", *options.only] if len(options.only) < len(BENCHMARKS) else []
    words = [f"{_flag(name)} {name.upper()}" for name in PATHS if getattr(options, name)] + words
    for name in ("vectors", "images"):
        if getattr(options, name) != parser.get_default(name):
            words = [_flag(name), str(getattr(options, name)), *words]
    if options.runs:
        words = ["--runs", "RUNS", *words]
    missing = {
        name: lacking
        for name, (needed, _) in BENCHMARKS.items()
        if name in options.only and (lacking := [option for option in needed if getattr(options, option) is None])
    }
    for name, lacking in missing.items():
        console.print(f"Skipped {name}: give {' and '.join(map(_flag, lacking))}.")
    chosen = [name for name in BENCHMARKS if name in options.only and name not in missing]
    rows: dict[str, list[Row]] = {}
    for name in chosen:
        console.print(f"Measuring {name} ...")
        # What a probe is worth depends on the images: each source has a result of its own.
        record = f"{name}-{options.labelled.stem}" if name == "probe" else name
        rows[record] = BENCHMARKS[name][1](options)
    console.print(report.table([row for found in rows.values() for row in found]))
    origin = report.about(" ".join(["python -m benchmarks", *words]), load)
    for path in report.write(RESULTS, rows, origin):
        console.print(f"Wrote {path.relative_to(RESULTS.parent.parent)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(str(error))
