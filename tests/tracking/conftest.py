from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fewlabel.tracking import Run


@pytest.fixture(autouse=True)
def no_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B has tests of its own; here it would only cost time."""
    monkeypatch.setenv("WANDB_MODE", "disabled")


@pytest.fixture
def new_run(tmp_path: Path) -> Iterator[Any]:
    """Makes runs in tmp_path/runs and gives their locks free at the end."""
    made = []

    def create(command: str = "pretrain", config: Any = None, **options: Any) -> Run:
        options = {"root": tmp_path / "runs", "slug": "resnet18-digits", **options}
        made.append(Run.create(command, config or {"backbone": "resnet18"}, **options))
        return made[-1]

    yield create
    for run in made:
        run.close("interrupted")
