"""A stopped run goes on as if it had never stopped."""

import json
import shutil
import signal
import time

import pytest

from fewlabel.__main__ import main

STEPS = 85  # of which 78 make an epoch
OPTIONS = ("--max-steps", STEPS, "--checkpoint-steps", 7, "--evaluate-steps", 40, "--warmup-epochs", 0.5)
WEIGHTS = "encoder/model.safetensors"


def lines(run):
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]] if file.exists() else []


def timeless(run):
    """The metrics without throughput, which no two runs share."""
    return [{name: value for name, value in line.items() if name != "views_per_second"} for line in lines(run)]


def stop_after(process, run, step, number):
    """Send signal `number` once `step` steps are logged; what the process said."""
    until = time.monotonic() + 100
    while len(lines(run)) < step and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(number)
    _, messages = process.communicate(timeout=60)
    return messages


@pytest.fixture(scope="module")
def uninterrupted(pretrain, tmp_path_factory):
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert pretrain(*OPTIONS, "--out", run) == 0
    return run


@pytest.fixture(scope="module")
def terminated(start, tmp_path_factory, tiny):
    """A run that SIGTERM ended in the middle of the first epoch, and what it said."""
    run = tmp_path_factory.mktemp("terminated") / "run"
    process = start("pretrain", *tiny, *OPTIONS, "--out", run)
    messages = stop_after(process, run, 10, signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM, messages
    return run, messages


@pytest.fixture
def stopped(terminated, tmp_path):
    """A copy of the terminated run."""
    return shutil.copytree(terminated[0], tmp_path / "stopped")


def test_sigterm_writes_a_checkpoint_and_says_how_to_go_on(terminated):
    run, messages = terminated
    steps = len(lines(run))
    assert 10 <= steps < 78
    assert (run / "checkpoints" / f"step-{steps:08d}.safetensors").exists()
    assert f"--resume {run}" in messages
    assert "Traceback" not in messages
    status = json.loads((run / "status.json").read_text())
    assert status["status"] == "interrupted"
    assert "SIGTERM" in status["reason"]


def test_resumed_after_sigterm_it_ends_in_the_same_bits(stopped, uninterrupted, capfd):
    before = json.loads((stopped / "config.json").read_text())
    already = len(lines(stopped))
    assert main(["pretrain", "--resume", str(stopped)]) == 0
    assert (stopped / WEIGHTS).read_bytes() == (uninterrupted / WEIGHTS).read_bytes()
    assert timeless(stopped) == timeless(uninterrupted)
    assert [line["step"] for line in lines(stopped)] == list(range(1, STEPS + 1))
    assert json.loads((stopped / "config.json").read_text()) == before
    metrics = [json.loads((run / "result.json").read_text())["metrics"] for run in (stopped, uninterrupted)]
    for figures in metrics:
        del figures["views_per_second"]
    assert metrics[0] == metrics[1]
    assert f"after step {already}" in capfd.readouterr().err


def test_killed_at_any_instant_it_ends_in_the_same_bits(start, uninterrupted, tmp_path, tiny):
    run = tmp_path / "run"
    process = start("pretrain", *tiny, *OPTIONS, "--out", run)
    stop_after(process, run, 24, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (run / "result.json").exists()
    assert main(["pretrain", "--resume", str(run)]) == 0
    assert (run / WEIGHTS).read_bytes() == (uninterrupted / WEIGHTS).read_bytes()
    assert timeless(run) == timeless(uninterrupted)


def test_without_any_checkpoint_it_begins_again(stopped, uninterrupted):
    shutil.rmtree(stopped / "checkpoints")
    assert main(["pretrain", "--resume", str(stopped)]) == 0
    assert (stopped / WEIGHTS).read_bytes() == (uninterrupted / WEIGHTS).read_bytes()


def test_another_configuration_is_refused_with_the_difference(stopped, refused):
    message = refused("pretrain", "--resume", stopped, "--temperature", 0.2, "--workers", 1)
    assert "simclr.temperature is 0.2 and was 0.1" in message
    assert "workers" not in message
    assert not (stopped / "result.json").exists()


def test_other_images_are_refused(pretrain, start, write_images, tmp_path, refused):
    photos, run = write_images(tmp_path / "photos", 40), tmp_path / "run"
    assert pretrain("--data", photos, "--max-steps", 2, "--out", run) == 0
    (run / "result.json").unlink()
    write_images(photos, 1, first=99)
    message = refused("pretrain", "--resume", run)
    assert str(photos) in message
    assert "not those" in message
    (photos / "099.png").unlink()
    assert main(["pretrain", "--resume", str(run)]) == 0


def test_a_finished_run_has_nothing_to_resume(uninterrupted, refused):
    assert "has finished" in refused("pretrain", "--resume", uninterrupted)


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_directory_that_is_no_run(tmp_path, refused, name):
    (tmp_path / "empty").mkdir()
    message = refused("pretrain", "--resume", tmp_path / name)
    assert str(tmp_path / name) in message
    assert "fewlabel runs" in message
