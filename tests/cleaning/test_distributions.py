"""Pictures of distributions: every value is drawn, on its own side of the thresholds."""

import numpy as np
import pytest
from PIL import Image

from fewlabel.cleaning.distributions import draw_distribution, plain
from fewlabel.cleaning.measures import Measure

ORDINARY, BEYOND = (0, 114, 178), (213, 94, 0)


def columns_of(path, colour) -> np.ndarray:
    """The columns of the picture that hold the colour."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"), int)
    return np.flatnonzero((np.abs(pixels - colour).max(axis=2) <= 2).any(axis=0))


@pytest.mark.parametrize("log", [True, False])
def test_each_side_has_its_colour(tmp_path, log) -> None:
    measure = Measure("sharpness", "", log)
    values = np.array([0.0, 0.01, 0.02, 0.5, 0.6, 0.7, 0.9, np.nan], np.float32)
    draw_distribution(tmp_path / "low.png", "Blurred", measure, values, 0.1, None)
    draw_distribution(tmp_path / "high.png", "Bright", measure, values, None, 0.8)
    draw_distribution(tmp_path / "both.png", "Odd", measure, values, 0.1, 0.8)
    low, high, both = ((columns_of(tmp_path / f"{name}.png", BEYOND)) for name in ("low", "high", "both"))
    ordinary = columns_of(tmp_path / "both.png", ORDINARY)
    assert columns_of(tmp_path / "low.png", ORDINARY).min() > low.max()
    assert columns_of(tmp_path / "high.png", ORDINARY).max() < high.min()
    assert both.min() < ordinary.min() < ordinary.max() < both.max()


def test_values_without_a_logarithm_stand_beyond_a_low_threshold(tmp_path) -> None:
    values = np.array([0.0] * 50 + [40.0, 100.0, 255.0], np.float32)
    draw_distribution(tmp_path / "uniform.png", "Uniform", Measure("range", "levels", True), values, 5.5, None)
    beyond = columns_of(tmp_path / "uniform.png", BEYOND)
    assert len(beyond)
    assert beyond.max() < columns_of(tmp_path / "uniform.png", ORDINARY).min()


@pytest.mark.parametrize("values", [[0.0], [1.0, 1.0], [0.0, 0.0, 1e9]])
@pytest.mark.parametrize("limits", [(None, None), (0.0, None), (0.5, 2.0)])
def test_few_and_extreme_values(tmp_path, values, limits) -> None:
    draw_distribution(tmp_path / "few.png", "Few", Measure("size", "", True), np.array(values, np.float32), *limits)
    drawn = [columns_of(tmp_path / "few.png", colour).size for colour in (ORDINARY, BEYOND)]
    assert sum(drawn) > 0


def test_numbers_as_people_write_them() -> None:
    assert [plain(value) for value in (1330.2, 96.84, 0.14142, 0.0, 250_000)] == [
        "1,330",
        "96.8",
        "0.141",
        "0",
        "250,000",
    ]
