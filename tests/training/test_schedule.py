"""Durations as a table, and the shape of the schedule."""

import math
from itertools import pairwise

import pytest

from fewlabel.errors import UserError
from fewlabel.training.config import TrainingConfig
from fewlabel.training.schedule import Plan, default_batch_size, plan_steps, settle_durations, warmup_cosine


@pytest.mark.parametrize(
    ("options", "steps_per_epoch", "suggested", "expected"),
    [
        ({}, 50, None, Plan(50, 5000, 500, 50, 500)),
        ({}, 10, 16, Plan(10, 160, 16, 50, 16)),
        ({"epochs": 3}, 100, 16, Plan(100, 300, 30, 100, 100)),
        ({"max_steps": 7}, 100, None, Plan(100, 7, 0, 100, 100)),
        ({"epochs": 1000}, 20, None, Plan(20, 20000, 200, 50, 2000)),
        ({"epochs": 2, "warmup_epochs": 0.5}, 9, None, Plan(9, 18, 4, 50, 9)),
        ({"epochs": 2, "checkpoint_steps": 3, "evaluate_steps": 5}, 9, None, Plan(9, 18, 1, 3, 5)),
    ],
)
def test_durations_become_steps_once(options, steps_per_epoch, suggested, expected):
    config = TrainingConfig(**options)
    assert plan_steps(config, steps_per_epoch, suggested) == expected
    assert plan_steps(settle_durations(config, expected), steps_per_epoch, suggested) == expected


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(UserError, match="warmup-epochs"):
        plan_steps(TrainingConfig(epochs=1, warmup_epochs=2), 10, None)


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"epochs": 1, "max_steps": 1},
        {"batch_size": 1},
        {"lr": -1.0},
        {"lr": math.nan},
        {"processes": 0},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(UserError):
        TrainingConfig(**options)


def test_warm_up_is_linear_and_the_cosine_ends_at_zero():
    plan = Plan(10, 100, 10, 50, 10)
    rates = [warmup_cosine(step, plan) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)
    assert all(after <= before for before, after in pairwise(rates[10:]))


@pytest.mark.parametrize(
    ("images", "image_size", "processes", "expected"),
    [
        (50_000, 32, 1, 256),
        (50_000, 224, 1, 64),
        (1258, 12, 1, 64),
        (300, 32, 1, 16),
        (9, 32, 1, 8),
        (9, 32, 8, 16),
        (5, 32, 1, 4),
        (50_000, 32, 3, 255),
    ],
)
def test_default_batch_size(images, image_size, processes, expected):
    assert default_batch_size(images, image_size, processes) == expected
