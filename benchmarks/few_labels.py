"""`python -m benchmarks.few_labels RECIPE --data PATH`: from images to a label curve, by the clock, as a user does it.

Runs `fewlabel pretrain` and `fewlabel label-curve` with the recipe's options, then `fewlabel probe` with more draws,
since five of 47 labels are much chance and a probe takes seconds. `--seed` is that of all three: another one is another
encoder, judged with other draws. Writes their figures, seconds, settings and seed to
results/few-labels-<recipe>-<seed>.json and the table of all such files to results/few-labels.md. The options were
chosen on PneumoniaMNIST's validation split and taken over for RetinaMNIST untried.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.commands import fewlabel, finished
from benchmarks.report import about
from fewlabel.files import atomic_write_text, read_json, write_json

RESULTS = Path(__file__).parent / "results"
PROBED_DRAWS = 20


@dataclass(frozen=True)
class Recipe:
    """Options of the two commands, beside `--data` and `--out`."""

    title: str
    pretrain: tuple[str, ...]
    label_curve: tuple[str, ...]


PRETRAIN = (
    *("--backbone", "resnet18", "--image-size", "56", "--backbone-option", "small_stem=false"),
    *("--epochs", "100", "--temperature", "0.15"),
)
"""ImageNet's stem at twice the images' side costs a quarter of the small stem at their own. On validation images of
PneumoniaMNIST 50 such epochs gave probes with AUROC 0.968, 0.985 and 0.994 with 42, 424 and 4,237 labels, 200 epochs
at 28 px in the same time 0.937, 0.983 and 0.993."""
RECIPES = {
    "pneumoniamnist": Recipe(
        "PneumoniaMNIST, ResNet-18 at 56 px with ImageNet's stem",
        pretrain=PRETRAIN,
        label_curve=("--draws", "5", "--max-steps", "150", "--methods", "probe", "untrained", "finetune", "scratch"),
    ),
    "retinamnist": Recipe(
        "RetinaMNIST, ResNet-18 at 56 px with ImageNet's stem",
        pretrain=PRETRAIN,
        label_curve=(
            *("--draws", "5", "--max-steps", "150", "--ordinal"),
            *("--methods", "probe", "untrained", "finetune", "scratch"),
        ),
    ),
}


def main() -> int:
    """Run one recipe, or write the table anew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.few_labels", description=__doc__.splitlines()[0])
    parser.add_argument(
        "recipe", choices=[*RECIPES, "table"], help="'table' only writes the table of what was measured"
    )
    parser.add_argument("--data", type=Path, help="the images")
    parser.add_argument(
        "--out", type=Path, help="folder for the two runs, which go on if they are there; by default a temporary one"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.recipe != "table":
        if options.data is None or not options.data.exists():
            parser.error("--data must name the images")
        with tempfile.TemporaryDirectory() as folder:
            measure(options.recipe, options.seed, options.data, options.out or Path(folder))
    found = [read_json(path) for path in RESULTS.glob("few-labels-*.json")]
    atomic_write_text(RESULTS / "few-labels.md", page(found))
    return 0


def measure(name: str, seed: int, data: Path, out: Path) -> None:
    """Run the three commands and write their figures."""
    recipe = RECIPES[name]
    origin = about(f"python -m benchmarks.few_labels {name} --seed {seed} --data PATH", os.getloadavg()[0])
    given = ("--seed", str(seed), "--data", str(data))
    pretrained = finished("pretrain", out / "pretrain", *recipe.pretrain, *given)
    given = ("--encoder", str(out / "pretrain"), *given)
    curve = finished("label-curve", out / "curve", *recipe.label_curve, *given)
    with tempfile.TemporaryDirectory() as scratch:
        probed = fewlabel("probe", *given, "--draws", str(PROBED_DRAWS), "--out", f"{scratch}/probe")
    write_json(
        RESULTS / f"few-labels-{name}-{seed}.json",
        {
            **origin,
            "recipe": name,
            "seed": seed,
            "pretrain": recipe.pretrain,
            "label_curve": recipe.label_curve,
            "probed_draws": PROBED_DRAWS,
            "seconds": {
                "pretraining": round(pretrained["seconds"]),
                "evaluation": round(curve["seconds"] + probed["seconds"]),
            },
            "source": {key: curve["source"][key] for key in ("name", "fingerprint", "images")},
            "pretrained": pretrained["metrics"],
            "verdict": [sentence for sentence in curve["verdict"] if "ImageNet weights are left out" not in sentence],
            "curve": curve["metrics"]["curve"],
            "gain": curve["metrics"]["gain"],
            # With all labels there is one draw, which the curve has.
            "probed": [row for row in probed["metrics"]["curve"] if row["draws"] > 1],
            "leaks": len(curve["leaks"]),
        },
    )


def page(found: Sequence[Mapping[str, Any]]) -> str:
    """The tables of all that was measured, as Markdown."""
    lines = [
        "# What few labels give",
        "",
        "Mean over draws of the labels on the test images, with its 95 % interval. Options were chosen on",
        "PneumoniaMNIST's validation images and taken over for RetinaMNIST untried. Of what takes seconds there are",
        "more draws too, since five of few labels are much chance: this was added after the five of seed 0 had been",
        "seen, and before anything of seed 1 was.",
        "`python -m benchmarks.few_labels RECIPE --seed SEED --data PATH` measures a recipe again.",
    ]
    for result in sorted(found, key=lambda result: (result["recipe"], result["seed"])):
        machine, seconds = result["machine"], result["seconds"]
        lines += [
            "",
            f"## {RECIPES[result['recipe']].title}, seed {result['seed']}",
            "",
            f"- Recipe `{result['recipe']}`: `fewlabel pretrain {' '.join(result['pretrain'])}`, then `fewlabel "
            f"label-curve {' '.join(result['label_curve'])}`, and `fewlabel probe --draws {result['probed_draws']}`",
            f"- {machine['cpu']}, {machine['cores']} cores, {result['date']}: pretraining "
            f"{seconds['pretraining'] / 60:.1f} min, everything else {seconds['evaluation'] / 60:.1f} min; "
            f"load average before {result['load_average_before']}",
            *(f"- {sentence}" for sentence in result["verdict"]),
            "",
            "| labels | method | draws | AUROC | accuracy |",
            "|---|---|---|---|---|",
            *(_row(row) for row in sorted(result["curve"] + result["probed"], key=lambda row: row["labels"])),
        ]
    return "\n".join(lines) + "\n"


def _row(row: Mapping[str, Any]) -> str:
    figures = [
        f"{row[name]['mean']:.3f} ({row[name]['low']:.3f} to {row[name]['high']:.3f})" for name in ("auroc", "accuracy")
    ]
    return f"| {row['labels']:,} | {row['method'].replace('_', ' ')} | {row['draws']} | {' | '.join(figures)} |"


if __name__ == "__main__":
    sys.exit(main())
