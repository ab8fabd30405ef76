"""The per-step metrics of a run in a plain file, one JSON object a line."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewlabel.errors import UserError
from fewlabel.files import atomic_path

__all__ = ["MetricsFile", "finite_or_none"]


def finite_or_none(value: float) -> float | None:
    """`value` as a float, and None for NaN and the infinities, which JSON can't hold."""
    number = float(value)
    return number if math.isfinite(number) else None


class MetricsFile:
    """Appends lines `{"step": s, name: number or null, ...}` to `path`, each in one unbuffered write.

    A last line that a kill or a full disk cut short is removed on opening.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rewind(math.inf)

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a line.

        Raises:
            UserError: the disk is full or the file can't be written.
        """
        values = {name: finite_or_none(value) for name, value in metrics.items()}
        line = (json.dumps({"step": step, **values}, allow_nan=False) + "\n").encode()
        try:
            with self.path.open("ab", buffering=0) as file:
                if file.write(line) != len(line):
                    raise OSError(0, "the line was cut short; the disk is probably full")
        except OSError as error:
            raise UserError(
                f"Could not write to {self.path}: {error.strerror or error}. Checkpoints written before are "
                "untouched: free some space, then continue with --resume."
            ) from error

    def read(self) -> list[dict[str, Any]]:
        """Every line, in order."""
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def rewind(self, step: float) -> None:
        """Drop, atomically, the lines of steps after `step`, and whatever is no whole line of JSON.

        The lines that stay keep their bytes, so a run resumed at `step` ends in the file that an
        uninterrupted one writes.
        """
        written = self.path.read_bytes() if self.path.exists() else b""
        # Every whole line ends in a newline: what follows the last one is torn.
        lines = written.split(b"\n")[:-1]
        kept = b"".join(line + b"\n" for line in lines if _step(line) <= step)
        if kept != written:
            with atomic_path(self.path) as temporary:
                temporary.write_bytes(kept)


def _step(line: bytes) -> float:
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return math.nan
    return float(step) if isinstance(step, int) else math.nan
