import itertools
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabel.search.candidate import Candidate
from fewlabel.search.cost import Cost
from fewlabel.search.ranking import agreement, best, chosen, proxy_agreement


def study(*, costs: int = 0) -> optuna.Study:
    return optuna.create_study(directions=["maximize", *["minimize"] * costs])


def add(
    where: optuna.Study, slot: str, value: float | None, candidate: Candidate, *, flops: int = 100, over: float = -1
) -> None:
    trial = where.ask()
    told: dict[str, Any] = {"slot": slot, "candidate": candidate.as_json(), "cost_ratio": flops / 100}
    for name, one in {**told, "cost": Cost(10, flops, 32).as_json()}.items():
        trial.set_user_attr(name, one)
    trial.set_constraint("flops", over)
    if value is None:
        where.tell(trial, state=optuna.trial.TrialState.PRUNED)
    else:
        where.tell(trial, [value, *[float(flops)] * (len(where.directions) - 1)])


def test_the_coefficients_are_those_of_the_best_of_stage_one() -> None:
    one = study()
    add(one, "base", 0.9, Candidate())
    assert chosen(one.trials) is None
    add(one, "depth", 0.6, Candidate(2.0))
    add(one, "width", None, Candidate(width=1.4))
    add(one, "grid/1.20-1.10-1.15", 0.8, Candidate(1.2, 1.1, 1.15), flops=220)
    add(one, "grid/1.30-1.10-1.10", 0.8, Candidate(1.3, 1.1, 1.1), flops=200)
    add(one, "phi/2", 0.95, Candidate(1.69, 1.21, 1.21), flops=400)
    assert chosen(one.trials) == Candidate(1.3, 1.1, 1.1)


def test_the_best_keep_the_budget_and_are_different_networks() -> None:
    one = study()
    add(one, "base", 0.99, Candidate())
    add(one, "trial/1", 0.7, Candidate(1.5), flops=150)
    add(one, "trial/2", 0.9, Candidate(2.0), flops=300, over=0.5)
    add(one, "trial/3", 0.8, Candidate(1.6), flops=160)
    add(one, "trial/4", 0.75, Candidate(1.61), flops=160)
    add(one, "trial/5", 0.74, Candidate(1.6, lr=0.1), flops=160)
    add(one, "trial/6", None, Candidate(1.1))
    assert [trial.user_attrs["slot"] for trial in best(one, 3)] == ["trial/3", "trial/5", "trial/1"]
    assert len(best(one, 2)) == 2


def test_against_costs_the_best_are_on_the_front() -> None:
    one = study(costs=1)
    add(one, "trial/0", 0.5, Candidate(0.5), flops=50)
    add(one, "trial/1", 0.8, Candidate(1.5), flops=150)
    add(one, "trial/2", 0.79, Candidate(1.9), flops=190)
    add(one, "trial/3", 0.9, Candidate(1.8), flops=180)
    assert [trial.user_attrs["slot"] for trial in best(one, 5)] == ["trial/3", "trial/1", "trial/0"]


def slow_agreement(pairs: list[tuple[int, int]]) -> tuple[float, float]:
    """Tau of values without ties by its definition, and the share of all orders that agree at least as well."""

    def tau(short: tuple[int, ...], long: tuple[int, ...]) -> float:
        couples = list(itertools.combinations(zip(short, long, strict=True), 2))
        same = sum((a[0] < b[0]) == (a[1] < b[1]) for a, b in couples)
        return (2 * same - len(couples)) / len(couples)

    short, long = zip(*pairs, strict=True)
    own = tau(short, long)
    orders = [tau(short, order) for order in itertools.permutations(long)]
    return own, sum(other >= own - 1e-9 for other in orders) / len(orders)


@given(st.integers(3, 6).flatmap(lambda count: st.tuples(st.permutations(range(count)), st.permutations(range(count)))))
@settings(deadline=None)
def test_the_sentence_says_what_counting_all_orders_gives(orders: tuple[list[int], list[int]]) -> None:
    pairs = list(zip(*orders, strict=True))
    tau, chance = slow_agreement(pairs)
    found = agreement([(float(short), float(long)) for short, long in pairs])
    assert found.count == len(pairs)
    assert found.tau == pytest.approx(tau)
    assert f"tau {tau:.2f}, {len(pairs)} models" in found.sentence
    if tau <= 0:
        assert "--proxy-epochs" in found.sentence
    else:
        share = "less than 1" if chance < 0.01 else f"{100 * chance:.0f}"
        assert f"chance alone agrees as well in {share} % of cases" in found.sentence
        assert ("can be trusted to rank" in found.sentence) == (chance <= 0.05)


@pytest.mark.parametrize("pairs", [[], [(0.1, 0.2)], [(0.1, 0.2), (0.3, 0.4)], [(0.1, 0.2), (0.1, 0.3), (0.1, 0.4)]])
def test_where_there_is_no_ranking_there_is_no_tau(pairs: list[tuple[float, float]]) -> None:
    found = agreement(pairs)
    assert found.tau is None
    assert f"can't be said from {len(pairs)}" in found.sentence


def test_models_are_matched_by_their_candidate() -> None:
    short, full = study(), study()
    models = [Candidate(depth) for depth in (1.0, 1.5, 2.0, 2.5)]
    for place, model in enumerate(models):
        add(short, f"trial/{place}", 0.1 * place, model)
    for place in (3, 2, 0):
        add(full, f"full/{place}", 0.5 + 0.1 * place, models[place])
    add(full, "full/9", 0.0, Candidate(9.0))
    found = proxy_agreement(short, full)
    assert (found.tau, found.count) == (pytest.approx(1.0), 3)
    assert "3 of 3 pairs" in found.sentence
