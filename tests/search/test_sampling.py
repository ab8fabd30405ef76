import math

import optuna
import pytest

from fewlabel.errors import UserError
from fewlabel.search.candidate import Candidate
from fewlabel.search.config import SearchConfig
from fewlabel.search.cost import Model, count
from fewlabel.search.sampling import Range, compared_at_one_rung, make_sampler, smallest, space_of, suggest

SPACE = space_of(SearchConfig(mode="free"), {})
MOST = 1.5


def cost(candidate: Candidate) -> float:
    return candidate.depth * candidate.width**2 * candidate.resolution**2


def run(trials: int, *, seed: int = 0, told: bool = True, halt_at: int | None = None) -> list[Candidate]:
    """What a study of one worker tries, the larger model the better; `halt_at` makes it anew at that trial."""
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="it", direction="maximize")
    tried = []
    for number in range(trials):
        if number == halt_at:
            study = optuna.load_study(storage=storage, study_name="it")
        study.sampler = make_sampler(seed, number)
        trial = study.ask()
        candidate = suggest(trial, SPACE)
        tried.append(candidate)
        over = cost(candidate) > MOST
        if told:
            trial.set_constraint("flops", cost(candidate) / MOST - 1)
        rejected = optuna.trial.TrialState.PRUNED if told else optuna.trial.TrialState.FAIL
        study.tell(trial, None if over else cost(candidate), rejected if over else None)
    return tried


def test_the_same_seed_tries_the_same_also_after_a_halt() -> None:
    tried = run(20)
    assert run(20, halt_at=13) == tried
    assert run(20, seed=1) != tried
    assert len(set(tried)) == 20


def test_constraints_lead_away_from_what_the_budget_forbids() -> None:
    def over(*, told: bool) -> int:
        return sum(cost(one) > MOST for seed in range(4) for one in run(60, seed=seed, told=told)[15:])

    # Half of those where rejected candidates are forgotten.
    assert over(told=True) < over(told=False) / 2


def test_candidates_keep_the_ranges() -> None:
    for one in run(20):
        for name, limits in SPACE.items():
            assert limits.least <= getattr(one, name) <= limits.greatest


def test_what_is_enqueued_is_tried_and_leaves_the_dimensions_joined() -> None:
    study = optuna.create_study(direction="maximize", sampler=make_sampler(0, 0))
    study.enqueue_trial(Candidate().as_json())
    trial = study.ask()
    assert suggest(trial, SPACE) == Candidate()
    study.tell(trial, 1.0)
    joint = make_sampler(0, 1).infer_relative_search_space(study, study.trials[0])
    assert joint.keys() == SPACE.keys()


def test_settings_range_about_what_training_would_take() -> None:
    config = SearchConfig(mode="free", tune=("lr", "temperature"), depth_range=(1.0, 3.0))
    space = space_of(config, {"lr": 0.003, "temperature": 0.1})
    assert space["depth"] == Range(1.0, 3.0)
    assert list(space) == ["depth", "width", "resolution", "lr", "temperature"]
    for name, default in (("lr", 0.003), ("temperature", 0.1)):
        assert space[name].least < default < space[name].greatest


def test_a_setting_of_zero_cannot_be_multiplied() -> None:
    with pytest.raises(UserError, match="--weight-decay, which is 0"):
        space_of(SearchConfig(mode="free", tune=("weight_decay",)), {"weight_decay": 0.0})


def test_the_smallest_is_the_smallest_that_can_be_built() -> None:
    model = Model("resnet18", 32, 3, {"channels": (8, 16, 24, 32), "layers": (1, 2, 1, 1)})
    space = space_of(SearchConfig(mode="free", width_range=(0.2, 2.0), depth_range=(0.2, 1.0)), {})
    # A fifth of one block and of 8 channels is none.
    least = smallest(model, space)
    assert least.flops < count(model, Candidate().scale).flops
    refused = space_of(SearchConfig(mode="free", width_range=(0.2, 0.3)), {})
    with pytest.raises(UserError, match="no scale from the smallest to the largest"):
        smallest(model, refused)


def finished(number: int, values: dict[int, float], *, stopped: bool = False) -> optuna.trial.FrozenTrial:
    made = optuna.trial.create_trial(
        state=optuna.trial.TrialState.PRUNED if stopped else optuna.trial.TrialState.COMPLETE,
        value=None if stopped else values[max(values)],
        params={"x": number / 20},
        distributions={"x": optuna.distributions.FloatDistribution(0.0, 1.0)},
        intermediate_values=values,
    )
    made.number = number
    return made


def test_trials_are_compared_at_the_furthest_rung_that_enough_have_reached() -> None:
    trials = [
        finished(0, {2: 0.1, 6: 0.2, 9: 0.3}),
        finished(1, {3: 0.4}, stopped=True),
        finished(2, {2: 0.5, 7: 0.6}, stopped=True),
        finished(3, {2: math.nan}, stopped=True),
    ]

    def shown() -> list[float | None]:
        return [one.value for one in compared_at_one_rung(trials, (2, 6))]

    # There is one dimension, so three trials are enough; where not even the first rung has them, it is that one.
    assert shown() == [0.1, 0.4, 0.5, None]
    trials.append(finished(4, {2: 0.1, 6: 0.2, 9: 0.9}))
    assert shown() == [0.2, None, 0.6, None, 0.2]
    trials.append(finished(5, {2: 0.1, 6: 0.2, 9: 0.8}))
    assert shown() == [0.3, None, None, None, 0.9, 0.8]
    assert [trial.value for trial in trials] == [0.3, None, None, None, 0.9, 0.8]
    # Of more than ten trials two are good ones, and three times as many are enough.
    trials += [finished(number, {2: 0.1}, stopped=True) for number in range(6, 11)]
    assert shown()[:3] == [0.1, 0.4, 0.5]
    assert compared_at_one_rung([], (2, 6)) == []


def test_a_running_trial_stays_and_a_failed_one_goes() -> None:
    running, failed = finished(0, {2: 0.5}, stopped=True), finished(1, {2: 0.5}, stopped=True)
    running.state, failed.state = optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.FAIL
    assert compared_at_one_rung([running, failed], (2,)) == [running]


def test_a_bad_trial_that_had_nobody_to_lose_against_attracts_nothing() -> None:
    """The first, at 0.1, was trained to its end; better ones, at 0.8, were stopped by the best, at 0.9."""

    def tried(rungs: tuple[int, ...], seed: int) -> float:
        storage = optuna.storages.InMemoryStorage()
        # The second of its storage, as no study that a sampler makes for itself is.
        optuna.create_study(storage=storage)
        study = optuna.create_study(storage=storage, direction="maximize")
        ends = {0: 0.1, 7: 0.9}
        for number, x in enumerate((0.1, *[0.15, 0.3, 0.5, 0.6, 0.8, 0.85], 0.9, *[0.8, 0.84, 0.2, 0.4])):
            study.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState.COMPLETE if number in ends else optuna.trial.TrialState.PRUNED,
                    value=ends.get(number),
                    params={"x": x},
                    distributions={"x": optuna.distributions.FloatDistribution(0.0, 1.0)},
                    intermediate_values={2: x, 9: x} if number in ends else {2: x},
                )
            )
        study.sampler = make_sampler(seed, 20, rungs)
        return float(study.ask({"x": optuna.distributions.FloatDistribution(0.0, 1.0)}).params["x"])

    def low(rungs: tuple[int, ...]) -> int:
        return sum(tried(rungs, seed) < 0.5 for seed in range(20))

    assert low((2,)) == 0
    assert low(()) > 4
