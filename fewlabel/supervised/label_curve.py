"""A label curve: every method on every amount of labels and draw, each once, whatever stops it in between."""

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from fewlabel.backbones.encoder import Encoder
from fewlabel.console import console
from fewlabel.data.source import Source
from fewlabel.data.store import ImageStore
from fewlabel.supervised.answers import Answer, AnswerFolder
from fewlabel.supervised.config import FinetuneConfig, ProbeConfig
from fewlabel.supervised.few_labels import Amount, Answers, Part, answers_of
from fewlabel.supervised.finetuning import fine_tune
from fewlabel.supervised.subsets import Subset, validation_subset
from fewlabel.tracking.metrics import MetricsFile
from fewlabel.training.checkpoint import latest_checkpoint
from fewlabel.training.features import extract_features

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["LabelCurve"]


class _Log:
    """The record of one of many trainings: figures in a file of their own, by one process, and nothing in W&B."""

    wandb_id = ""

    def __init__(self, directory: Path, *, writes: bool) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._metrics = MetricsFile(directory / "metrics.jsonl") if writes else None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._metrics is not None:
            self._metrics.append(step, metrics)

    def rewind(self, step: int) -> None:
        if self._metrics is not None:
            self._metrics.rewind(step)


@dataclass(frozen=True)
class LabelCurve:
    """The same images, labels and draws for every method; answers go to `answers`, and those there are not asked again.

    Every process must make the same calls. The answers are written by the main one.
    """

    source: Source
    class_names: list[str]
    stores: Mapping[str, ImageStore]
    """Its splits: "train", "test" and perhaps "val"."""
    amounts: list[Amount]
    """Subsets of the training images, by positions in the store."""
    draws: int
    """Answers for each amount. Where there are fewer subsets, as of all labels, they come again with other seeds."""
    accelerator: "Accelerator"
    answers: AnswerFolder
    seed: int

    def cells(self) -> Iterator[tuple[int, int, Subset]]:
        """Each place among the amounts, number of an answer, and the subset it learns from."""
        for place, subsets in enumerate(self.amounts):
            for number in range(self.draws):
                yield place, number, subsets[number % len(subsets)]

    def missing(self, method: str) -> int:
        """How many answers of `method`, which is trained, are not there yet."""
        return sum(self.answers.get(method, _amount(subset), number) is None for _, number, subset in self.cells())

    def probe(self, suffix: str, parts: Callable[[], Mapping[str, Part]], config: ProbeConfig) -> None:
        """Ask linear probe and nearest neighbours on frozen features.

        Args:
            suffix: of the methods' names, which are "probe" and "knn".
            parts: the labelled images with their features; asked for only where an answer is missing.
            config: of the probe.
        """
        found: Mapping[str, Part] | None = None
        for place, number, subset in self.cells():
            # A subset that comes again would give the same answer.
            if number >= len(self.amounts[place]) or not self._is_missing(f"probe{suffix}", subset, number):
                continue
            found = found or parts()
            few = self.stores["train"].places_of(subset.indices)
            said = answers_of(found, few, len(self.class_names), config, seed=self.seed)
            # The probe's answer is looked for, so it comes last.
            for method in ("knn", "probe"):
                self._put(f"{method}{suffix}", subset, number, said[method])

    def tune(
        self,
        method: str,
        start: Callable[[int], Encoder],
        config: FinetuneConfig,
        preset: str,
        strength: float | None,
    ) -> None:
        """Ask networks trained on the labels as a whole.

        Args:
            method: its name, "finetune" or "scratch".
            start: the encoder to start from, by the seed of its fresh weights.
            config: of the training.
            preset: of the views, like `strength`.
            strength: see `TwoViews`.

        Raises:
            Interrupted: a signal came; the training under way goes on from there next time.
        """
        train = self.stores["train"]
        missing = [(number, subset) for _, number, subset in self.cells() if self._is_missing(method, subset, number)]
        for place, (number, subset) in enumerate(missing):
            console.print(
                f"{method}: {len(subset.indices):,} labels, draw {number + 1} of {self.draws}; "
                f"{len(missing) - place - 1} more after this",
                highlight=False,
            )
            folder = self.answers.place(method, _amount(subset), number).with_suffix("")
            log = _Log(folder, writes=self.accelerator.is_main_process)
            checkpoint = latest_checkpoint(folder / "checkpoints")
            log.rewind(checkpoint.step if checkpoint else -1)
            seed = self.seed + number
            classifier = fine_tune(
                start(seed),
                train,
                subset.indices,
                classes=self.class_names,
                multi_label=self.source.multi_label,
                validation=self._validation(subset),
                config=config,
                preset=preset,
                strength=strength,
                accelerator=self.accelerator,
                log=log,
                seed=seed,
                checkpoint=checkpoint,
                quiet=True,
            )
            said = {
                split: extract_features(classifier, store, store.labelled, self.accelerator).double()
                for split, store in self.stores.items()
                if split != "train" and len(store.labelled)
            }
            self._put(method, subset, number, Answer(said["test"], said.get("val"), {}))
            # The answer is what they were for.
            if self.accelerator.is_main_process:
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)

    def found(self, methods: Collection[str]) -> Answers:
        """The answers of those `methods` that have been asked; of a repeated subset, a frozen method has one."""
        found: Answers = {method: [[] for _ in self.amounts] for method in methods}
        for place, number, subset in self.cells():
            for method in methods:
                answer = self.answers.get(method, _amount(subset), number)
                if answer is not None:
                    found[method][place].append(answer)
        return {method: by_amount for method, by_amount in found.items() if all(by_amount)}

    def _validation(self, subset: Subset) -> tuple[ImageStore, Tensor] | None:
        """The validation images whose labels may be used where only `subset`'s are known; None for too few."""
        if "val" not in self.stores:
            return None
        store, train = self.stores["val"], self.stores["train"]
        share = len(subset.indices) / len(train.labelled)
        places = validation_subset(store.ids, store.labels, store.groups, share, self.seed)
        return None if places is None else (store, places)

    def _is_missing(self, method: str, subset: Subset, number: int) -> bool:
        from accelerate.utils import broadcast_object_list

        missing = [self.answers.get(method, _amount(subset), number) is None]
        return bool(broadcast_object_list(missing)[0])

    def _put(self, method: str, subset: Subset, number: int, answer: Answer) -> None:
        if self.accelerator.is_main_process:
            self.answers.put(method, _amount(subset), number, answer)


def _amount(subset: Subset) -> str:
    return f"{subset.shots}-shots" if subset.fraction is None else f"{subset.fraction:g}"
