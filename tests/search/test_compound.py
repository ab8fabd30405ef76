import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabel.backbones.scale import Scale
from fewlabel.errors import UserError
from fewlabel.search import compound
from fewlabel.search.candidate import Candidate
from fewlabel.search.compound import ALONE, BASE, grid, scaled
from fewlabel.search.cost import Budget, Cost, Model, count

SMALL = Model("resnet18", 32, 3, {"channels": (8, 16, 24, 32), "layers": (1, 2, 1, 1)})


def rounding_family(model: Model, scale: Scale) -> Cost:
    """Six blocks, 64 channels in eights, images in multiples of 4 px; refuses some widths as heads do."""
    blocks = math.floor(6 * scale.depth + 0.5)
    channels = max(1, math.floor(64 * scale.width / 8 + 0.5))
    side = max(1, math.floor(model.image_size * scale.resolution / 4 + 0.5))
    if channels % 7 == 0:
        raise UserError("7 heads")
    return Cost(blocks * channels**2, blocks * channels**2 * side**2, 4 * side)


@pytest.fixture
def formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compound, "count", rounding_family)


FORMULA = Model("formula", 64)
FORMULA_BASE = rounding_family(FORMULA, Scale())


def changed(candidate: Candidate) -> list[str]:
    return [name for name in ALONE if getattr(candidate, name) != 1]


def test_costs_are_the_counted_ones_and_no_network_comes_twice() -> None:
    base = count(SMALL, Scale())
    found = grid(SMALL, base, most=1)
    assert [slot.key for slot, _ in found[:4]] == [BASE, *ALONE]
    assert len(found) == 5
    for slot, cost in found:
        assert slot.candidate is not None
        assert cost == count(SMALL, slot.candidate.scale)
    assert len({(cost.parameters, cost.flops, cost.image_size) for _, cost in found}) == len(found)
    assert len({slot.key for slot, _ in found}) == len(found)


@pytest.mark.usefixtures("formula")
@given(st.floats(1.3, 4.0), st.integers(0, 12), st.none() | st.floats(1.3, 5.0), st.none() | st.floats(1.3, 5.0))
@settings(max_examples=25, deadline=None)
def test_the_grid_shares_one_growth(times: float, most: int, flops: float | None, parameters: float | None) -> None:
    budget = Budget(
        flops=flops and flops * FORMULA_BASE.flops, parameters=parameters and parameters * FORMULA_BASE.parameters
    )
    wanted = min(times, flops or times)
    found = {
        slot.key: (slot, cost) for slot, cost in grid(FORMULA, FORMULA_BASE, times=times, most=most, budget=budget)
    }
    assert found.pop(BASE)[0].candidate == Candidate()
    for slot, cost in found.values():
        assert budget.allows(cost)
        assert slot.stage == 1
        assert slot.candidate is not None
        assert cost == rounding_family(FORMULA, slot.candidate.scale)
        # Every multiplier that isn't 1 does something.
        for name in changed(slot.candidate):
            plain = replace(slot.candidate, **{name: 1.0})
            assert rounding_family(FORMULA, plain.scale) != cost
    for name in ALONE:
        if name in found:
            slot, _ = found.pop(name)
            assert slot.candidate is not None
            assert changed(slot.candidate) == [name]
            assert slot.protected
    assert len(found) <= most
    for slot, cost in found.values():
        assert slot.candidate is not None
        assert len(changed(slot.candidate)) >= 2
        assert 1 / 1.15 <= cost.ratio(FORMULA_BASE) / wanted <= 1.15
        assert not slot.protected


@pytest.mark.usefixtures("formula")
@pytest.mark.parametrize("name", ALONE)
def test_a_dimension_alone_comes_as_near_to_twice_the_cost_as_it_can(name: str) -> None:
    ratios = []
    for hundredths in range(101, 400):
        try:
            cost = rounding_family(FORMULA, Scale(**{name: hundredths / 100}))
        except UserError:
            continue
        if not cost.same_network(FORMULA_BASE):
            ratios.append(cost.ratio(FORMULA_BASE))
    nearest = min(abs(math.log(ratio / 2)) for ratio in ratios)
    slots = {slot.key: cost for slot, cost in grid(FORMULA, FORMULA_BASE, most=0)}
    assert abs(math.log(slots[name].ratio(FORMULA_BASE) / 2)) == pytest.approx(nearest)


@pytest.mark.usefixtures("formula")
def test_more_candidates_are_the_same_ones_and_others() -> None:
    few, many = (
        [
            slot.key
            for slot, _ in grid(Model("formula", 512), rounding_family(Model("formula", 512), Scale()), most=most)
        ]
        for most in (3, 9)
    )
    assert len(few) == 1 + 3 + 3
    assert len(many) == 1 + 3 + 9
    assert many[: len(few)] == few
    # The first shares the growth among all three, as the paper's coefficients do.
    assert all(float(part) > 1 for part in few[4].removeprefix("grid/").split("-"))


@pytest.mark.usefixtures("formula")
def test_a_budget_without_room_is_refused() -> None:
    with pytest.raises(UserError, match=r"--budget-flops is .*, less than the smallest"):
        grid(FORMULA, FORMULA_BASE, most=3, budget=Budget(flops=0.5 * FORMULA_BASE.flops))
    with pytest.raises(UserError, match=r"allows 1\.10 times .* give at least 1\.25x"):
        grid(FORMULA, FORMULA_BASE, most=3, budget=Budget(flops=1.1 * FORMULA_BASE.flops))


def test_a_network_that_cannot_be_scaled_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compound, "count", lambda model, scale: FORMULA_BASE)
    with pytest.raises(UserError, match="formula can be scaled in no dimension"):
        grid(FORMULA, FORMULA_BASE, most=3)


@pytest.mark.usefixtures("formula")
@given(st.floats(1.0, 1.5), st.floats(1.0, 1.4), st.floats(1.0, 1.4), st.floats(1.5, 60))
@settings(max_examples=50, deadline=None)
def test_powers_of_the_coefficients_grow_up_to_the_budget(
    depth: float, width: float, resolution: float, times: float
) -> None:
    chosen = Candidate(round(depth, 2), round(width, 2), round(resolution, 2))
    budget = Budget(flops=times * FORMULA_BASE.flops)
    found = scaled(FORMULA, FORMULA_BASE, chosen, budget)
    before = FORMULA_BASE.flops
    for slot, cost in found:
        assert slot.phi is not None
        assert slot.candidate is not None
        assert (slot.key, slot.stage, slot.protected) == (f"phi/{slot.phi:g}", 2, True)
        assert slot.phi > 1
        for name in ALONE:
            assert getattr(slot.candidate, name) == pytest.approx(getattr(chosen, name) ** slot.phi, abs=6e-4)
        assert cost == rounding_family(FORMULA, slot.candidate.scale)
        assert budget.allows(cost)
        assert cost.flops >= 1.15 * before
        before = cost.flops


@pytest.mark.usefixtures("formula")
@pytest.mark.parametrize(("times", "phis"), [(4.5, ["phi/2"]), (9.0, ["phi/2", "phi/3"]), (6.0, ["phi/2", "phi/2.5"])])
def test_the_last_power_is_the_largest_that_the_budget_allows(times: float, phis: list[str]) -> None:
    fine = Model("formula", 6400)
    base = rounding_family(fine, Scale())
    found = scaled(fine, base, Candidate(resolution=math.sqrt(2)), Budget(flops=times * base.flops))
    assert [slot.key for slot, _ in found] == phis


@pytest.mark.usefixtures("formula")
def test_without_a_budget_of_operations_one_power_is_tried() -> None:
    found = scaled(FORMULA, FORMULA_BASE, Candidate(1.2, 1.1, 1.15), Budget(latency=1.0))
    assert [slot.key for slot, _ in found] == ["phi/2"]
