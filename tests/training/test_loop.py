"""The loop: equal after a stop, loud on a bad loss, quiet otherwise. A tiny task on real images."""

import json
import os
import signal

import pytest
import torch
from torch import nn

from fewlabel.data.config import SourceConfig
from fewlabel.data.loader import Loader
from fewlabel.data.loading import load
from fewlabel.data.store import open_store
from fewlabel.errors import UserError
from fewlabel.training.checkpoint import latest_checkpoint, read_checkpoint
from fewlabel.training.config import TrainingConfig
from fewlabel.training.loop import Interrupted, fit, step_seed
from fewlabel.training.optimizers import build_optimizer
from fewlabel.training.processes import make_accelerator
from fewlabel.training.schedule import Plan
from fewlabel.training.task import Task


class NoisyMean(Task):
    """Regress the noisy mean of an image, with dropout, so that every random state counts."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 1))
        self.spoil_at = None
        self.calls = 0

    def forward(self, batch, generator):
        self.calls += 1
        values = batch.pixels.float() / 255
        noise = torch.randn(len(values), generator=generator)
        loss = (self.net(values)[:, 0] - values.mean(dim=(1, 2, 3)) - noise).square().mean()
        return {"loss": loss * float("nan") if self.calls == self.spoil_at else loss}


class Record:
    wandb_id = "abc"

    def __init__(self, directory):
        self.directory = directory
        self.lines = {}

    def log(self, step, metrics):
        self.lines[step] = metrics


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return open_store(load(SourceConfig()), "train", 8, cache_dir=cache, workers=1, max_bad_share=0.0)


PLAN = Plan(steps_per_epoch=39, total_steps=60, warmup_steps=6, checkpoint_steps=20, evaluate_steps=25)


def train(directory, store, *, task=None, evaluate=lambda step: {}, resume=False, spoil_at=None, record=None):
    task = task or NoisyMean()
    task.spoil_at = spoil_at
    fit(
        task,
        build_optimizer(task, TrainingConfig(optimizer="adamw", lr=0.01, weight_decay=0.01)),
        Loader(store, 32, seed=3),
        PLAN,
        make_accelerator(TrainingConfig(), "fp32"),
        record or Record(directory),
        seed=3,
        clip_grad_norm=1.0,
        evaluate=evaluate,
        checkpoint=latest_checkpoint(directory / "checkpoints") if resume else None,
    )
    return task.state_dict()


def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, store):
    whole = Record(tmp_path / "whole")
    expected = train(tmp_path / "whole", store, record=whole)

    def signal_at_25(step):
        if step == 25:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    parts = Record(tmp_path / "parts")
    with pytest.raises(Interrupted) as stop:
        train(tmp_path / "parts", store, evaluate=signal_at_25, record=parts)
    assert (stop.value.step, stop.value.number) == (25, signal.SIGTERM)
    resumed = train(tmp_path / "parts", store, resume=True, record=parts)
    assert list(parts.lines) == list(range(1, 61))
    assert [line["loss"] for line in parts.lines.values()] == [line["loss"] for line in whole.lines.values()]
    for name, value in expected.items():
        assert torch.equal(value, resumed[name]), name


def test_a_signal_in_the_last_step_reaches_whoever_listened_before(tmp_path, store):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))

    def at_the_end(step):
        if step == PLAN.total_steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    try:
        train(tmp_path, store, evaluate=at_the_end)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_resuming_a_complete_run_changes_nothing(tmp_path, store):
    expected = train(tmp_path, store)
    again = train(tmp_path, store, resume=True)
    assert all(torch.equal(expected[name], again[name]) for name in expected)


def test_a_bad_loss_stops_with_the_batch_and_the_weights_before_it(tmp_path, store):
    with pytest.raises(UserError, match="loss of step 30 is nan") as stop:
        train(tmp_path, store, spoil_at=31)
    saved = read_checkpoint(tmp_path / "bad-step-00000030.safetensors")
    assert saved.step == 30
    assert all(value.isfinite().all() for value in saved.model.values())
    expected = Loader(store, 32, seed=3).batch_at(30).index.tolist()
    assert str(expected) in str(stop.value)


def test_figures_are_logged_and_the_rate_follows_the_plan(tmp_path, store):
    record = Record(tmp_path)
    seen = []
    train(tmp_path, store, evaluate=lambda step: seen.append(step) or {"probe": 1.0}, record=record)
    assert seen == [25, 50, 60]
    assert record.lines[25]["probe"] == 1.0
    assert "probe" not in record.lines[26]
    assert record.lines[6]["learning_rate"] == pytest.approx(0.01)
    assert record.lines[60]["learning_rate"] < 1e-4
    assert record.lines[39]["epoch"] == pytest.approx(1.0)
    json.dumps(record.lines, allow_nan=False)


class Patient(NoisyMean):
    """Done after its second evaluation; counts its steps in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.tensor(0))

    def after_step(self, step):
        assert step == self.steps + 1
        self.steps.fill_(step)

    def is_done(self):
        return bool(self.steps >= 50)


def test_a_task_that_is_done_ends_the_training_at_an_evaluation_for_good(tmp_path, store):
    record = Record(tmp_path)
    state = train(tmp_path, store, task=Patient(), record=record)
    assert list(record.lines) == list(range(1, 51))
    assert state["steps"] == 50
    assert latest_checkpoint(tmp_path / "checkpoints").step == 50
    again = train(tmp_path, store, task=Patient(), record=record, resume=True)
    assert all(torch.equal(state[name], again[name]) for name in state)


def test_step_seeds_differ_between_steps_processes_and_runs():
    seeds = {step_seed(seed, step, rank) for seed in range(3) for step in range(50) for rank in range(4)}
    assert len(seeds) == 600
    assert all(0 <= seed < 2**63 for seed in seeds)
