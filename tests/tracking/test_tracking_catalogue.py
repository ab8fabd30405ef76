import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fewlabel.tracking import list_runs
from fewlabel.tracking.catalogue import MainFigure


def set_created(directory: Path, created: str) -> None:
    record = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**record, "created": created}))


def test_a_folder_without_runs(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "missing") == []
    assert list_runs(tmp_path) == []


def test_what_is_told_of_a_finished_run(new_run: Any, tmp_path: Path) -> None:
    run = new_run(
        config={"backbone": {"backbone": "resnet50", "image_size": 32}},
        source={"name": "digits", "fingerprint": "f00"},
        parents={"source": "digits@f00"},
    )
    interval = {"mean": 0.9, "low": 0.85, "high": 0.95}
    run.finish({"loss": 4.0, "knn_accuracy": interval, "knn_accuracy_untrained": 0.6})
    (record,) = list_runs(tmp_path / "runs")
    assert record.directory == run.directory
    assert (record.command, record.status) == ("pretrain", "finished")
    assert (record.source, record.backbone) == ("digits", "resnet50")
    assert record.parents == {"source": "digits@f00"}
    assert record.figure == MainFigure("knn_accuracy", 0.9, 0.85, 0.95)
    plain = json.loads(json.dumps(record.as_json()))
    assert plain["figure"] == {"name": "knn_accuracy", "value": 0.9, "low": 0.85, "high": 0.95}
    assert plain["directory"] == str(run.directory)
    assert plain["created"] == record.created.isoformat()


def test_a_run_that_begins_with_an_encoder_has_that_encoders_backbone(new_run: Any, tmp_path: Path) -> None:
    config = {"backbone": {"backbone": "resnet50"}, "encoder": "runs/other/encoder"}
    run = new_run(config=config)
    assert [record.backbone for record in list_runs(tmp_path / "runs")] == [None]
    run.finish({}, backbone="vit_small")
    assert [record.backbone for record in list_runs(tmp_path / "runs")] == ["vit_small"]


def test_the_main_figure_without_an_accuracy(new_run: Any, tmp_path: Path) -> None:
    new_run().finish({"loss": float("nan"), "views_per_second": 50})
    new_run(slug="none").finish({})
    with_figure, without = sorted(list_runs(tmp_path / "runs"), key=lambda record: record.figure is None)
    assert with_figure.figure == MainFigure("views_per_second", 50.0)
    assert without.figure is None


def test_statuses(new_run: Any, tmp_path: Path) -> None:
    new_run(slug="a-running")
    new_run(slug="b-failed").close("failed")
    new_run(slug="c-interrupted").close("interrupted")
    script = (
        "import os, sys; from pathlib import Path; from fewlabel.tracking import Run;"
        "Run.create('pretrain', {}, root=Path(sys.argv[1]), slug='d-killed'); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "runs")], env=os.environ)
    assert killed.returncode == -9
    statuses = {record.directory.name[25:]: record.status for record in list_runs(tmp_path / "runs")}
    assert statuses == {
        "a-running": "running",
        "b-failed": "failed",
        "c-interrupted": "interrupted",
        "d-killed": "interrupted",
    }


def test_oldest_first_across_time_zones(new_run: Any, tmp_path: Path) -> None:
    times = {
        "x": "2026-01-01T12:00:00+00:00",
        "y": "2026-01-01T12:30:00+02:00",
        "z": "2025-12-31T23:00:00-05:00",
    }
    for slug, created in times.items():
        set_created(new_run(slug=slug).directory, created)
    assert [record.directory.name[-1] for record in list_runs(tmp_path / "runs")] == ["z", "y", "x"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"model_type": "vit"}',
        '{"created": 3}',
        '{"created": "2026-01-01T00:00:00", "command": "x"}',
        "\x00\xff",
    ],
)
def test_broken_and_foreign_folders_are_skipped_with_a_note(
    new_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    new_run()
    for name in ("broken", "foreign", ".hidden"):
        (tmp_path / "runs" / name).mkdir()
    (tmp_path / "runs" / "notes.txt").write_text("x")
    (tmp_path / "runs" / "broken" / "config.json").write_text(text, encoding="latin-1")
    assert len(list_runs(tmp_path / "runs")) == 1
    note = " ".join(capsys.readouterr().err.split())
    assert "broken (not the record of a run), foreign (no config.json)." in note
    assert "hidden" not in note
