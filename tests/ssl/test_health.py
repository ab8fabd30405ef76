"""Health figures on features whose figures are known."""

import math

import pytest
import torch
from torch import Tensor

from fewlabel.ssl import health as module
from fewlabel.ssl.health import alignment, collapse_warning, effective_rank, feature_std, health, uniformity


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_alignment_is_the_mean_squared_distance_of_unit_vectors() -> None:
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    second = torch.tensor([[5.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    assert alignment(first, second) == pytest.approx((0 + 4 + 2) / 3)


@pytest.mark.parametrize("rows", [3, 7, 1024])
def test_uniformity_is_that_of_all_pairs(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS", rows)
    features = noise(20, 3)
    unit = features / features.norm(dim=1, keepdim=True)
    expected = torch.pdist(unit.double()).square().mul(-2).exp().mean().log()
    assert uniformity(features) == pytest.approx(float(expected), abs=1e-5)


def test_uniformity_of_known_features() -> None:
    assert uniformity(torch.ones(9, 4)) == pytest.approx(0, abs=1e-6)
    assert uniformity(torch.tensor([[1.0], [-1.0]])) == pytest.approx(-8, abs=1e-5)
    assert uniformity(torch.eye(16)) == pytest.approx(-4, abs=1e-5)


def test_effective_rank_of_known_features() -> None:
    assert effective_rank(torch.eye(6).repeat(3, 1)) == pytest.approx(6, rel=1e-6)
    assert effective_rank(torch.ones(10, 4)) == pytest.approx(1, abs=1e-5)
    assert effective_rank(torch.ones(4, 10)) == pytest.approx(1, abs=1e-5)
    # Singular values 2 and 1: H = log 3 - 2/3 log 2.
    features = torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.0]])
    assert effective_rank(features) == pytest.approx(3 / 2 ** (2 / 3), rel=1e-6)


@pytest.mark.parametrize("shape", [(40, 9), (9, 40)])
def test_effective_rank_is_that_of_the_singular_values(shape: tuple[int, int]) -> None:
    features = noise(*shape) * torch.linspace(0.1, 3, shape[1])
    unit = (features / features.norm(dim=1, keepdim=True)).double()
    share = torch.linalg.svdvals(unit) / torch.linalg.svdvals(unit).sum()
    assert effective_rank(features) == pytest.approx(float((-share * share.log()).sum().exp()), rel=1e-6)


def test_feature_std_is_one_over_root_width_when_evenly_spread() -> None:
    assert feature_std(noise(4000, 64)) == pytest.approx(1 / 8, rel=0.02)
    assert feature_std(torch.ones(10, 64)) == pytest.approx(0, abs=1e-6)


def test_health_collects_the_figures_of_both_views() -> None:
    first, second = noise(50, 8), noise(50, 8, seed=1)
    figures = health(first, second)
    assert figures == {
        "alignment": alignment(first, second),
        "uniformity": pytest.approx((uniformity(first) + uniformity(second)) / 2),
        "effective_rank": effective_rank(torch.cat([first, second])),
        "feature_std": feature_std(torch.cat([first, second])),
    }
    assert all(type(figure) is float for figure in figures.values())
    assert figures == pytest.approx(health(3 * first, second / 3), rel=1e-4)
    assert health(first.bfloat16(), second.bfloat16()) == pytest.approx(figures, rel=0.02)


@pytest.mark.parametrize(("first", "second"), [((1, 4), (1, 4)), ((5, 4), (6, 4)), ((5,), (5,))])
def test_health_refuses(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected, not"):
        health(torch.ones(first), torch.ones(second))


def test_warns_of_features_that_are_all_the_same() -> None:
    same = torch.ones(1, 32) + 0.05 * noise(200, 32)
    message = collapse_warning(health(same, same))
    assert message is not None
    assert "nearly the same" in message


@pytest.mark.parametrize("mean", [0.0, 3.0])
def test_warns_of_features_on_a_line(mean: float) -> None:
    line = mean * noise(1, 32) + noise(200, 1, seed=1) * noise(1, 32, seed=2)
    message = collapse_warning(health(line, line))
    assert message is not None
    assert "one line" in message


@pytest.mark.parametrize(
    "features",
    [
        noise(300, 128),
        noise(300, 128).relu(),  # a backbone's features: none negative
        torch.eye(10)[torch.arange(300) % 10],  # ten classes, each in one point
        noise(300, 4) @ noise(4, 2048, seed=1),  # few of many dimensions
        torch.ones(300, 64) + 0.3 * noise(300, 64),  # much in common
    ],
    ids=["gaussian", "rectified", "classes", "narrow", "mean"],
)
def test_does_not_warn_of_features_that_differ(features: Tensor) -> None:
    assert collapse_warning(health(features, features)) is None


def test_threshold_means_what_its_docstring_says() -> None:
    width = 256
    spread = math.sqrt((1 / 0.99 - 1) / width)
    features = torch.full((400, width), 1 / math.sqrt(width)) + spread * noise(400, width)
    assert uniformity(features) == pytest.approx(module.COLLAPSED_UNIFORMITY, rel=0.1)
