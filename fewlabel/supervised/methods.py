"""The methods of a label curve: how each and its figures are called in words, and which are set against which."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

__all__ = ["comparisons", "figure_name", "figures_in", "main_comparison", "main_method", "method_name"]

_METHODS: Final = {
    "finetune": "fine-tuned encoder",
    "probe": "linear probe",
    "knn": "nearest neighbours",
    "scratch": "trained from scratch",
    "probe_untrained": "linear probe, untrained network",
    "knn_untrained": "nearest neighbours, untrained network",
    "finetune_imagenet": "fine-tuned ImageNet weights",
    "probe_imagenet": "linear probe, ImageNet weights",
    "knn_imagenet": "nearest neighbours, ImageNet weights",
}

_FIGURES: Final = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "f1": "F1",
    "ece": "ECE",
    "kappa_quadratic": "Quadratic kappa",
}

_COUNTERPARTS: Final = (
    ("finetune", "scratch"),
    ("probe", "probe_untrained"),
    ("knn", "knn_untrained"),
    ("finetune", "finetune_imagenet"),
    ("probe", "probe_imagenet"),
    ("knn", "knn_imagenet"),
)
"""The pretrained encoder, and other weights put to the same use."""


def method_name(method: str, *, in_sentence: bool = False) -> str:
    """`method` in words, e.g. "Trained from scratch" for "scratch"; with a small letter within a sentence.

    Raises:
        KeyError: there is no such method.
    """
    name = _METHODS[method]
    return name if in_sentence else name[0].upper() + name[1:]


def figure_name(figure: str) -> str:
    """A figure of `Predictions.figures` in words, e.g. "Balanced accuracy" for "balanced_accuracy"."""
    return _FIGURES.get(figure) or figure.replace("_", " ").capitalize()


def figures_in(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the figures in any row of `few_labels.figures_of`."""
    return list(dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, Mapping)))


def comparisons(methods: Collection[str]) -> list[tuple[str, str]]:
    """The pairs among `methods` that differ in nothing but the weights, the pretrained encoder's first."""
    return [pair for pair in _COUNTERPARTS if set(pair) <= set(methods)]


def main_comparison(methods: Collection[str]) -> tuple[str, str] | None:
    """The pair that says whether pretraining paid: fine-tuning if it has its counterpart, else the linear probe.

    It depends on which methods were run and never on their figures: the best of several, picked on the images
    that it is then judged by, would flatter pretraining.
    """
    found = [pair for pair in comparisons(methods) if pair in (("finetune", "scratch"), ("probe", "probe_untrained"))]
    return found[0] if found else None


def main_method(methods: Collection[str]) -> str:
    """How the pretrained encoder is used first of all: as in `main_comparison`, or without one by the same order."""
    pair = main_comparison(methods)
    return pair[0] if pair else next(method for method in _METHODS if method in methods)
