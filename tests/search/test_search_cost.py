import re

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from fewlabel.backbones.scale import Scale
from fewlabel.errors import UserError
from fewlabel.search.cost import Budget, Cost, Model, count

SMALL = Model("resnet18", 32, 3, {"channels": (8, 16, 24, 32)})
BASE = Cost(parameters=1_000_000, flops=200_000_000, image_size=32, latency=0.01)


def slow_count(model: Model, scale: Scale) -> Cost:
    """Counted on a real network by what each layer puts out."""
    network = model.create(scale).eval()
    flops = 0

    def note(layer: nn.Module, given: tuple[torch.Tensor], out: torch.Tensor) -> None:
        nonlocal flops
        assert isinstance(layer, nn.Conv2d)
        height, width = layer.kernel_size
        flops += 2 * out.numel() * height * width * layer.in_channels // layer.groups

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(note)
    with torch.no_grad():
        network(torch.zeros(1, model.in_chans, network.image_size, network.image_size))
    parameters = sum(len(one.flatten()) for one in network.state_dict(keep_vars=True).values() if one.requires_grad)
    return Cost(parameters, flops, network.image_size)


@pytest.mark.parametrize("scale", [Scale(), Scale(depth=1.5), Scale(width=1.4), Scale(resolution=1.3), Scale(2, 2, 2)])
def test_costs_are_those_of_the_network_that_is_built(scale: Scale) -> None:
    assert count(SMALL, scale) == slow_count(SMALL, scale)


def test_multipliers_that_round_alike_are_the_same_network() -> None:
    assert count(SMALL, Scale(1.01, 1.01, 1.01)).same_network(count(SMALL, Scale()))
    assert not count(SMALL, Scale(1.5)).same_network(count(SMALL, Scale()))


def test_a_measured_latency_draws_no_random_numbers_and_changes_nothing_else() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    measured = count(SMALL, Scale(), latency_on=torch.device("cpu"))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert measured.latency is not None
    assert 1e-5 < measured.latency < 1
    assert measured.same_network(count(SMALL, Scale()))


def test_a_scale_that_the_family_cannot_take_is_refused() -> None:
    with pytest.raises(UserError, match=r"Depth 0\.2"):
        count(SMALL, Scale(depth=0.2))


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("2x", 4e8),
        ("0.5x", 1e8),
        ("3e9", 3e9),
        ("1.5G", 1.5e9),
        ("600M", 6e8),
        ("5e8", 5e8),
        (" 7k ", 7e3),
        ("1e+3", 1e3),
    ],
)
def test_limits_are_read_as_they_are_typed(text: str, limit: float) -> None:
    assert Budget.parse(BASE, flops=text) == Budget(flops=pytest.approx(limit))


@pytest.mark.parametrize(("text", "limit"), [("10ms", 0.01), ("0.02s", 0.02), ("500us", 0.0005), ("3x", 0.03)])
def test_latencies_are_read_with_their_unit(text: str, limit: float) -> None:
    assert Budget.parse(BASE, latency=text) == Budget(latency=pytest.approx(limit))


@pytest.mark.parametrize("text", ["", "x", "-2x", "0", "two", "10ms", "3ee9", "nan", "infx", "1e999"])
def test_what_is_no_limit_is_refused_with_its_flag(text: str) -> None:
    with pytest.raises(UserError, match=r"--budget-params is .*: write a positive number"):
        Budget.parse(BASE, parameters=text)


@pytest.mark.parametrize("text", ["10", "10G", "5m"])
def test_a_latency_needs_a_unit_of_time(text: str) -> None:
    with pytest.raises(UserError, match="--budget-latency"):
        Budget.parse(BASE, latency=text)


def test_excess_is_relative_to_each_limit() -> None:
    budget = Budget(flops=100_000_000, parameters=2_000_000)
    assert budget.excess(BASE) == {"flops": pytest.approx(1.0), "parameters": pytest.approx(-0.5)}
    assert not budget.allows(BASE)
    assert Budget(flops=BASE.flops).allows(BASE)


def test_a_latency_that_was_not_measured_is_never_taken_for_none() -> None:
    with pytest.raises(ValueError, match="not measured"):
        Budget(latency=1.0).excess(Cost(1, 1, 32))


@given(st.integers(1, 10**12), st.integers(1, 10**10), st.floats(1e-5, 10), st.floats(0.01, 0.99))
@example(flops=1, parameters=1001, latency=1.0, share=0.5)
@settings(deadline=None)
def test_what_a_refused_budget_advises_is_enough(flops: int, parameters: int, latency: float, share: float) -> None:
    smallest = Cost(parameters, flops, 32, latency)
    flags = {"flops": flops, "parameters": parameters, "latency": latency}
    for name, value in flags.items():
        budget = Budget(**{name: share * value})
        with pytest.raises(UserError) as refused:
            budget.check_smallest(smallest)
        advice = re.search(r"Give at least (\S+),", str(refused.value))
        assert advice is not None
        Budget.parse(BASE, **{name: advice[1]}).check_smallest(smallest)
