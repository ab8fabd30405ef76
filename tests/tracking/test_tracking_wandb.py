"""What really reaches W&B's own file, read back with W&B's own reader."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from PIL import Image
from plotly.graph_objects import Figure, Scatter

from fewlabel.tracking import Run, wandb_log
from fewlabel.tracking.record import Picture
from fewlabel.tracking.wandb_log import WandbLog, artifact_name

SOURCE = {"name": "digits", "fingerprint": "f00", "bad_images": 1}
"""As W&B has it."""
FIGURE = {"mean": 0.9, "low": 0.8, "high": 0.95}


def records(wandb_directory: Path) -> list[dict[str, Any]]:
    """The records of an offline run, as `wandb leet inspect` prints them."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(wandb_directory)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def of_type(found: list[dict[str, Any]], kind: str) -> list[Any]:
    return [record[kind] for record in found if record["type"] == kind]


@pytest.fixture(scope="module")
def offline() -> Iterator[pytest.MonkeyPatch]:
    """W&B in offline mode, with the process as it was afterwards."""
    patch = pytest.MonkeyPatch()
    for variable in [name for name in os.environ if name.startswith("WANDB_")]:
        patch.delenv(variable)
    patch.setenv("WANDB_MODE", "offline")
    before = dict(os.environ)
    wandb.teardown()
    yield patch
    wandb.teardown()
    for variable in os.environ.keys() - before.keys():
        del os.environ[variable]
    patch.undo()


@pytest.fixture(autouse=True)
def with_wandb(no_wandb: None, offline: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The room's other tests have W&B disabled."""
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture(scope="module")
def finished(offline: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run that was interrupted, resumed and finished, and where its two W&B parts are."""
    root = tmp_path_factory.mktemp("wandb")
    run = Run.create(
        "pretrain",
        {"backbone": "resnet18", "optimisation": {"lr": 0.1}},
        root=root / "runs",
        slug="resnet18-digits",
        source={"name": "digits", "fingerprint": "f00", "bad_images": [{"id": "jane-doe.png"}]},
        parents={"source": "digits"},
        project="some-project",
    )
    run.log(1, {"loss": 2.0, "lr": 0.1})
    run.log(2, {"loss": float("nan")})
    Image.new("RGB", (8, 4)).save(root / "views.png")
    run.log_image("views", root / "views.png", 2)
    first = run.wandb_directory
    run.close("interrupted")

    resumed = Run.resume(run.directory, command="pretrain")
    resumed.rewind(1)
    resumed.log(2, {"loss": 1.0})
    resumed.encoder.mkdir()
    (resumed.encoder / "config.json").write_text("{}")
    (resumed.encoder / "model.safetensors").write_bytes(b"0" * 3000)
    resumed.log_artifact("encoder-digits", "encoder", resumed.encoder, {"width": 512})
    resumed.log_input("encoder-digits", "encoder", resumed.encoder)
    resumed.log_table("curve", ["method", "auroc"], [("probe", 0.9), ("knn", float("nan"))])
    second = resumed.wandb_directory
    resumed.finish({"knn_accuracy": FIGURE, "loss": 1.0})
    assert first is not None
    assert second is not None
    assert first != second
    return run.directory, run.record["wandb_id"], records(first), records(second)


def test_both_parts_lie_in_the_run_directory_under_one_id(finished: Any) -> None:
    directory, run_id, *parts = finished
    folders = sorted((directory / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    assert all((folder / f"run-{run_id}.wandb").stat().st_size > 0 for folder in folders)
    for part in parts:
        (run,) = of_type(part, "run")
        assert run["run_id"] == run_id
        assert run["project"] == "some-project"
        assert run["display_name"] == directory.name
        assert run["job_type"] == "pretrain"


def test_the_whole_configuration_got_there(finished: Any) -> None:
    (run,) = of_type(finished[2], "run")
    config = run["config"]["update"]
    assert config["backbone"] == "resnet18"
    assert config["optimisation"] == {"lr": 0.1}
    assert config["record"]["source"] == SOURCE
    assert config["record"]["parents"] == {"source": "digits"}
    assert config["record"]["provenance"]["packages"]["torch"]


def test_the_figures_got_there_at_their_steps(finished: Any) -> None:
    *_, first, second = finished
    before = {item["_step"]: item for item in (entry["item"] for entry in of_type(first, "history"))}
    assert before[1]["loss"] == 2.0
    assert before[1]["lr"] == 0.1
    assert before[2]["loss"] == "NaN"
    after = [entry["item"] for entry in of_type(second, "history")]
    assert [(item["_step"], item["loss"]) for item in after] == [(2, 1.0)]
    summary: dict[str, Any] = {}
    for entry in of_type(second, "summary"):
        summary |= entry["update"]
    assert (summary["knn_accuracy"], summary["knn_accuracy_low"], summary["knn_accuracy_high"]) == (
        0.9,
        0.8,
        0.95,
    )


def test_the_view_picture_got_there(finished: Any) -> None:
    directory, _, first, _ = finished
    item = next(entry["item"] for entry in of_type(first, "history") if entry["item"]["_step"] == 2)
    assert item["views._type"] == "image-file"
    assert (item["views.width"], item["views.height"]) == (8, 4)
    (picture,) = (directory / "wandb").glob(f"offline-run-*/files/{item['views.path']}")
    assert picture.is_file()


def test_the_source_is_an_input_and_its_fingerprint_makes_the_version(finished: Any) -> None:
    (source,) = of_type(finished[2], "artifact")
    assert (source["name"], source["type"]) == ("source-digits", "source")
    assert source["use_after_commit"] is True
    assert json.loads(source["metadata"]) == SOURCE
    (file,) = source["manifest"]["contents"]
    assert file["path"] == "source.json"
    assert json.loads(Path(file["local_path"]).read_text()) == SOURCE


def test_the_encoder_is_an_output_that_names_its_source_and_is_not_copied(finished: Any) -> None:
    directory, _, _, second = finished
    encoder, used = (found for found in of_type(second, "artifact") if found["type"] == "encoder")
    assert encoder["name"] == used["name"] == "encoder-digits"
    assert not encoder.get("use_after_commit")
    # The same files, so the same version: what links a run to the one that made its encoder.
    assert used["use_after_commit"] is True
    assert used["digest"] == encoder["digest"]
    metadata = json.loads(encoder["metadata"])
    assert metadata["width"] == 512
    assert metadata["run"] == directory.name
    assert metadata["source"] == SOURCE
    files = {file["path"]: file["local_path"] for file in encoder["manifest"]["contents"]}
    assert files == {name: str(directory / "encoder" / name) for name in ("config.json", "model.safetensors")}


def test_a_table_got_there(finished: Any) -> None:
    directory, _, _, second = finished
    keys = {key: value for entry in of_type(second, "history") for key, value in entry["item"].items()}
    assert keys["curve._type"] == "table-file"
    (file,) = (directory / "wandb").glob(f"offline-run-*/files/{keys['curve.path']}")
    table = json.loads(file.read_text())
    assert table["columns"] == ["method", "auroc"]
    assert table["data"] == [["probe", 0.9], ["knn", None]]


def test_how_each_part_ended(finished: Any) -> None:
    *_, first, second = finished
    assert [entry.get("exit_code", 0) for part in (first, second) for entry in of_type(part, "exit")] == [
        255,
        0,
    ]


def test_nothing_about_user_host_code_or_terminal_is_recorded(finished: Any) -> None:
    directory, _, *parts = finished
    assert "jane-doe" in (directory / "config.json").read_text()
    for part in parts:
        assert "jane-doe" not in json.dumps(part)
        (run,) = of_type(part, "run")
        assert not {"host", "git", "entity", "settings"} & run.keys()
        assert not {"output", "output_raw", "stats", "environment"} & {record["type"] for record in part}
    logged = {path.name for path in (directory / "wandb").glob("offline-run-*/files/*")}
    assert logged == {"media"}


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from fewlabel.tracking import Run
run = Run.create("pretrain", {}, out=Path(sys.argv[1]), source={"name": "s", "fingerprint": "f"})
run.log(1, {"loss": 1.0})
if sys.argv[2] == "kill":
    for stat in Path("/proc").glob("[0-9]*/stat"):
        name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        if name == "wandb-core" and int(rest.split()[1]) == os.getpid():
            os.kill(int(stat.parent.name), signal.SIGKILL)
    time.sleep(0.3)
for step in (2, 3, 4):
    run.log(step, {"loss": 1.0})
run.finish({"loss": 1.0})
"""


def run_script(tmp_path: Path, what: str, **environment: str) -> subprocess.CompletedProcess[str]:
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "XDG_"))}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "run"), what],
        env={**kept, "HOME": str(home), **environment},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def test_without_any_setting_it_is_offline_silent_and_leaves_nothing_at_home(tmp_path: Path) -> None:
    done = run_script(tmp_path, "go on")
    assert (done.stdout, done.stderr) == ("", "")
    assert list((tmp_path / "home").iterdir()) == []
    assert len(list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))) == 1


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the service through /proc")
def test_the_death_of_its_service_costs_one_warning(tmp_path: Path) -> None:
    done = run_script(tmp_path, "kill")
    assert done.stdout == ""
    assert done.stderr.count("W&B is off for the rest of this run") == 1
    assert "Traceback" not in done.stderr
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 4
    assert (tmp_path / "run" / "result.json").is_file()


def test_disabled_means_not_even_imported(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from fewlabel.tracking import Run;"
        "Run.create('pretrain', {}, out=Path(sys.argv[1])).finish({}); assert 'wandb' not in sys.modules"
    )
    environment = {**os.environ, "WANDB_MODE": "disabled"}
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "run")], check=True, env=environment)
    assert not (tmp_path / "run" / "wandb").exists()


def begin(directory: Path) -> WandbLog:
    return WandbLog(directory, "abcd", project="p", name="n", command="c", config={})


def test_a_picture_in_a_table_gets_there_with_its_caption(tmp_path: Path) -> None:
    log = begin(tmp_path)
    log.log_table("neighbours", ["query", "label"], [[Picture(Image.new("L", (6, 3), 77), "cat, 0.987"), "cat"]])
    where = log.run_directory
    log.finish("finished")
    assert where is not None
    (artifact,) = of_type(records(where), "artifact")
    files = {file["path"]: Path(file["local_path"]) for file in artifact["manifest"]["contents"]}
    assert all(path.is_relative_to(tmp_path) for path in files.values())
    ((cell, label),) = json.loads(files["neighbours.table.json"].read_text())["data"]
    assert (cell["_type"], cell["caption"], label) == ("image-file", "cat, 0.987", "cat")
    with Image.open(files[cell["path"]]) as opened:
        assert (opened.size, opened.convert("L").getpixel((2, 1))) == ((6, 3), 77)


def test_a_failing_start_costs_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**arguments: Any) -> None:
        raise wandb.errors.WandbCoreNotAvailableError("no [binary] here\nand more")

    monkeypatch.setattr(wandb, "init", broken)
    log = begin(tmp_path)
    log.log(1, {"loss": 1.0})
    log.summarise({"loss": 1.0})
    log.finish("finished")
    message = " ".join(capsys.readouterr().err.split())
    assert message.startswith("W&B is off for the rest of this run (no [binary] here).")
    assert message.count("W&B") == 1
    assert log.run_directory is None


def test_a_place_that_can_not_be_written_costs_one_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wandb").write_text("a file where the folder should be")
    begin(tmp_path).log(1, {"loss": 1.0})
    assert capsys.readouterr().err.count("W&B is off") == 1


def test_a_server_out_of_reach_leaves_an_offline_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb.teardown()
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    # Nothing listens on port 9 of this machine, so no packet leaves it.
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(wandb_log, "_INIT_SECONDS", 1.0)
    log = begin(tmp_path)
    log.log(1, {"loss": 1.0})
    where = log.run_directory
    log.finish("finished")
    assert where is not None
    assert where.name.startswith("offline-run-")
    assert of_type(records(where), "history")[0]["item"]["loss"] == 1.0
    message = " ".join(capsys.readouterr().err.split())
    assert message.startswith("W&B can't be reached (")
    assert "wandb sync" in message
    wandb.teardown()


LOCAL = {"WANDB_BASE_URL": "http://wandb.local:8080"}


@pytest.mark.parametrize(
    ("netrc", "environment", "mode", "message"),
    [
        (None, {}, "offline", ""),
        ("machine api.wandb.ai login user password KEY", {}, "online", ""),
        ("machine example.org login user password KEY", {}, "offline", ""),
        ("machine api.wandb.ai login user password KEY", LOCAL, "offline", ""),
        ("machine wandb.local:8080 login user password KEY", LOCAL, "online", ""),
        (None, {"WANDB_API_KEY": "0" * 40}, "online", ""),
        (None, {"WANDB_API_KEY": "typo"}, "offline", "W&B can't go online (WANDB_API_KEY invalid"),
        (None, {"WANDB_MODE": "online"}, "offline", "W&B can't go online (nobody has logged in)"),
        (None, {"WANDB_MODE": "online", "WANDB_API_KEY": "0" * 40}, "online", ""),
        (None, {"WANDB_MODE": "offline", "WANDB_API_KEY": "0" * 40}, "offline", ""),
        (None, {"WANDB_MODE": "dryrun", "WANDB_API_KEY": "0" * 40}, "offline", ""),
        (None, {"WANDB_MODE": "disabled", "WANDB_API_KEY": "0" * 40}, "disabled", ""),
    ],
)
def test_online_only_for_who_has_logged_in(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    netrc: str | None,
    environment: dict[str, str],
    mode: str,
    message: str,
) -> None:
    wandb.teardown()
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    if netrc is not None:
        (tmp_path / "netrc").write_text(netrc.replace("KEY", "0" * 40) + "\n")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wandb_log._mode() == mode
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith(message) if message else told == ""
    wandb.teardown()


def test_what_wandb_offline_wrote_is_honoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb.teardown()
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    (tmp_path / "settings").write_text("[default]\nmode = offline\n")
    assert wandb_log._mode() == "offline"
    wandb.teardown()


def test_artifact_names_are_what_wandb_takes() -> None:
    assert artifact_name("source-hf:owner/name:config") == "source-hf-owner-name-config"
    assert len(artifact_name("x" * 500)) == 128
    assert artifact_name("///") == "unnamed"


def test_two_runs_at_once_keep_their_figures_apart(tmp_path: Path) -> None:
    logs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        logs.append(WandbLog(tmp_path / name, f"id-{name}", project="p", name=name, command="c", config={}))
    for value, log in enumerate(logs):
        log.log(1, {"loss": value})
    parts = [log.run_directory for log in logs]
    for log in logs:
        log.finish("finished")
    for value, part in enumerate(parts):
        assert part is not None
        assert [entry["item"]["loss"] for entry in of_type(records(part), "history")] == [value]


def test_runs_of_a_group_are_shown_together_also_after_a_resume(tmp_path: Path) -> None:
    run = Run.create("trial", {}, out=tmp_path / "run", project="test", group="a study")
    first = run.wandb_directory
    run.close("interrupted")
    resumed = Run.resume(run.directory, command="trial")
    second = resumed.wandb_directory
    figure = Figure(Scatter(x=[1.0, 2.0], y=[3.0, 4.0], name="a line"))
    resumed.log_plot("scaling", figure)
    resumed.finish({})
    assert first is not None
    assert second is not None
    for part in (first, second):
        (found,) = of_type(records(part), "run")
        assert (found["run_group"], found["job_type"]) == ("a study", "trial")
    (file,) = (second / "files/media/plotly").glob("scaling_*.plotly.json")
    assert json.loads(file.read_text())["data"][0]["name"] == "a line"
