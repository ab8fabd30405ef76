"""NT-Xent in one process: against the paper's double loop, lightly's loss, and known properties."""

import math
from typing import Any

import pytest
import torch
from lightly.loss import NTXentLoss
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fewlabel.ssl import nt_xent as module
from fewlabel.ssl.nt_xent import nt_xent

TEMPERATURES = [0.01, 0.015, 0.016, 0.1, 0.5, 10.0]


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of a few images then take several tiles, uneven ones too."""
    monkeypatch.setitem(module._TILE_SIDE, "cpu", 5)


def pair(count: int, width: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(  # type: ignore[return-value]
        torch.randn(count, width, dtype=dtype, generator=generator).requires_grad_() for _ in range(2)
    )


def papers_loss(first: Tensor, second: Tensor, temperature: float) -> float:
    """Algorithm 1 of arXiv 2002.05709 in plain Python numbers; z_(2k-1) and z_2k are the views of image k."""
    z = [row.tolist() for views in zip(first, second, strict=True) for row in views]

    def s(i: int, j: int) -> float:
        dot = math.fsum(a * b for a, b in zip(z[i], z[j], strict=True))
        return dot / (math.hypot(*z[i]) * math.hypot(*z[j]))

    def ell(i: int, j: int) -> float:
        candidates = [math.exp(s(i, k) / temperature) for k in range(len(z)) if k != i]
        return -math.log(math.exp(s(i, j) / temperature) / math.fsum(candidates))

    count = len(z) // 2
    return math.fsum(ell(2 * k, 2 * k + 1) + ell(2 * k + 1, 2 * k) for k in range(count)) / (2 * count)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("count", [1, 2, 5, 13])
def test_equals_the_papers_double_loop(count: int, temperature: float) -> None:
    first, second = pair(count, 6, torch.float64)
    expected = papers_loss(first, second, temperature)
    assert nt_xent(first, second, temperature).item() == pytest.approx(expected, rel=1e-11, abs=1e-11)
    single = nt_xent(first.float(), second.float(), temperature)
    assert single.dtype == torch.float32
    # A rounding error of a float32 similarity is multiplied by 1 / temperature.
    assert single.item() == pytest.approx(expected, rel=1e-6, abs=1e-6 / temperature)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_extreme_similarities_neither_overflow_nor_vanish(temperature: float) -> None:
    up = torch.tensor([[1.0, 0.0]])
    right = torch.tensor([[0.0, 1.0]])
    cases = {
        "all candidates opposite": (up, -up),
        "positives opposite, negatives equal": (torch.cat([up, up]), torch.cat([-up, -up])),
        "positives equal, negatives opposite": (torch.cat([up, -up]), torch.cat([up, -up])),
        "one outlier": (torch.cat([up, up, -up]), torch.cat([up, up, right])),
    }
    for name, (first, second) in cases.items():
        first.requires_grad_()
        loss = nt_xent(first, second, temperature)
        loss.backward()
        expected = papers_loss(first, second, temperature)
        assert loss.item() == pytest.approx(expected, rel=1e-6, abs=1e-6 / temperature), name
        assert first.grad is not None
        assert first.grad.isfinite().all(), name


@pytest.mark.parametrize("temperature", [0.012, 0.1, 2.0])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_backward_is_the_gradient(count: int, temperature: float) -> None:
    first, second = pair(count, 3, torch.float64, seed=count)
    assert torch.autograd.gradcheck(lambda a, b: 3 * nt_xent(a, b, temperature), (first, second))


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_equals_lightly(temperature: float) -> None:
    ours, theirs = pair(33, 16), pair(33, 16)
    loss, expected = nt_xent(*ours, temperature), NTXentLoss(temperature)(*theirs)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-5)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_tiles_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for side in (1, 4, 7, 26, 1000):
        monkeypatch.setitem(module._TILE_SIDE, "cpu", side)
        views = pair(13, 4, torch.float64)
        nt_xent(*views, 0.2).backward()
        results.append([view.grad for view in views])
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-12, atol=1e-14)


def test_neither_order_nor_sides_nor_lengths_of_pairs_matter() -> None:
    first, second = (view.detach() for view in pair(12, 5, torch.float64))
    loss = nt_xent(first, second, 0.1)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    swapped = torch.arange(12) % 3 == 0
    one, other = torch.where(swapped[:, None], second, first), torch.where(swapped[:, None], first, second)
    lengths = torch.linspace(0.01, 300, 12, dtype=torch.float64)[:, None]
    for same in ((first[order], second[order]), (one, other), (first * lengths, second / lengths)):
        torch.testing.assert_close(nt_xent(*same, 0.1), loss, rtol=1e-12, atol=0)
    mismatched = nt_xent(first, second[order], 0.1)
    assert abs(mismatched - loss) > 0.1


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_collapsed_projections_lose_the_log_of_the_candidates(count: int, temperature: float) -> None:
    same = torch.ones(count, 8)
    assert nt_xent(same, 2 * same, temperature).item() == pytest.approx(math.log(2 * count - 1), abs=2e-5)


def test_autocast_changes_nothing() -> None:
    plain, mixed = pair(20, 16), pair(20, 16)
    expected = nt_xent(*plain, 0.1)
    expected.backward()
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent(*mixed, 0.1)
        loss.backward()
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    for own, other in zip(mixed, plain, strict=True):
        assert torch.equal(own.grad, other.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_projections_are_compared_in_float32(dtype: torch.dtype) -> None:
    halves = [view.detach().to(dtype).requires_grad_() for view in pair(20, 16)]
    loss = nt_xent(*halves, 0.1)
    loss.backward()
    assert torch.equal(loss, nt_xent(*(view.detach().float() for view in halves), 0.1))
    assert all(view.grad is not None and view.grad.dtype == dtype for view in halves)


def test_not_a_number_comes_through() -> None:
    first, second = pair(4, 3)
    with torch.no_grad():
        second[2, 1] = torch.nan
    assert nt_xent(first, second, 0.1).isnan()


@pytest.mark.parametrize(
    ("shapes", "temperature"),
    [
        (((4, 3), (5, 3)), 0.1),
        (((4, 3), (4, 2)), 0.1),
        (((4, 3, 1), (4, 3, 1)), 0.1),
        (((0, 3), (0, 3)), 0.1),
        (((4, 3), (4, 3)), 0.0),
        (((4, 3), (4, 3)), -0.1),
        (((4, 3), (4, 3)), 0.001),
        (((4, 3), (4, 3)), math.nan),
        (((4, 3), (4, 3)), math.inf),
    ],
)
def test_refuses(shapes: tuple[tuple[int, ...], tuple[int, ...]], temperature: float) -> None:
    with pytest.raises(ValueError, match=r"expected, not|temperature"):
        nt_xent(*(torch.ones(shape) for shape in shapes), temperature)


class _Sizes(TorchDispatchMode):
    """Notes how many elements the storages of all results of operations have."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            storage = result.untyped_storage()
            self.elements[storage.data_ptr()] = storage.nbytes() // result.element_size()
        return result


def test_memory_is_tiles_and_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    side, count, width = 64, 800, 8
    monkeypatch.setitem(module._TILE_SIDE, "cpu", side)
    views = pair(count, width)
    with _Sizes() as sizes:
        nt_xent(*views, 0.1).backward()
    largest = max(sizes.elements.values())
    assert side**2 <= largest <= 2 * count * width  # the views' rows; all their pairs are 2,560,000
