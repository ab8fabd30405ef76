"""`python -m benchmarks.bench_search --data FOLDER --out FOLDER`: what the scaling search finds and what it costs.

Three parts on a random part of CIFAR-10, each a few runs of `fewlabel search`; a part that was broken off goes on when
the same command is given again.

coefficients: compound mode on a small EfficientNet and a small ResNet: the coefficients found beside the paper's, and
the accuracy at about twice the cost through depth, width or resolution alone and through them together.
pruning: the compute to reach the same best value with successive halving and without, with the same seeds.
workers: the time of the same trials with two workers on a PostgreSQL server (--storage), and with one.

Writes results/search.json and results/search.md. The defaults take about 50 minutes on two slow cores.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from benchmarks import report, search_page
from benchmarks.rows import Row, at_least
from benchmarks.search_saving import best_of, ends_of, foretold, replayed, spent
from benchmarks.search_studies import BATCH_SIZE, Images, searched, study_in, timed, trained_again, write_part
from fewlabel.files import read_json, write_json

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

RESULTS = Path(__file__).parent / "results"

NETWORKS = {
    # ImageNet's stem makes it affordable; at 48 px its last map is 2 x 2, which steps of 8 px change little by little.
    "EfficientNet-B0, ImageNet's stem, 48 px": (
        *("--backbone", "efficientnet_b0", "--backbone-option", "small_stem=false", "--image-size", "48"),
    ),
    "ResNet-18, 16 to 48 channels, 32 px": (
        *("--backbone", "resnet18", "--backbone-option", "channels=16,24,32,48", "--image-size", "32"),
    ),
}
TINY = (
    *("--backbone", "resnet18", "--backbone-option", "channels=8,16,24,32", "--backbone-option", "layers=1,1,1,1"),
    *("--image-size", "32", "--mode", "free", "--against", "--tune", "lr"),
)
"""Small enough for many trials; accuracy is the only objective."""

ROUGHLY_TWICE = "2.4x"
"""Of the base's operations: what comes nearest to twice in steps of 8 px are 2.25 and 2.36 times."""
KEPT_FOR_PHI = 4
"""Of --trials, as the search has it."""
EVALUATIONS = 9
"""In a trial of the pruning part."""
AGAIN = 3
"""Times that the best trial of the pruning part is trained again, with other seeds than any search has."""
TEST_IMAGES = 10_000
"""By which these are judged."""
LEAST_SAVING = 2.0
MOST_TIME = 0.6


@dataclass(frozen=True)
class Sizes:
    """How large the parts are."""

    images: Images
    epochs: tuple[int, int]
    """Of each of the networks."""
    candidates: int
    """Of the grid, beside the base and the three alone."""
    small: Images
    """Of the parts with many trials."""
    small_epochs: int
    trials: int
    shared_trials: int
    """Of the part with two workers."""


def coefficients(name: str, data: Path, out: Path, sizes: Sizes, seed: int) -> dict[str, Any]:
    """Compound mode on one network: every training of stage 1."""
    from fewlabel.search.table import rows_of
    from fewlabel.search.verdict import chosen_coefficients, verdict

    epochs = dict(zip(NETWORKS, sizes.epochs, strict=True))[name]
    options = (
        *("--data", str(write_part(data, out, sizes.images)), "--objective", "supervised", *NETWORKS[name]),
        *("--trials", str(4 + KEPT_FOR_PHI + sizes.candidates)),
        *("--budget-flops", ROUGHLY_TWICE, "--pruner", "none", "--seed", str(seed)),
        *("--proxy-epochs", str(epochs), "--evaluate-steps", str(_steps(sizes.images, epochs))),
    )
    slug = NETWORKS[name][1]
    study = study_in(searched(out / f"coefficients-{slug}-{seed}", *options))
    rows = rows_of(study)
    chosen = chosen_coefficients(study)
    return {
        "network": name,
        "seed": seed,
        "epochs": epochs,
        "options": options[2:],
        "chosen": None if chosen is None else chosen.as_json(),
        "verdict": verdict(study),
        "trainings": [
            {
                "slot": row.slot,
                "outcome": row.outcome,
                "scale": row.candidate.as_json(),
                "image_size": (row.cost or {}).get("image_size"),
                "ratio": row.ratio,
                "accuracy": row.value,
                "seconds": row.seconds,
            }
            for row in rows
        ],
    }


def pruning(data: Path, out: Path, sizes: Sizes, seed: int) -> dict[str, Any]:
    """The same study with and without early stopping: what each spent until it had the same best value."""
    found: dict[str, Any] = {"seed": seed}
    trials: dict[str, list[FrozenTrial]] = {}
    for pruner in ("none", "halving"):
        options = (
            *("--data", str(write_part(data, out, sizes.small)), "--objective", "supervised", *TINY),
            *("--trials", str(sizes.trials), "--budget-flops", "2x", "--pruner", pruner, "--seed", str(seed)),
            *("--proxy-epochs", str(sizes.small_epochs)),
            *("--evaluate-steps", str(_steps(sizes.small, sizes.small_epochs) // EVALUATIONS)),
        )
        found.setdefault("options", options[2:])
        study = study_in(searched(out / f"pruning-{pruner}-{seed}", *options))
        trials[pruner] = study.get_trials(deepcopy=False)
    target = min(best_of(each) for each in trials.values())
    for pruner, each in trials.items():
        found[pruner] = {
            "best": best_of(each),
            "trained": sum(bool(trial.intermediate_values) for trial in each),
            "completed": len(ends_of(each)),
            "total": spent(each),
            "to_target": spent(each, target),
            "again": [
                trained_again(
                    out / f"pruning-{pruner}-{seed}",
                    write_part(data, out, replace(sizes.small, test=TEST_IMAGES)),
                    out / f"again-{pruner}-{seed}-{other}",
                    other,
                    *("--epochs", str(sizes.small_epochs)),
                )
                for other in range(AGAIN * (seed + 1), AGAIN * (seed + 2))
            ],
        }
    none = trials["none"]
    return {**found, "target": target, "replayed": replayed(none, seed), "foretold": foretold(none)}


def workers(data: Path, out: Path, sizes: Sizes, storage: str) -> dict[str, Any]:
    """Wall time of the same trials, all of one cost, by one worker and by two, and by one that has one core."""
    options = (
        *("--data", str(write_part(data, out, sizes.small)), "--objective", "supervised", *TINY),
        *("--depth-range", "1", "1", "--width-range", "1", "1", "--resolution-range", "1", "1"),
        *("--trials", str(sizes.shared_trials), "--pruner", "none", "--proxy-epochs", str(sizes.small_epochs)),
        *("--evaluate-steps", str(_steps(sizes.small, sizes.small_epochs))),
    )
    return {
        "options": options[2:],
        "one": timed(out / "one-worker", storage, *options),
        "two": timed(out / "two-workers", storage, *options, "--workers", "2"),
        "one_thread": timed(out / "one-thread", storage, *options, environment={"OMP_NUM_THREADS": "1"}),
    }


def together(known: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """All that is known with what was measured now; studies of early stopping join those of other seeds."""
    found = {**known, **measured, "settings": {**known.get("settings", {}), **measured["settings"]}}
    if "pruning" in known and "pruning" in measured:
        before, now = (dict(each["settings"]["pruning"]) for each in (known, measured))
        seeds = [*before.pop("seeds"), *now.pop("seeds")]
        if before == now:
            by_seed = {one["seed"]: one for one in (*known["pruning"], *measured["pruning"])}
            found["pruning"] = [by_seed[seed] for seed in sorted(by_seed)]
            found["settings"]["pruning"] = {**now, "seeds": sorted(set(seeds))}
    return found


def rows(found: dict[str, Any]) -> list[Row]:
    """What was asked of the search, measured."""
    said = [_saving(study) for study in found.get("pruning", [])]
    if "workers" in found:
        one, two, thread = (found["workers"][name] for name in ("one", "two", "one_thread"))
        said.append(
            at_least(
                1 / MOST_TIME,
                "search: two workers on PostgreSQL beside one",
                two,
                one,
                "s",
                lower_is_better=True,
                note=f"one worker has all {os.cpu_count()} cores for each trial and two have half each; one worker on "
                f"one core takes {thread:.0f} s, so all cores make a trial {thread / one:.2f} times as fast",
            )
        )
        said[-1]["target"] = f"at most {100 * MOST_TIME:.0f} % of the time"
    return said


def _saving(study: dict[str, Any]) -> Row:
    """What early stopping saved with one seed."""
    none, halving = study["none"], study["halving"]
    return at_least(
        LEAST_SAVING,
        f"search: training compute to accuracy {study['target']:.3f}, halving beside none, seed {study['seed']}",
        halving["to_target"]["petaflop"],
        none["to_target"]["petaflop"],
        "PFLOP",
        lower_is_better=True,
        note=f"whole studies {halving['total']['petaflop']:.3g} against {none['total']['petaflop']:.3g} PFLOP, "
        f"{halving['total']['seconds']:.0f} against {none['total']['seconds']:.0f} s; best on validation images "
        f"{halving['best']:.3f} against {none['best']:.3f}; trained again from {len(none['again'])} other seeds, mean "
        f"on test images {mean(halving['again']):.3f} against {mean(none['again']):.3f}",
    )


def _steps(images: Images, epochs: int) -> int:
    return max(EVALUATIONS, images.train // BATCH_SIZE * epochs)


def main() -> int:
    """Run the parts, and write the figures and the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_search", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with CIFAR-10's train.parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs, which go on if they are there")
    parser.add_argument("--storage", help="for workers: postgresql://USER@HOST/DATABASE")
    parser.add_argument("--only", nargs="+", choices=("coefficients", "pruning", "workers"), help="by default all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the first two parts; each is a study")
    parser.add_argument("--images", type=int, default=3072, help="coefficients: training images")
    parser.add_argument("--validation", type=int, default=2000, help="coefficients: validation images")
    parser.add_argument(
        "--epochs", nargs=2, type=int, default=[3, 6], help="coefficients: epochs of the EfficientNet and of the ResNet"
    )
    parser.add_argument("--candidates", type=int, default=3, help="coefficients: beside the base and the three alone")
    parser.add_argument("--small-images", type=int, default=1536, help="the other parts: training images")
    parser.add_argument("--small-validation", type=int, default=512, help="the other parts: validation images")
    parser.add_argument("--small-epochs", type=int, default=9, help="the other parts: epochs of a trial")
    parser.add_argument("--trials", type=int, default=14, help="pruning: trials of each study")
    parser.add_argument("--shared-trials", type=int, default=6, help="workers: trials of each study")
    options = parser.parse_args()
    if not (options.data / "train.parquet").exists():
        parser.error(f"--data: there is no train.parquet in {options.data}")
    parts = options.only or ["coefficients", "pruning", *(["workers"] if options.storage else [])]
    if "workers" in parts and not options.storage:
        parser.error("--only workers needs --storage, the URL of a PostgreSQL database")
    sizes = Sizes(
        images=Images(options.images, options.validation),
        epochs=(options.epochs[0], options.epochs[1]),
        candidates=options.candidates,
        small=Images(options.small_images, options.small_validation),
        small_epochs=options.small_epochs,
        trials=options.trials,
        shared_trials=options.shared_trials,
    )
    return measure(parts, sizes, options)


def measure(parts: Sequence[str], sizes: Sizes, options: argparse.Namespace) -> int:
    """Run `parts`; those that aren't run now stay in the results as they were, as do early stopping's other seeds."""
    file = RESULTS / "search.json"
    known = read_json(file)["found"] if file.exists() else {}
    origin = report.about("python -m benchmarks.bench_search --data CIFAR10 --out RUNS", os.getloadavg()[0])
    measured: dict[str, Any] = {}
    data, out = options.data, options.out.resolve()
    if "coefficients" in parts:
        measured["coefficients"] = [
            coefficients(name, data, out, sizes, seed) for seed in options.seeds for name in NETWORKS
        ]
    if "pruning" in parts:
        measured["pruning"] = [pruning(data, out, sizes, seed) for seed in options.seeds]
    if "workers" in parts:
        measured["workers"] = workers(data, out, sizes, options.storage)
    settings = {name: value for name, value in vars(options).items() if name not in ("data", "out", "storage", "only")}
    # So small networks gain nothing from a second core: parts may run side by side, with one each.
    settings["threads"] = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    found = together(known, {**measured, "settings": dict.fromkeys(parts, settings)})
    report.write(RESULTS, {"search": rows(found)}, origin)
    record = {**read_json(file), "found": found}
    write_json(file, record)
    search_page.write(RESULTS / "search.md", record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
