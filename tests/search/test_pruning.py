import math
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabel.errors import UserError
from fewlabel.search.cost import Cost
from fewlabel.search.pruning import Arm, MultiObjectiveHalving, Pruning, first_rung, make_pruner

STEPS = range(1, 11)
curves = st.lists(st.integers(0, 5).map(float), min_size=len(STEPS), max_size=len(STEPS))
costs = st.tuples(st.integers(1, 3).map(float), st.integers(1, 3).map(float))


def study_of(pruning: Pruning) -> optuna.Study:
    several = len(pruning.against)
    return optuna.create_study(
        directions=["maximize", *["minimize"] * several],
        pruner=make_pruner(
            pruning.name, objectives=1 + several, first_step=pruning.first_step, last_step=pruning.last_step
        ),
    )


def ends_by_our_rule(trials: list[list[float]], rule: MultiObjectiveHalving, cost: tuple[float, ...] = ()) -> list[int]:
    """The step at which each of `trials`, one after another, was stopped; 0 for never."""
    others: list[Arm] = []
    ends = []
    for curve in trials:
        end = 0
        for step in STEPS:
            arm = Arm(dict(zip(STEPS, curve[:step], strict=False)), cost)
            if rule.stops(arm, others):
                end = step
                break
        others.append(arm)
        ends.append(end)
    return ends


def ends_by_optuna(trials: list[list[float]], pruner: optuna.pruners.BasePruner) -> list[int]:
    study = optuna.create_study(direction="maximize", pruner=pruner)
    ends = []
    for curve in trials:
        trial = study.ask()
        end = 0
        for step in STEPS:
            trial.report(curve[step - 1], step)
            if trial.should_prune():
                end = step
                break
        study.tell(trial, None if end else curve[-1], optuna.trial.TrialState.PRUNED if end else None)
        ends.append(end)
    return ends


def ends_by_asha(trials: list[list[float]], first: int, eta: int) -> list[int]:
    """Li et al. 2018, algorithm 2, get_job: promote from a rung if in its top 1/eta, at least one, ties included."""
    rungs: dict[int, list[float]] = {}
    ends = []
    for curve in trials:
        end = 0
        for step in STEPS:
            k = round(math.log(step / first, eta)) if step >= first else -1
            if k >= 0 and first * eta**k == step:
                rung = rungs.setdefault(k, [])
                rung.append(curve[step - 1])
                top = sorted(rung, reverse=True)[: max(1, len(rung) // eta)]
                if curve[step - 1] < top[-1]:
                    end = step
                    break
        ends.append(end)
    return ends


@given(st.lists(curves, max_size=12), st.integers(1, 3), st.integers(2, 4))
@settings(deadline=None)
def test_at_equal_costs_it_is_asha(trials: list[list[float]], first: int, eta: int) -> None:
    ours = ends_by_our_rule(trials, MultiObjectiveHalving(first, eta), cost=(2.0, 5.0))
    assert ours == ends_by_asha(trials, first, eta)


@given(st.lists(curves, max_size=8))
@settings(deadline=None)
def test_without_costs_it_is_what_optuna_does(trials: list[list[float]]) -> None:
    pruner = make_pruner("halving", objectives=1, first_step=2, last_step=9)
    assert ends_by_our_rule(trials, MultiObjectiveHalving(2)) == ends_by_optuna(trials, pruner)


@given(st.lists(st.tuples(st.integers(0, 5).map(float), costs), min_size=1, max_size=20), st.integers(2, 4))
@settings(deadline=None)
def test_no_member_of_a_rungs_pareto_front_is_stopped(there: list[tuple[float, tuple[float, float]]], eta: int) -> None:
    (value, cost), *others = there
    dominated = any(
        other >= value and theirs[0] <= cost[0] and theirs[1] <= cost[1] and (other, theirs) != (value, cost)
        for other, theirs in others
    )
    stops = MultiObjectiveHalving(1, eta).stops(Arm({1: value}, cost), [Arm({1: other}, one) for other, one in others])
    if not dominated:
        assert not stops
    if stops:
        assert any(other > value and theirs[0] <= cost[0] and theirs[1] <= cost[1] for other, theirs in others)


@given(curves, st.lists(curves, max_size=8))
@settings(deadline=None)
def test_dearer_trials_stop_nothing(curve: list[float], dearer: list[list[float]]) -> None:
    arm = Arm({1: curve[0]}, (1.0, 5.0))
    others = [Arm({1: other[0] + 1}, (2.0, 1.0)) for other in dearer]
    assert not MultiObjectiveHalving(1).stops(arm, others)


def test_better_trials_that_cost_no_more_stop_it() -> None:
    others = [Arm({3: 0.9}, (1.0,)), Arm({3: 0.8}, (2.0,))]
    assert MultiObjectiveHalving(3).stops(Arm({3: 0.7}, (2.0,)), others)
    # Not yet at the rung.
    assert not MultiObjectiveHalving(4).stops(Arm({3: 0.7}, (2.0,)), others)
    # A better start is no excuse at the next rung, and an old defeat no sentence.
    assert MultiObjectiveHalving(1).stops(Arm({1: 0.9, 3: 0.7}, (2.0,)), others)
    assert not MultiObjectiveHalving(1).stops(Arm({1: 0.9, 3: 0.95, 4: 0.1}, (2.0,)), others)


def test_no_number_stops_at_the_next_rung() -> None:
    assert MultiObjectiveHalving(1).stops(Arm({1: math.nan}), [])
    assert not MultiObjectiveHalving(2).stops(Arm({1: math.nan}), [])


@pytest.mark.parametrize(("first_step", "last_step", "first"), [(24, 216, 48), (1, 100, 23), (50, 100, 50), (3, 7, 3)])
def test_the_first_rung_is_at_two_ninths(first_step: int, last_step: int, first: int) -> None:
    assert first_rung(first_step, last_step) == first
    for against in ((), ("flops",)):
        pruning = Pruning("auto", against, first_step, last_step)
        study = study_of(pruning)
        pruning.stops(begun(study), first, 0.9, protected=False)
        early, late = begun(study), begun(study)
        assert not any(pruning.stops(early, step, 0.1, protected=False) for step in range(1, first))
        assert pruning.stops(late, first, 0.1, protected=False)


def begun(study: optuna.Study, flops: int = 100, latency: float | None = None) -> optuna.Trial:
    trial = study.ask()
    trial.set_user_attr("cost", Cost(10, flops, 32, latency).as_json())
    return trial


def test_rungs_are_where_trials_stop() -> None:
    assert Pruning("auto", (), 24, 216).rungs == (48, 144)
    assert Pruning("hyperband", (), 1, 8).rungs == (2, 6)
    assert Pruning("auto", (), 50, 100).rungs == (50,)
    assert Pruning("auto", (), 7, 7).rungs == ()
    assert Pruning("none", (), 1, 9).rungs == Pruning("halving", ("flops",), 1, 9).rungs == ()


@pytest.mark.parametrize("against", [(), ("flops",), ("flops", "latency")])
def test_a_bad_trial_stops_unless_it_is_protected_or_at_its_end(against: tuple[str, ...]) -> None:
    pruning = Pruning("halving", against, first_step=1, last_step=4)
    study = study_of(pruning)
    good = begun(study, latency=0.1)
    for step in range(1, 5):
        assert not pruning.stops(good, step, 0.9, protected=False)
    assert not pruning.stops(begun(study, latency=0.1), 1, 0.1, protected=True)
    bad = begun(study, latency=0.1)
    assert pruning.stops(bad, 1, 0.1, protected=False)
    late = begun(study, latency=0.1)
    assert not pruning.stops(late, 4, 0.1, protected=False)
    # Half its latency or its operations, and no cost in common.
    if against:
        assert not pruning.stops(begun(study, flops=50, latency=0.05), 1, 0.1, protected=False)


def test_what_an_ended_worker_left_stops_no_second_try() -> None:
    pruning = Pruning("auto", ("params",), first_step=1, last_step=5)
    study = study_of(pruning)
    dead = begun(study)
    pruning.stops(dead, 1, 0.9, protected=False)
    study.tell(dead, state=optuna.trial.TrialState.FAIL)
    assert not pruning.stops(begun(study), 1, 0.5, protected=False)


def test_values_are_kept_as_rungs() -> None:
    pruning = Pruning("none", ("flops",), first_step=1, last_step=5)
    study = study_of(pruning)
    trials: list[Any] = [begun(study), begun(study)]
    for trial, value in zip(trials, (0.9, 0.1), strict=True):
        assert not pruning.stops(trial, 1, value, protected=False)
        assert not pruning.stops(trial, 3, value, protected=False)
    assert study.trials[1].user_attrs["rungs"] == {"1": 0.1, "3": 0.1}


def test_which_pruner_a_study_gets() -> None:
    def kind(name: str, objectives: int) -> str:
        return type(make_pruner(name, objectives=objectives, first_step=5, last_step=50)).__name__

    assert kind("auto", 1) == kind("halving", 1) == "SuccessiveHalvingPruner"
    assert kind("hyperband", 1) == "HyperbandPruner"
    assert kind("none", 1) == kind("auto", 2) == "NopPruner"
    with pytest.raises(UserError, match="one objective"):
        kind("hyperband", 2)
