import errno
import json
import math
from pathlib import Path

import pytest

from fewlabel.errors import UserError
from fewlabel.tracking.metrics import MetricsFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def test_every_line_is_json_even_where_a_figure_is_none(path: Path) -> None:
    metrics = MetricsFile(path)
    metrics.append(1, {"loss": 2.5})
    metrics.append(2, {"loss": math.nan, "lr": math.inf})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    lines = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 2.5}, {"step": 2, "loss": None, "lr": None}]


def test_a_resumed_file_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    def write(metrics: MetricsFile, steps: range) -> None:
        for step in steps:
            metrics.append(step, {"loss": 1 / (step + 1)})
            if step % 4 == 0:
                metrics.append(step, {"knn_accuracy": step / 100})

    write(MetricsFile(tmp_path / "whole.jsonl"), range(1, 21))
    write(MetricsFile(tmp_path / "resumed.jsonl"), range(1, 15))
    resumed = MetricsFile(tmp_path / "resumed.jsonl")
    resumed.rewind(8)
    write(resumed, range(9, 21))
    assert (tmp_path / "resumed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("kept_bytes", range(1, 28))
def test_a_line_torn_anywhere_is_dropped_and_the_next_one_is_whole(path: Path, kept_bytes: int) -> None:
    first, second = b'{"step": 1, "loss": 2.0}\n', b'{"step": 2, "loss": 1.125}\n'
    path.write_bytes(first + second[:kept_bytes])
    MetricsFile(path).append(3, {"loss": 0.5})
    steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert steps == ([1, 2, 3] if kept_bytes == len(second) else [1, 3])


def test_what_is_no_record_is_dropped(path: Path) -> None:
    path.write_bytes(b'\x00\x00\n[1]\n{"loss": 1}\n{"step": "x"}\n{"step": 5, "loss": 1.0}\n')
    MetricsFile(path)
    assert path.read_bytes() == b'{"step": 5, "loss": 1.0}\n'


def test_a_kill_while_rewinding_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = MetricsFile(path)
    for step in (1, 2, 3):
        metrics.append(step, {"loss": 1.0})
    before = path.read_bytes()

    def killed(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        metrics.rewind(1)
    assert path.read_bytes() == before


def test_a_full_disk_says_what_to_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = MetricsFile(path)

    def full(self: Path, *arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(UserError, match=r"metrics\.jsonl: No space left on device.*--resume"):
        metrics.append(1, {"loss": 1.0})
