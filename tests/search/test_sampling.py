import optuna
import pytest

from fewlabel.errors import UserError
from fewlabel.search.candidate import Candidate
from fewlabel.search.config import SearchConfig
from fewlabel.search.cost import Model, count
from fewlabel.search.sampling import Range, make_sampler, smallest, space_of, suggest

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
