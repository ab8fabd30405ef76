"""What a study says to whoever decides, for studies that are clear, unclear, young, ended and odd."""

import numpy as np
import pytest
from made_studies import add, compound_study, free_study, interval, new_study
from optuna.trial import TrialState
from scipy import stats

from fewlabel.search.candidate import Candidate
from fewlabel.search.purchases import per_doubling
from fewlabel.search.table import FULL_LENGTH, rows_of, winner_of
from fewlabel.search.verdict import verdict


@pytest.mark.parametrize("best", ["depth", "width", "resolution"])
def test_the_dimension_that_bought_most_is_named_with_its_figures(storage, best):
    said = verdict(compound_study(storage, best=best))
    assert said[0].startswith(f"At about 2.0 times the cost, {best} bought the most: accuracy 0.660 (0.650 to 0.670)")
    assert "0.600 (0.590 to 0.610) of the base" in said[0]
    assert said[1] == f"Of the three, {best} is the one to buy: its interval lies above the others."
    assert f"better than {best} alone" in said[2]


def test_overlapping_intervals_are_not_told_apart(storage):
    said = verdict(compound_study(storage, half=0.05))
    assert "can't tell whether any of them is worth its cost" in said[1]
    assert "can't be told from resolution alone" in said[2]
    assert "buy" not in " ".join(said[1:3]).replace("buys", "")


def test_a_gain_may_be_sure_and_its_cause_not(storage):
    said = verdict(compound_study(storage, half=0.0245))
    assert "More compute pays, but the intervals of resolution and width overlap" in said[1]
    assert "better than the base, beyond both intervals, but can't be told from resolution alone" in said[2]


def test_what_bought_nothing_is_not_recommended(storage):
    study = new_study(storage)
    add(study, "base", Candidate(), interval(0.6), ratio=1.0)
    add(study, "depth", Candidate(depth=2.0), interval(0.5))
    said = verdict(study)
    assert "nothing alone bought any accuracy: depth came to 0.500" in said[0]
    assert "Stay with the base" in said[1]


def test_a_dimension_that_could_not_be_tried_is_named_with_the_reason(storage):
    study = new_study(storage)
    add(study, "base", Candidate(), interval(0.6), ratio=1.0)
    add(study, "width", Candidate(width=1.4), interval(0.7))
    add(study, "depth", Candidate(depth=2.0), state=TrialState.PRUNED, outcome="rejected: over the budget of 1.5x")
    said = verdict(study)
    assert "Depth alone has no value: rejected: over the budget of 1.5x." in said
    assert "Of the three, width" in said[1]


def test_mixtures_that_were_all_stopped_are_not_passed_over(storage):
    study = new_study(storage)
    add(study, "base", Candidate(), interval(0.6), ratio=1.0)
    add(study, "width", Candidate(width=1.4), interval(0.7))
    for depth in (1.1, 1.2):
        add(study, f"grid/{depth}", Candidate(depth=depth, width=1.2), state=TrialState.PRUNED)
    assert "None of the mixtures of the three was trained to its end (2 stopped early)." in verdict(study)


def test_before_anything_has_finished_there_is_nothing_to_read(storage):
    study = new_study(storage)
    assert verdict(study) == ["No trial has finished yet (none was begun): there is nothing to read from this study."]
    add(study, "base", Candidate(), state=TrialState.RUNNING)
    add(study, "depth", Candidate(depth=2.0), state=TrialState.WAITING)
    assert verdict(study)[0].startswith("No trial has finished yet (1 running and 1 waiting)")


def test_a_study_whose_trials_were_all_stopped_says_so(storage):
    study = new_study(storage)
    for number in range(3):
        add(study, f"trial/{number}", Candidate(depth=1 + number / 4), state=TrialState.PRUNED)
    (said,) = verdict(study)
    assert "No trial of this study was trained to its end (3 stopped early)" in said


def test_one_finished_trial_is_too_few(storage):
    study = new_study(storage)
    add(study, "base", Candidate(), interval(0.6), ratio=1.0)
    said = verdict(study)
    assert said[0] == "1 trial has finished, too few to say which of depth, width and resolution to buy."
    assert "the base, with accuracy 0.600" in said[1]


def test_a_running_study_says_that_it_may_change(storage):
    study = compound_study(storage)
    add(study, "phi/4", Candidate(depth=2.0), state=TrialState.RUNNING, phi=4)
    assert "The study is not over (1 running): this may change." in verdict(study)


def test_free_mode_finds_what_was_put_in(storage):
    study = free_study(storage, trials=40)
    gains = {one.name: one for one in per_doubling(rows_of(study))}
    # Resolution gains 0.05 a doubling, which costs four times as much: 0.025 for each doubling of the cost.
    assert next(iter(gains)) == "resolution"
    assert gains["resolution"].low < 0.025 < gains["resolution"].high
    assert gains["width"].low < 0.005 < gains["width"].high
    assert gains["depth"].low < 0 < gains["depth"].high
    said = verdict(study)
    assert "resolution is the one to buy" in said[1]
    assert "models are worth having" in said[2]


def test_slopes_and_their_intervals_are_those_of_a_regression(storage):
    study = new_study(storage)
    generator = np.random.default_rng(0)
    depths, values = 2 ** generator.uniform(-1, 1, 12), generator.normal(0.5, 0.1, 12)
    for number, (depth, value) in enumerate(zip(depths, values, strict=True)):
        add(study, f"trial/{number}", Candidate(depth=float(depth)), interval(float(value)), ratio=float(depth) ** 0.5)
    (found,) = per_doubling(rows_of(study))
    line = stats.linregress(np.log2(depths), values)
    half = stats.t(10).interval(0.95)[1] * line.stderr
    # Twice the depth is the square root of twice the cost.
    assert (found.mean, found.low, found.high) == pytest.approx(
        (2 * line.slope, 2 * (line.slope - half), 2 * (line.slope + half))
    )


def test_no_slope_is_drawn_through_trials_that_lie_on_one_line(storage):
    study = new_study(storage)
    for number in range(8):
        side = 1 + number / 8
        add(study, f"trial/{number}", Candidate(side, side, 1.0), interval(0.5 + number / 100))
    assert per_doubling(rows_of(study)) == []
    assert "too few" in verdict(study)[0]


def test_the_winner_is_the_best_at_full_length_once_there_is_one(storage):
    study = compound_study(storage)
    assert winner_of(study).slot == "phi/2"
    full = new_study(storage, study.study_name + FULL_LENGTH)
    assert winner_of(study).slot == "phi/2"
    add(full, "base", Candidate(), interval(0.8), ratio=1.0)
    add(full, "phi/2", Candidate(1.44, 1.21, 1.3225), interval(0.75))
    assert winner_of(study).slot == "base"
    said = verdict(study)
    assert "Best at full length: the base, with accuracy 0.800" in said[-2]
    assert "at least 3 are needed" in said[-1]


def test_what_turned_out_over_the_budget_is_no_winner(storage):
    study = new_study(storage)
    add(study, "trial/0", Candidate(), interval(0.6), ratio=1.0)
    add(study, "trial/1", Candidate(depth=2.0), interval(0.7), excess=0.1)
    assert winner_of(study).number == 0


def test_of_equals_the_cheaper_wins(storage):
    study = new_study(storage)
    add(study, "trial/0", Candidate(depth=2.0), interval(0.7))
    add(study, "trial/1", Candidate(depth=1.5), interval(0.7))
    assert winner_of(study).candidate.depth == 1.5


@pytest.mark.parametrize(
    ("difference", "ending"),
    [
        ((0.03, 0.01, 0.05), "it is better."),
        ((-0.03, -0.05, -0.01), "it is worse."),
        ((0.01, -0.02, 0.04), "these images can't tell them apart."),
    ],
)
def test_the_test_images_have_the_last_word(storage, difference, ending):
    study = compound_study(storage)
    study.set_user_attr(
        "test",
        {
            "winner": interval(0.75),
            "base": interval(0.72),
            "difference": dict(zip(("mean", "low", "high"), difference, strict=True)),
        },
    )
    assert verdict(study)[-1].endswith(ending)
    assert f"{difference[0]:+.3f} ({difference[1]:+.3f} to {difference[2]:+.3f})" in verdict(study)[-1]


def test_the_base_as_winner_is_not_compared_with_itself(storage):
    study = new_study(storage)
    add(study, "base", Candidate(), interval(0.6), ratio=1.0)
    study.set_user_attr("test", dict.fromkeys(("winner", "base"), interval(0.7)) | {"difference": interval(0.0, 0.0)})
    assert verdict(study)[-1] == (
        "On the test images, which nothing was chosen by, the base comes to 0.700 (0.690 to 0.710)."
    )


def test_what_was_scaled_on_is_told(storage):
    said = " ".join(verdict(compound_study(storage)))
    assert "The best of these larger models (depth x 1.2, width x 1.1, resolution x 1.15), scaled on to phi = 2" in said
    assert "3.80 times the cost): accuracy 0.740 (0.730 to 0.750)." in said
