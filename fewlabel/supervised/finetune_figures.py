"""What fine-tuning was worth: its classifier beside the linear probe of where it began, on the same labels."""

from collections.abc import Mapping, Set
from dataclasses import asdict
from typing import Any

from torch import Tensor

from fewlabel.console import console
from fewlabel.errors import UserError
from fewlabel.supervised.answers import Answer
from fewlabel.supervised.bootstrap import difference, interval, replicates
from fewlabel.supervised.config import FinetuneConfig, ProbeConfig
from fewlabel.supervised.few_labels import Answers, Part, answers_of, judge, without

__all__ = ["compare"]


def compare(
    said: Mapping[str, Tensor],
    parts: Mapping[str, Part],
    few: Tensor,
    leaked: Set[str],
    *,
    config: FinetuneConfig,
    ordinal: bool,
) -> dict[str, Any]:
    """The figures on test of the classifier and of the linear probe, with their intervals.

    Args:
        said: the classifier's probabilities, float64, of the images of "test" and, if there is one, of "val".
        parts: "train", "test" and, if its labels may be used, "val", with the features that training began with.
        few: (n,) int64 places in "train" of the images that were trained on.
        leaked: ids of test images that stand elsewhere too.
        config: of the fine-tuning; the probe has its class weights and seed.
        ordinal: whether the order of the classes means something.

    Returns:
        Each figure of `Predictions.figures`, the probe's as `probe_<name>`, the paired differences of AUROC and
        accuracy as `gain_<name>`, each {mean, low, high}; and where images leaked, `without_leaks`: a row with the
        name and the interval of each of these without the leaked images.

    Raises:
        UserError: the test images have labels of one class alone.
    """
    probe = ProbeConfig(class_weights=config.class_weights)
    probed = answers_of(parts, few, said["test"].shape[1], probe, seed=config.seed)["probe"]
    answers: Answers = {"finetune": [[Answer(said["test"], said.get("val"), {})]], "probe": [[probed]]}

    def figures(answers: Answers, test: Part) -> dict[str, Any]:
        curve = judge(answers, test, parts.get("val"), ordinal=ordinal)
        tuned, frozen = curve["finetune"][0], curve["probe"][0]
        mine, other = (replicates(draws, test.groups, seed=config.seed) for draws in (tuned, frozen))
        found = {name: interval(values, mean) for name, (mean, values) in mine.items()}
        found |= {f"probe_{name}": interval(values, mean) for name, (mean, values) in other.items()}
        found |= {f"gain_{name}": difference(mine[name], other[name]) for name in ("auroc", "accuracy")}
        return {name: asdict(figure) for name, figure in found.items()}

    metrics = figures(answers, parts["test"])
    if not leaked & set(parts["test"].ids):
        return metrics
    try:
        clean = figures(*without(answers, leaked, parts["test"]))
    except UserError as error:
        console.print(f"Without the test images that stand elsewhere too there are no figures: {error}", markup=False)
        return metrics
    return {**metrics, "without_leaks": [{"figure": name, **figure} for name, figure in clean.items()]}
