import json
import math
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fewlabel.errors import UserError
from fewlabel.tracking import NullRun, Run, RunConfig
from fewlabel.tracking.lock import is_locked


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_configuration_and_the_room_import_nothing_heavy() -> None:
    script = (
        "import sys; from fewlabel.tracking.config import RunConfig; RunConfig();"
        "import fewlabel.tracking; fewlabel.tracking.Run; fewlabel.tracking.list_runs;"
        "heavy = {'wandb', 'torch', 'datasets', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert RunConfig().out is None


def test_config_json_is_complete(new_run: Any) -> None:
    config = {"backbone": "vit", "lr": 0.1, "warmup": math.inf, "size": (3, 32), "data": Path("photos")}
    run = new_run(
        config=config,
        parents={"source": "photos"},
        source={"name": "photos", "fingerprint": "f00"},
        project="p",
    )
    record = read(run.directory / "config.json")
    assert record["command"] == "pretrain"
    assert record["config"] == {
        "backbone": "vit",
        "lr": 0.1,
        "warmup": None,
        "size": [3, 32],
        "data": "photos",
    }
    assert record["parents"] == {"source": "photos"}
    assert record["source"]["fingerprint"] == "f00"
    assert record["project"] == "p"
    assert record["run"] == run.directory.name
    assert len(record["wandb_id"]) == 8
    assert record["argv"] == sys.argv
    assert record["provenance"]["python"].startswith("3.")


def test_generated_names_never_meet(new_run: Any, tmp_path: Path) -> None:
    runs = [new_run(slug="ResNet-50 / Ünder  way!") for _ in range(3)]
    assert len({run.directory for run in runs}) == 3
    for run in runs:
        assert run.directory.parent == tmp_path / "runs"
        assert run.directory.name.startswith("pretrain-2")
        assert "-resnet-50-nder-way" in run.directory.name


@pytest.mark.parametrize("exists", [True, False])
def test_out_may_be_new_or_empty(new_run: Any, tmp_path: Path, exists: bool) -> None:
    out = tmp_path / "deep" / "mine"
    if exists:
        out.mkdir(parents=True)
    assert new_run(out=out).directory == out


def test_out_with_something_in_it_is_left_alone(new_run: Any, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("x")
    with pytest.raises(UserError, match=r"isn't empty: it has photo\.jpg\. Give a directory that is new"):
        new_run(out=tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["photo.jpg"]


def test_out_that_is_a_file_or_has_a_file_above(new_run: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        new_run(out=tmp_path / "file")
    with pytest.raises(UserError, match="Not a directory"):
        new_run(out=tmp_path / "file" / "run")
    with pytest.raises(UserError, match="Can't make"):
        new_run(root=tmp_path / "file" / "runs")
    with pytest.raises(UserError, match="is a file"):
        new_run(root=tmp_path / "file")


def test_out_that_holds_an_unfinished_run_points_to_resume(new_run: Any, tmp_path: Path) -> None:
    run = new_run(out=tmp_path / "mine")
    run.log(1, {"loss": 1.0})
    run.close("interrupted")
    with pytest.raises(UserError, match=f"--resume {tmp_path / 'mine'}"):
        new_run(out=tmp_path / "mine")


def test_two_runs_can_not_share_an_out(new_run: Any, tmp_path: Path) -> None:
    # The other has locked the directory and written nothing yet.
    from fewlabel.tracking.lock import DirectoryLock

    (tmp_path / "mine").mkdir()
    other = DirectoryLock(tmp_path / "mine")
    with pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
        new_run(out=tmp_path / "mine")
    other.release()


def test_a_second_resume_names_the_process_that_holds_it(new_run: Any) -> None:
    run = new_run()
    with pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
        Run.resume(run.directory, command="pretrain")
    run.close("interrupted")
    resumed = Run.resume(run.directory, command="pretrain")
    assert is_locked(run.directory)
    resumed.close("interrupted")


def test_resume_goes_on_under_the_same_id_and_adds_up_the_time(new_run: Any) -> None:
    run = new_run(config={"backbone": "vit", "lr": 0.5})
    for step in (1, 2, 3):
        run.log(step, {"loss": 1.0 / step})
    run._started -= 100
    run.close("interrupted", "SIGTERM")
    status = read(run.directory / "status.json")
    assert (status["status"], status["reason"]) == ("interrupted", "SIGTERM")

    resumed = Run.resume(run.directory, command="pretrain")
    assert read(run.directory / "status.json")["status"] == "running"
    assert resumed.record["wandb_id"] == run.record["wandb_id"]
    assert resumed.config == {"backbone": "vit", "lr": 0.5}
    resumed.rewind(2)
    resumed.log(3, {"loss": 0.25})
    resumed._started -= 10
    result = resumed.finish({"loss": 0.25})
    assert 110 <= result["seconds"] < 120
    assert len(read(run.directory / "status.json")["sessions"]) == 2
    assert [line["loss"] for line in resumed.history()] == [1.0, 0.5, 0.25]


def test_resume_after_a_kill(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from fewlabel.tracking import Run;"
        "run = Run.create('pretrain', {}, out=Path(sys.argv[1])); run.log(1, {'loss': 2.0});"
        "file = open(run.directory / 'metrics.jsonl', 'ab'); file.write(b'{\"step\": 2, \"lo'); file.flush();"
        "os.kill(os.getpid(), 9)"
    )
    out = tmp_path / "run"
    assert subprocess.run([sys.executable, "-c", script, str(out)]).returncode == -9
    resumed = Run.resume(out, command="pretrain")
    resumed.log(2, {"loss": 1.0})
    resumed.close("interrupted")
    assert (out / "metrics.jsonl").read_text() == '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n'


def test_what_can_not_be_resumed(new_run: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no run to resume.*fewlabel runs"):
        Run.resume(tmp_path / "missing", command="pretrain")
    run = new_run()
    run.close("failed")
    with pytest.raises(UserError, match="not of `fewlabel probe`"):
        Run.resume(run.directory, command="probe")
    Run.resume(run.directory, command="pretrain").finish({})
    with pytest.raises(UserError, match="has finished"):
        Run.resume(run.directory, command="pretrain")
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(UserError, match="isn't the record of a run"):
        Run.resume(tmp_path, command="pretrain")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="can't be read as JSON"):
        Run.resume(tmp_path, command="pretrain")
    assert not is_locked(tmp_path)
    assert not is_locked(run.directory)


def test_another_configuration_is_refused_difference_by_difference(new_run: Any) -> None:
    config = {"backbone": "vit", "source": {"data": Path("a"), "workers": None}, "size": (1, 2)}
    run = new_run(config=config)
    run.require_config(config)
    other = {"backbone": "vit", "source": {"data": Path("b"), "workers": 4}, "size": (1, 2)}
    with pytest.raises(UserError, match=r"source\.data is b and was a; source\.workers is 4 and was None"):
        run.require_config(other)
    with pytest.raises(UserError, match=r"source\.data is b and was a\. Resume"):
        run.require_config(other, free={"source.workers"})
    with pytest.raises(UserError, match="new is 1 and was None"):
        run.require_config({**config, "new": 1})
    assert not is_locked(run.directory)


def test_finish_writes_the_result_and_ends_the_run(new_run: Any) -> None:
    run = new_run(source={"name": "digits", "fingerprint": "f00"}, parents={"source": "digits"})
    interval = {"mean": 0.9, "low": 0.8, "high": 0.95}
    result = run.finish({"knn_accuracy": interval, "loss": math.nan}, encoder=run.encoder)
    assert result == read(run.directory / "result.json")
    assert result["metrics"] == {"knn_accuracy": interval, "loss": None}
    assert result["command"] == "pretrain"
    assert result["parents"] == {"source": "digits"}
    assert result["source"] == {"name": "digits", "fingerprint": "f00"}
    assert result["encoder"] == str(run.directory / "encoder")
    assert {"run", "created", "finished", "seconds"} <= result.keys()
    assert not is_locked(run.directory)
    with pytest.raises(RuntimeError, match="closed"):
        run.log(9, {"loss": 1.0})


def test_finish_refuses_what_would_falsify_the_result(new_run: Any) -> None:
    run = new_run()
    with pytest.raises(ValueError, match="its own run"):
        run.finish({}, run="x")
    with pytest.raises(ValueError, match="mean, low and high"):
        run.finish({"knn_accuracy": {"mean": 1.0}})
    assert not (run.directory / "result.json").exists()


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("bad"), "failed", "ValueError: bad"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
        (None, "interrupted", None),
    ],
)
def test_leaving_the_block_says_how(new_run: Any, error: BaseException | None, status: str, reason: str | None) -> None:
    run = new_run()
    with suppress(ValueError, KeyboardInterrupt), run:
        if error is not None:
            raise error
    record = read(run.directory / "status.json")
    assert (record["status"], record["reason"]) == (status, reason)
    assert not is_locked(run.directory)


def test_leaving_the_block_after_finish_changes_nothing(new_run: Any) -> None:
    with new_run() as run:
        run.finish({"loss": 1.0})
    assert read(run.directory / "status.json")["status"] == "finished"


def test_a_full_disk_at_the_end_does_not_hide_the_error(
    new_run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run()

    def full(target: Path, value: Any) -> None:
        raise UserError("Could not write status.json: No space left on device.")

    monkeypatch.setattr("fewlabel.tracking.run.write_json", full)
    with pytest.raises(ValueError, match="the real error"), run:
        raise ValueError("the real error")
    assert not is_locked(run.directory)


def test_the_other_processes_write_nothing(new_run: Any, tmp_path: Path) -> None:
    run = new_run()
    before = sorted(run.directory.rglob("*"))
    with NullRun(run.directory, run.record) as null:
        assert null.checkpoints == run.checkpoints
        assert null.encoder == run.encoder
        assert null.config == run.config
        assert null.wandb_id == run.wandb_id
        assert null.wandb_directory is None
        assert null.history() == []
        null.log(1, {"loss": 1.0})
        null.log_image("views", tmp_path / "missing.png", 1)
        null.log_artifact("e", "encoder", tmp_path, {})
        null.rewind(0)
        assert null.finish({"loss": 1.0}) == {}
    assert sorted(run.directory.rglob("*")) == before
    assert is_locked(run.directory)


def test_every_writing_method_of_a_run_is_silenced_in_the_others() -> None:
    public = {name for name, value in vars(Run).items() if callable(value) and not name.startswith("_")}
    assert public - set(vars(NullRun)) == {"require_config"}
