"""`fewlabel search` from the command line: stopped and resumed, and refused."""

import json
import re
import signal
import time

import optuna
import pytest

from fewlabel.__main__ import main
from fewlabel.pipelines import pretrain
from fewlabel.pipelines.configuration import load_config

OPTIONS = ("--max-steps", 20, "--trials", 5, "--confirm", 1, "--labels", 0.2)


def typed(*arguments):
    return [str(argument) for argument in arguments]


@pytest.fixture(scope="module")
def stopped(start, tiny, tmp_path_factory):
    """A search that Ctrl-C ended while it trained, and what it said."""
    run = tmp_path_factory.mktemp("search") / "run"
    process = start("search", *tiny, *OPTIONS, "--out", run)
    until = time.monotonic() + 200
    while not (run / "trials" / "0001" / "config.json").exists() and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, said
    return run, said


def trials_of(run, name="timm/test_resnet-digits"):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{run}/study.db").trials


def test_ctrl_c_ends_it_cleanly_and_says_how_to_go_on(stopped):
    run, said = stopped
    assert f"search --resume {run}" in said
    assert said.count("Stopping") == 1
    assert "Traceback" not in said + (run / "workers" / "0" / "log.txt").read_text()
    states = {trial.state.name for trial in trials_of(run)}
    assert "COMPLETE" in states
    assert not states & {"RUNNING", "WAITING"}
    assert json.loads((run / "status.json").read_text())["status"] == "interrupted"


def test_at_the_start_it_says_what_it_derived(stopped):
    _, said = stopped
    for derived in (
        "digits: 1,258 train, 180 val, 359 test; 1 channel",
        "timm/test_resnet at 32 px: 372,400 parameters",
        "accuracy of a linear probe after SimCLR pretraining, on validation images",
        "4x the base's flops",
        "depth and width alone: its family has no such network",
        "2 steps of 16 images",
        "20 steps of 16 images",
        "1 x 1 processes on cpu",
    ):
        assert derived in said


def test_resumed_it_goes_on_to_a_winner_that_pretrain_takes(stopped, capfd):
    run, _ = stopped
    before = [trial.number for trial in trials_of(run) if trial.state.name == "COMPLETE"]
    assert main(typed("search", "--resume", run, "--json")) == 0
    output, said = capfd.readouterr()
    result = json.loads(output)
    assert result == json.loads((run / "result.json").read_text())
    trials = trials_of(run)
    done = [trial.user_attrs["slot"] for trial in trials if trial.state.name == "COMPLETE"]
    assert len(done) == len(set(done))
    assert {"base", "resolution"} <= set(done)
    assert any(slot.startswith("phi/") for slot in done)
    assert all(trials[number].state.name == "COMPLETE" for number in before)
    accuracy = result["metrics"]["accuracy"]
    assert 0.2 < accuracy["low"] <= accuracy["mean"] <= accuracy["high"] <= 1
    winner = load_config(pretrain.Config, "pretrain", run / "winner.json")
    assert winner.backbone.backbone == "timm/test_resnet"
    assert winner.backbone.scale_resolution == result["candidate"]["resolution"]
    assert winner.training.max_steps == 20
    for told in (str(run / "winner.json"), str(run / "report.html"), "pretrain --config", *result["verdict"]):
        assert told in said
    assert (run / "report.html").stat().st_size > 10_000
    full = trials_of(run, "timm/test_resnet-digits (full length)")
    assert {trial.user_attrs["slot"] for trial in full if trial.state.name == "COMPLETE"} >= {"base"}
    record = json.loads((run / "full-length" / "0000" / "config.json").read_text())
    assert record["group"] == "timm/test_resnet-digits"
    assert record["config"]["cost"]["flops"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--budget-flops", "0.5x"), r"--budget-flops is 4\.0.*M, less than the smallest candidate takes: 8\.04.*M"),
        (("--budget-flops", "1.1x"), r"allows 1\.10 times .* give at least 1\.25x"),
        (("--mode", "free", "--budget-params", 100), "--budget-params is 100, less than the smallest"),
        (("--scale-depth", 2), "what a search finds"),
        (("--mode", "free", "--objective", "supervised", "--tune", "temperature"), "supervised has none"),
        (("--mode", "free", "--pruner", "hyperband"), "makes 2"),
        (("--tune", "lr"), "for --mode free"),
        (("--trials", 0), "--trials is 0"),
        (("--depth-range", 2, 1), "--depth-range is 2 1"),
        (("--storage", "postgresql://me@127.0.0.1:1/studies"), "can't be reached"),
        (("--val-share", 0), "no validation images"),
    ],
)
def test_what_cannot_be_searched(arguments, said, tiny, tmp_path, capfd):
    assert main(typed("search", *tiny, *OPTIONS, *arguments, "--out", tmp_path / "run")) == 2
    told = " ".join(capfd.readouterr().err.split())
    assert re.search(said, told), told
    assert not (tmp_path / "run").exists()


def test_a_study_of_other_options_in_the_same_storage(stopped, tiny, tmp_path, capfd):
    run, _ = stopped
    storage = f"sqlite:///{run}/study.db"
    other = ("search", *tiny, *OPTIONS, "--temperature", 0.2, "--storage", storage, "--out", tmp_path / "run")
    assert main(typed(*other)) == 2
    assert "simclr.temperature is 0.2 and was 0.1" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()
