"""What frozen features are worth with few labels: probe and kNN on every subset, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from fewlabel.console import track
from fewlabel.supervised.bootstrap import figures_with_intervals, paired_difference
from fewlabel.supervised.config import ProbeConfig
from fewlabel.supervised.linear_probe import choose_penalty, fit_probe
from fewlabel.supervised.metrics import Predictions, best_threshold
from fewlabel.supervised.subsets import Subset
from fewlabel.training.features import knn_probabilities

__all__ = ["Amount", "Curve", "Part", "amounts_of", "evaluate", "figures_of", "gains_of"]


@dataclass(frozen=True)
class Part:
    """The labelled images of a split."""

    ids: list[str]
    features: Tensor
    """(N, D) float32."""
    labels: Tensor
    """(N,) int64, none below 0."""
    groups: list[str] | None

    def at(self, places: Tensor) -> "Part":
        """The images at `places`, (n,) int64."""
        chosen = places.tolist()
        groups = None if self.groups is None else [self.groups[place] for place in chosen]
        return Part([self.ids[place] for place in chosen], self.features[places], self.labels[places], groups)


Amount = list[Subset]
"""The draws of one amount of labels."""

Curve = dict[str, list[list[Predictions]]]
"""A method -> by amount, then by draw, what it says of the test images."""


def amounts_of(subsets: Sequence[Subset]) -> list[Amount]:
    """`subsets` by what was asked for."""
    return [list(draws) for _, draws in groupby(subsets, key=lambda subset: (subset.fraction, subset.shots))]


def evaluate(
    parts: Mapping[str, Part],
    amounts: Sequence[Amount],
    classes: int,
    probe: ProbeConfig,
    *,
    suffix: str = "",
    ordinal: bool,
    seed: int,
) -> Curve:
    """Linear probe and kNN (k = 20) of one encoder's features, trained on each subset of `parts["train"]`.

    The probe's penalty is chosen within the subset alone; where the subset is all labels there are, by the labels of
    "val", if any. With two classes the threshold for sensitivity and specificity comes from "val".

    Args:
        parts: "train", "test" and perhaps "val".
        amounts: subsets of the training images.
        classes: K.
        probe: options.
        suffix: of the methods' names, which are "probe" and "knn".
        ordinal: whether the order of the classes means something.
        seed: of the folds.

    Raises:
        UserError: a subset or the test images have labels of one class alone, or a feature is not finite.
    """
    train, test, val = parts["train"], parts["test"], parts.get("val")
    curve: Curve = {f"{method}{suffix}": [[] for _ in amounts] for method in ("probe", "knn")}
    jobs = [(place, subset) for place, draws in enumerate(amounts) for subset in draws]
    for place, subset in track(jobs, f"Probing{suffix.replace('_', ' ')}", total=len(jobs)):
        few = train.at(subset.indices)
        whole = val is not None and len(few.ids) == len(train.ids)
        penalty = probe.penalty or choose_penalty(
            few.features,
            few.labels,
            few.groups,
            class_weights=probe.class_weights,
            validation=(val.features, val.labels) if whole and val is not None else None,
            seed=seed,
        )
        fitted = fit_probe(few.features, few.labels, classes, penalty=penalty, class_weights=probe.class_weights)
        asked = {name: part.features for name, part in parts.items() if name != "train"}
        said = {
            "probe": {name: fitted.probabilities(features) for name, features in asked.items()},
            "knn": {
                name: knn_probabilities(few.features, few.labels, features, classes) for name, features in asked.items()
            },
        }
        for method, probabilities in said.items():
            threshold = None
            if classes == 2 and val is not None and len(torch.unique(val.labels)) == 2:
                threshold = best_threshold(probabilities["val"][:, 1].numpy(), val.labels.numpy())
            curve[f"{method}{suffix}"][place].append(
                Predictions(probabilities["test"].numpy(), test.labels.numpy(), threshold=threshold, ordinal=ordinal)
            )
    return curve


def figures_of(curve: Curve, amounts: Sequence[Amount], groups: list[str] | None, seed: int) -> list[dict[str, Any]]:
    """A row for each method and amount: what was asked for, the labels used, the draws, and each figure's interval.

    Args:
        curve: as `evaluate` returns it, of any number of encoders.
        amounts: what it was evaluated on.
        groups: of the test images.
        seed: of the bootstrap.
    """
    jobs = [(method, place) for method in curve for place in range(len(amounts))]
    rows = []
    for method, place in track(jobs, "Intervals", total=len(jobs)):
        figures = figures_with_intervals(curve[method][place], groups, seed=seed)
        rows.append(
            {
                "method": method,
                **_asked(amounts[place]),
                **{name: asdict(interval) for name, interval in figures.items()},
            }
        )
    return rows


def gains_of(
    curve: Curve, better: str, worse: str, amounts: Sequence[Amount], groups: list[str] | None, seed: int
) -> list[dict[str, Any]]:
    """For each amount by how much AUROC and accuracy of method `better` lie above those of `worse`, paired."""
    return [
        {
            "method": f"{better} - {worse}",
            **_asked(draws),
            **{
                metric: asdict(paired_difference(curve[better][place], curve[worse][place], metric, groups, seed=seed))
                for metric in ("auroc", "accuracy")
            },
        }
        for place, draws in enumerate(amounts)
    ]


def _asked(draws: Amount) -> dict[str, Any]:
    """What was asked for; of the numbers of labels that it came to, the median."""
    labels = int(torch.tensor([len(subset.indices) for subset in draws]).median())
    return {"fraction": draws[0].fraction, "shots": draws[0].shots, "labels": labels, "draws": len(draws)}
