"""What each classifier of a label curve said, in a file of its own: so that a curve can be stopped and gone on with."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fewlabel.files import atomic_path

__all__ = ["Answer", "AnswerFolder"]


@dataclass(frozen=True)
class Answer:
    """What a classifier trained on one subset of the labels says of the images to judge it by."""

    test: Tensor
    """(N, K) float64 probabilities of the labelled test images, in the order of the store."""
    val: Tensor | None
    """(M, K) float64 likewise of the validation images; None where there are none."""
    about: Mapping[str, Any]
    """JSON values: what was chosen in training, such as a penalty or the best step."""


class AnswerFolder:
    """Answers by method, amount of labels and draw; each a file, complete or absent.

    Nothing is written over: an answer that is there stands.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def place(self, method: str, amount: str, draw: int) -> Path:
        """Where the answer is, or will be; without its ending, a folder for what is kept until there is one."""
        return self._directory / f"{method}-{amount}-{draw}.safetensors"

    def get(self, method: str, amount: str, draw: int) -> Answer | None:
        """The answer; None where there is none, or a damaged file."""
        try:
            with safe_open(self.place(method, amount, draw), "pt") as file:
                about = json.loads((file.metadata() or {})["fewlabel"])
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the handle is no mapping
            return Answer(found["test"], found.get("val"), about)
        except (OSError, SafetensorError, KeyError, ValueError):
            return None

    def put(self, method: str, amount: str, draw: int, answer: Answer) -> None:
        """Keep an answer, atomically.

        Raises:
            UserError: the disk is full or can't be written.
        """
        tensors = {"test": answer.test} | ({} if answer.val is None else {"val": answer.val})
        content = save(
            {name: value.contiguous() for name, value in tensors.items()}, {"fewlabel": json.dumps(dict(answer.about))}
        )
        with atomic_path(self.place(method, amount, draw)) as temporary:
            temporary.write_bytes(content)
