"""Intervals: they cover what they promise, respect groups and draws, and pair what is compared."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fewlabel.errors import UserError
from fewlabel.supervised.bootstrap import difference, figures_with_intervals, interval, replicates, resamples
from fewlabel.supervised.metrics import Predictions
from fewlabel.training.features import Interval

Array = np.ndarray[Any, Any]


def predictions(labels: Array, right: Array) -> Predictions:
    """Two classes, right where `right` is true."""
    shown = np.where(right, labels, 1 - labels)
    return Predictions(np.eye(2)[shown] * 0.6 + 0.2, labels, threshold=0.5, ordinal=False)


def simulated(number: int, accuracy: float, seed: int) -> Predictions:
    generator = np.random.default_rng(seed)
    return predictions(np.arange(number) % 2, generator.random(number) < accuracy)


def width(found: Interval) -> float:
    return found.high - found.low


def difference_in(name: str, a: Sequence[Predictions], b: Sequence[Predictions], count: int) -> Interval:
    of_a, of_b = (replicates(draws, None, count=count)[name] for draws in (a, b))
    return difference(of_a, of_b)


def test_images_are_drawn_with_replacement() -> None:
    labels = np.arange(50) % 2
    drawn = list(resamples(50, None, labels, count=400))
    assert len(drawn) == 400
    assert all(len(indices) == 50 for indices in drawn)
    times = np.array([np.bincount(indices, minlength=50) for indices in drawn])
    # Each count is binomial(50, 1 / 50): mean 1, variance 0.98.
    assert np.abs(times.mean(axis=0) - 1).max() < 0.25
    assert times.var() == pytest.approx(0.98, abs=0.05)


def test_groups_are_drawn_whole() -> None:
    groups = [f"patient {index % 7}" for index in range(40)]
    labels = np.arange(40) % 2
    members = [np.array([index for index in range(40) if index % 7 == group]) for group in range(7)]
    for indices in resamples(40, groups, labels, count=100):
        times = np.bincount(indices, minlength=40)
        assert sum(int(times[own[0]]) for own in members) == 7
        for own in members:
            assert len(set(times[own])) == 1


def test_a_resample_without_a_class_is_drawn_again_a_bounded_number_of_times() -> None:
    one_of_class_1 = np.arange(30) == 0
    assert all(0 in indices for indices in resamples(30, None, one_of_class_1, count=200))
    # 30 classes of one image each can't all be in a resample, which must not take for ever.
    assert len(list(resamples(30, None, np.arange(30), count=50))) == 50
    singles = Predictions(np.eye(30), np.arange(30), threshold=None, ordinal=True)
    assert figures_with_intervals([singles], None, count=50)["auroc"] == Interval(1, 1, 1)


def test_the_same_seed_gives_the_same_intervals_and_another_does_not() -> None:
    draws = [simulated(80, 0.7, seed) for seed in range(3)]
    first, again, other = (figures_with_intervals(draws, None, count=100, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first["accuracy"] != other["accuracy"]


def test_the_draw_of_a_replicate_depends_on_the_seed() -> None:
    labels = np.arange(10) % 2
    draws = [predictions(labels, np.full(10, right)) for right in (True, False)]
    found = {figures_with_intervals(draws, None, count=1, seed=seed)["accuracy"] for seed in range(20)}
    assert found == {Interval(0.5, 0, 0.5), Interval(0.5, 0.5, 1)}


def test_group_names_and_their_order_of_appearance_matter_not() -> None:
    labels = np.arange(60) % 2
    groups = [f"{index // 3:02}" for index in range(60)]
    order = np.random.default_rng(0).permutation(60)
    for one, two in zip(
        resamples(60, groups, labels, count=20),
        resamples(60, [groups[place] for place in order], labels[order], count=20),
        strict=True,
    ):
        assert sorted(order[two]) == list(one)


def test_interval_takes_the_middle_95_percent_and_holds_its_estimate() -> None:
    values = np.random.default_rng(0).permutation(np.arange(1001) / 1000)
    assert interval(values, 0.5) == Interval(0.5, pytest.approx(0.025), pytest.approx(0.975))
    assert interval(values, 0.01).low == 0.01
    assert interval(values, 0.99).high == 0.99


def test_the_estimate_is_that_of_the_images_themselves() -> None:
    draw = simulated(100, 0.8, 0)
    found = figures_with_intervals([draw], None, count=50)
    assert {name: figure.mean for name, figure in found.items()} == draw.figures()
    assert all(figure.low <= figure.mean <= figure.high for figure in found.values())


def test_an_interval_covers_the_true_accuracy_19_times_in_20() -> None:
    found = [figures_with_intervals([simulated(100, 0.8, seed)], None, 80, seed)["accuracy"] for seed in range(100)]
    assert 0.89 <= np.mean([figure.low <= 0.8 <= figure.high for figure in found]) <= 0.985
    # 2 * 1.96 * sqrt(0.8 * 0.2 / 100)
    assert np.mean([width(figure) for figure in found]) == pytest.approx(0.157, rel=0.1)


def test_images_that_agree_within_a_group_count_as_one() -> None:
    covered: dict[str, list[bool]] = {"images": [], "groups": []}
    labels = np.repeat(np.arange(60) % 2, 4)
    groups = [f"patient {index // 4}" for index in range(240)]
    for seed in range(40):
        right = np.repeat(np.random.default_rng(seed).random(60) < 0.8, 4)
        for name, known in (("images", None), ("groups", groups)):
            found = figures_with_intervals([predictions(labels, right)], known, count=60)["accuracy"]
            covered[name].append(found.low <= 0.8 <= found.high)
    assert np.mean(covered["groups"]) >= 0.88
    assert np.mean(covered["images"]) <= 0.8


def test_repeating_each_image_inside_its_group_changes_no_interval() -> None:
    once = simulated(60, 0.8, 3)
    labels, right = np.arange(60) % 2, np.random.default_rng(3).random(60) < 0.8
    groups = [f"patient {index // 2}" for index in range(60)]
    thrice = predictions(np.repeat(labels, 3), np.repeat(right, 3))
    found = figures_with_intervals([once], groups, count=200)
    repeated = figures_with_intervals([thrice], [group for group in groups for _ in range(3)], count=200)
    for name, figure in found.items():
        assert vars(repeated[name]) == pytest.approx(vars(figure), abs=1e-12)
    assert width(found["accuracy"]) > 0


def test_an_interval_over_draws_covers_both_sources_of_variation() -> None:
    labels = np.arange(400) % 2
    draws = [predictions(labels, np.arange(400) % 20 < level) for level in (12, 14, 16)]
    together = figures_with_intervals(draws, None, count=300)["accuracy"]
    alone = [figures_with_intervals([draw], None, count=300)["accuracy"] for draw in draws]
    assert together.mean == pytest.approx(0.7)
    assert together.low == pytest.approx(alone[0].low, abs=0.02)
    assert together.high == pytest.approx(alone[2].high, abs=0.02)
    # The same draw three times adds nothing.
    assert figures_with_intervals([draws[0]] * 3, None, count=300)["accuracy"] == alone[0]


def test_a_new_draw_on_new_images_falls_into_the_interval() -> None:
    """Draws differ in their accuracy; the interval is for the accuracy of the next one."""
    covered = []
    for seed in range(40):
        levels = np.random.default_rng(seed).normal(0.75, 0.05, 11)
        draws = [simulated(150, level, 1000 * seed + place) for place, level in enumerate(levels[1:])]
        found = figures_with_intervals(draws, None, 100, seed)["accuracy"]
        covered.append(found.low <= levels[0] <= found.high)
    assert np.mean(covered) >= 0.88


def test_a_method_against_itself_differs_by_exactly_nothing() -> None:
    draws = [simulated(90, level, 0) for level in (0.6, 0.8)]
    for metric in draws[0].figures():
        assert difference_in(metric, draws, draws, count=50) == Interval(0, 0, 0)


def test_a_paired_difference_is_of_the_same_images_and_draws() -> None:
    labels = np.arange(300) % 2
    a = [predictions(labels, np.arange(300) % 20 < level) for level in (12, 15, 18)]
    b = [predictions(labels, np.arange(300) % 20 < level - 1) for level in (12, 15, 18)]
    found = difference_in("accuracy", a, b, count=300)
    assert found.mean == pytest.approx(0.05)
    # Per draw the methods differ on 15 of 300 images: 2 * 1.96 * sqrt(0.05 * 0.95 / 300).
    assert width(found) == pytest.approx(0.0493, rel=0.2)
    assert found.low > 0
    back = difference_in("accuracy", b, a, count=300)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
    assert width(figures_with_intervals(a, None, count=300)["accuracy"]) > 5 * width(found)


def test_methods_with_different_numbers_of_draws_can_be_compared() -> None:
    few, one = [simulated(90, 0.6, seed) for seed in range(5)], [simulated(90, 0.9, 9)]
    assert difference_in("auroc", one, few, count=100).low > 0


def test_what_says_nothing_is_refused() -> None:
    draw = simulated(20, 0.8, 0)
    with pytest.raises(UserError, match=r"one group \(A\)"):
        figures_with_intervals([draw], ["A"] * 20)
    with pytest.raises(ValueError, match="same test images"):
        figures_with_intervals([draw, predictions(np.arange(20) % 3 % 2, np.ones(20) > 0)], None)
    with pytest.raises(UserError, match="one class"):
        figures_with_intervals([predictions(np.zeros(9, dtype=int), np.ones(9) > 0)], None)
