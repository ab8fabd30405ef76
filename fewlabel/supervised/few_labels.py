"""What is learned from few labels: linear probe and kNN of frozen features, and any method's figures with intervals."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from fewlabel.console import track
from fewlabel.supervised.answers import Answer
from fewlabel.supervised.bootstrap import Replicates, difference, interval, replicates
from fewlabel.supervised.config import ProbeConfig
from fewlabel.supervised.linear_probe import Penalty, choose_penalty, fit_probe
from fewlabel.supervised.metrics import Predictions, best_threshold
from fewlabel.supervised.subsets import Subset
from fewlabel.training.features import knn_probabilities


@dataclass(frozen=True)
class Part:
    """The labelled images of a split."""

    ids: list[str]
    features: Tensor
    """(N, D) float32."""
    labels: Tensor
    """(N,) int64, none below 0; or of several labels an image, (N, K) of 1 (yes), 0 (no) and -1 (unknown)."""
    groups: list[str] | None

    def at(self, places: Tensor) -> "Part":
        """The images at `places`, (n,) int64."""
        chosen = places.tolist()
        groups = None if self.groups is None else [self.groups[place] for place in chosen]
        return Part([self.ids[place] for place in chosen], self.features[places], self.labels[places], groups)


Amount = list[Subset]
"""The draws of one amount of labels."""

Answers = dict[str, list[list[Answer]]]
"""A method -> by amount, then by draw, what it says."""

Curve = dict[str, list[list[Predictions]]]
"""The same, judged by the labels of the test images."""


Resampled = dict[str, list[tuple[int, dict[str, Replicates]]]]
"""A method -> by amount, its number of draws and its figures' bootstrap replicates."""


def amounts_of(subsets: Sequence[Subset]) -> list[Amount]:
    """`subsets` by what was asked for."""
    return [list(draws) for _, draws in groupby(subsets, key=lambda subset: (subset.fraction, subset.shots))]


def answers_of(
    parts: Mapping[str, Part], few: Tensor, classes: int, probe: ProbeConfig, *, seed: int
) -> dict[str, Answer]:
    """Linear probe and kNN (k = 20) of frozen features, trained on a few of the training images.

    The probe's penalty is chosen within these alone; where they are all that have labels, by the labels of "val", if
    any.

    Args:
        parts: "train", "test" and perhaps "val".
        few: (n,) int64 places in `parts["train"]`.
        classes: K, of classes or of labels.
        probe: options.
        seed: of the folds.

    Returns:
        "probe", with its penalty and what that was chosen by, and "knn".

    Raises:
        UserError: the few images have labels of one class alone, or a feature is not finite.
    """
    val, known = parts.get("val"), parts["train"].at(few)
    whole = val is not None and len(few) == len(parts["train"].ids)
    if probe.penalty is not None:
        penalty = Penalty(probe.penalty, "given")
    else:
        penalty = choose_penalty(
            known.features,
            known.labels,
            known.groups,
            class_weights=probe.class_weights,
            validation=(val.features, val.labels) if whole and val is not None else None,
            seed=seed,
        )
    fitted = fit_probe(known.features, known.labels, classes, penalty=penalty.value, class_weights=probe.class_weights)
    asked = {name: part.features for name, part in parts.items() if name != "train"}
    probed = {name: fitted.probabilities(features) for name, features in asked.items()}
    voted = {
        name: knn_probabilities(known.features, known.labels, features, classes) for name, features in asked.items()
    }
    return {
        "probe": Answer(probed["test"], probed.get("val"), penalty._asdict()),
        "knn": Answer(voted["test"], voted.get("val"), {}),
    }


def judge(answers: Answers, test: Part, val: Part | None, *, ordinal: bool) -> Curve:
    """What the methods say, by the labels of the test images.

    With two classes the threshold for sensitivity and specificity comes from the validation images.

    Args:
        answers: of any methods. Their rows are those of `test` and `val`.
        test: the labelled test images.
        val: the labelled validation images.
        ordinal: whether the order of the classes means something.

    Raises:
        UserError: the test images have labels of one class alone.
    """
    return {
        method: [[_judged(answer, test, val, ordinal) for answer in draws] for draws in by_amount]
        for method, by_amount in answers.items()
    }


def without(answers: Answers, dropped: Collection[str], test: Part) -> tuple[Answers, Part]:
    """`answers` and `test` without the test images of the ids `dropped`."""
    kept = torch.tensor([place for place, image in enumerate(test.ids) if image not in dropped], dtype=torch.int64)
    fewer = {
        method: [[replace(answer, test=answer.test[kept]) for answer in draws] for draws in by_amount]
        for method, by_amount in answers.items()
    }
    return fewer, test.at(kept)


def _judged(answer: Answer, test: Part, val: Part | None, ordinal: bool) -> Predictions:
    threshold = None
    has_two_classes = answer.test.shape[1] == 2 and test.labels.ndim == 1
    if has_two_classes and val is not None and answer.val is not None and len(torch.unique(val.labels)) == 2:
        threshold = best_threshold(answer.val[:, 1].numpy(), val.labels.numpy())
    return Predictions(answer.test.numpy(), test.labels.numpy(), threshold=threshold, ordinal=ordinal)


def resample(curve: Curve, groups: Sequence[str] | None, seed: int) -> Resampled:
    """Every figure of every method and amount in 1,000 bootstrap replicates, the same for all (see `replicates`).

    Args:
        curve: of any methods.
        groups: of the test images.
        seed: of the bootstrap.
    """
    jobs = [(method, draws) for method, by_amount in curve.items() for draws in by_amount]
    found: Resampled = {method: [] for method in curve}
    for method, draws in track(jobs, "Intervals", total=len(jobs)):
        found[method].append((len(draws), replicates(draws, groups, seed=seed)))
    return found


def figures_of(resampled: Resampled, amounts: Sequence[Amount]) -> list[dict[str, Any]]:
    """A row for each method and amount: what was asked for, the labels used, the draws, and each figure's interval."""
    return [
        {
            "method": method,
            **_asked(amounts[place]),
            "draws": draws,
            **{name: asdict(interval(values, mean)) for name, (mean, values) in found.items()},
        }
        for method, by_amount in resampled.items()
        for place, (draws, found) in enumerate(by_amount)
    ]


def gains_of(resampled: Resampled, better: str, worse: str, amounts: Sequence[Amount]) -> list[dict[str, Any]]:
    """For each amount by how much AUROC and accuracy of method `better` lie above those of `worse`, paired."""
    return [
        {
            "method": f"{better} - {worse}",
            **_asked(draws),
            **{metric: asdict(difference(mine[metric], other[metric])) for metric in ("auroc", "accuracy")},
        }
        for draws, (_, mine), (_, other) in zip(amounts, resampled[better], resampled[worse], strict=True)
    ]


def penalties_of(answers: Answers, amounts: Sequence[Amount]) -> list[dict[str, Any]]:
    """A row for each linear probe and amount: the penalty of each draw's fit, and what it was chosen by."""
    return [
        {"method": method, **_asked(draws), "penalties": [dict(answer.about) for answer in of_draws]}
        for method, of_amounts in answers.items()
        if method.startswith("probe")
        for draws, of_draws in zip(amounts, of_amounts, strict=True)
    ]


def _asked(draws: Amount) -> dict[str, Any]:
    """What was asked for; of the numbers of labels that it came to, the median."""
    labels = int(torch.tensor([len(subset.indices) for subset in draws]).median())
    return {"fraction": draws[0].fraction, "shots": draws[0].shots, "labels": labels, "draws": len(draws)}
