"""Training in two real processes on the CPU."""

import json
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

OPTIONS = ("--max-steps", 60, "--checkpoint-steps", 50, "--evaluate-steps", 50)


def lines(run):
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]] if file.exists() else []


@pytest.fixture(scope="module")
def stopped(start, tmp_path_factory, tiny):
    """A run of two processes that SIGTERM to the command ended, and what it said."""
    run = tmp_path_factory.mktemp("two") / "run"
    process = start("pretrain", *tiny, *OPTIONS, "--processes", 2, "--out", run)
    until = time.monotonic() + 120
    while len(lines(run)) < 5 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, messages
    return run, messages


def test_both_take_part_and_one_speaks(stopped):
    run, messages = stopped
    assert "2 x cpu" in messages
    assert messages.count("Go on with") == messages.count("Stopping after this step") == 1
    assert "Traceback" not in messages
    assert "Warning" not in messages
    assert json.loads((run / "config.json").read_text())["config"]["training"]["processes"] == 2
    (checkpoint,) = (run / "checkpoints").iterdir()
    counted = [int(value) for name, value in load_file(checkpoint).items() if name.endswith("num_batches_tracked")]
    assert set(counted) == {len(lines(run))}


def test_the_first_loss_is_that_of_the_whole_batch(stopped):
    """At first all candidates are about alike: the loss is near the logarithm of the 2 x 16 - 1 candidates, and above
    what the 2 x 8 - 1 of one process could give were they compared evenly."""
    first = lines(stopped[0])[0]["loss"]
    assert torch.log(torch.tensor(15.0)) < first < 3 * torch.log(torch.tensor(31.0))


def test_another_launcher_resumes_it(stopped, start):
    run, _ = stopped
    done = len(lines(run))
    process = start(
        *("--standalone", "--nproc_per_node", 2, "-m", "fewlabel", "pretrain", "--resume", run, "--json"),
        module="torch.distributed.run",
    )
    output, messages = process.communicate(timeout=90)
    assert process.returncode == 0, messages
    assert f"after step {done}" in messages
    assert [line["step"] for line in lines(run)] == list(range(1, 61))
    result = json.loads(output)
    assert result == json.loads((run / "result.json").read_text())
    assert result["metrics"]["knn_accuracy"]["mean"] > 0.5


def test_an_error_of_one_process_is_told_once(start, tmp_path, tiny):
    """The first process finds the directory taken; what its death does to the other is not worth a word."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("keep")
    process = start("pretrain", *tiny, *OPTIONS, "--processes", 2, "--out", tmp_path / "run")
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 2
    assert messages.count("Error: ") == 1
    assert "isn't empty" in messages
    assert "Traceback" not in messages


def test_a_label_curve_is_written_by_one_of_them(start, trained, striped, tmp_path):
    out = tmp_path / "curve"
    process = start(
        *("label-curve", "--encoder", trained, "--data", striped, "--labels", 0.5, "--draws", 1, "--max-steps", 2),
        *("--evaluate-steps", 1, "--methods", "probe", "finetune", "--processes", 2, "--out", out),
    )
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 0, messages
    assert "Traceback" not in messages
    assert messages.count("1 x fine-tuned encoder still to do") == messages.count("Report:") == 1
    (training,) = (out / "answers").glob("finetune-*/metrics.jsonl")
    assert [json.loads(line)["step"] for line in training.read_text().splitlines()] == [1, 2]
    methods = {row["method"] for row in json.loads((out / "result.json").read_text())["metrics"]["curve"]}
    assert methods == {"probe", "knn", "finetune"}
