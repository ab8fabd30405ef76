"""Thresholds follow the collection within stated limits, and what is given stands."""

import numpy as np
import pytest
from made_collections import collection_of, pictures

from fewlabel.cleaning.config import ThresholdsConfig
from fewlabel.cleaning.measures import MEASURES
from fewlabel.cleaning.thresholds import derive_thresholds
from fewlabel.errors import UserError


def thresholds_of(config=None, **measures):
    count = len(next(iter(measures.values())))
    columns = {name: np.full(count, 1, np.float32) for name in MEASURES}
    columns |= {name: np.asarray(values, np.float32) for name, values in measures.items()}
    made = collection_of(pictures(count), measures=columns)
    return derive_thresholds(made, config or ThresholdsConfig())


def test_a_threshold_is_so_many_robust_deviations_from_the_median():
    levels = np.exp(np.random.default_rng(0).normal(np.log(0.6), 0.4, 500))
    logs = np.log(levels.astype(np.float32))
    expected = np.exp(np.median(logs) - 4.5 * 1.4826 * np.median(np.abs(logs - np.median(logs))))
    assert 0.05 < expected < 0.12
    assert thresholds_of(contrast=levels)["low_contrast"].low == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "measure", "values", "side", "expected"),
    [
        ("blurred", "sharpness", [1.0] * 9, "low", 0.2),
        ("blurred", "sharpness", [0.03, 0.2, 0.9, 3, 20], "low", 0.1),
        # A collection of soft images: the threshold stays clear of what is usual in it.
        ("blurred", "sharpness", [0.12] * 9, "low", 0.06),
        ("dark", "bright_level", [0.04] * 9, "low", 0.02),
        ("bright", "dark_level", [0.9] * 9, "high", 1.0),
        ("too_small", "shorter_side", [28] * 9, "low", 7),
        ("too_small", "shorter_side", [4000] * 9, "low", 32),
        ("odd_aspect", "ratio", [4.0] * 9, "high", 6),
        ("odd_size", "size", [100] * 9, "low", 100 / 3),
        ("odd_size", "size", [100] * 9, "high", 300),
        ("odd_size", "size", [5, 40, 100, 250, 9000], "high", 1000),
    ],
)
def test_limits(kind, measure, values, side, expected):
    threshold = thresholds_of(**{measure: values})[kind]
    assert getattr(threshold, side) == pytest.approx(expected, rel=1e-3)
    assert not threshold.given


def test_a_few_broken_images_move_nothing():
    sharp = np.full(90, 1.0) + np.random.default_rng(0).normal(0, 0.1, 90)
    blurred = np.concatenate([sharp, np.full(10, 0.01)])
    clean, dirty = (thresholds_of(sharpness=values)["blurred"] for values in (sharp, blurred))
    assert dirty.low == pytest.approx(clean.low, rel=0.15)
    assert dirty.beyond(blurred.astype(np.float32)).sum() == 10
    assert not dirty.beyond(np.array([np.nan], np.float32)).any()


@pytest.mark.parametrize(
    ("option", "kind", "side", "value"),
    [
        ("least_side", "too_small", "low", 100),
        ("longest_ratio", "odd_aspect", "high", 2),
        ("blur", "blurred", "low", 0.5),
        ("dark", "dark", "low", 0.7),
        ("bright", "bright", "high", 0.2),
        ("contrast", "low_contrast", "low", 0.0),
        ("uniform", "uniform", "low", 0),
    ],
)
def test_what_is_given_stands(option, kind, side, value):
    threshold = thresholds_of(ThresholdsConfig(**{option: value}), width=[1] * 5)[kind]
    assert getattr(threshold, side) == value
    assert threshold.given
    assert threshold.flag == f"--{option.replace('_', '-')}"


def test_nothing_decoded_leaves_thresholds_to_name():
    thresholds = derive_thresholds(collection_of(pictures(0)), ThresholdsConfig())
    assert all(threshold.explanation for threshold in thresholds.values())


@pytest.mark.parametrize(
    "wrong",
    [{"dark": 1.5}, {"blur": -1}, {"size_factor": 0.5}, {"hash_bits": 13}, {"semantic": 0}, {"contrast": float("nan")}],
)
def test_values_out_of_range_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} is "):
        ThresholdsConfig(**wrong)
