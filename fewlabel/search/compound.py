"""EfficientNet's own search: how to share a doubling of the cost among depth, width and resolution, then scale it."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from fewlabel.errors import UserError
from fewlabel.search.candidate import Candidate, Slot
from fewlabel.search.cost import Budget, Cost, Model, count

__all__ = ["ALONE", "BASE", "grid", "growth", "scaled"]

BASE = "base"
ALONE = ("depth", "width", "resolution")
"""The slots that scale one dimension and hold the other two."""

LATTICE = 6
"""Shares of the growth are multiples of 1/6, so that halves and thirds are among them: 25 ways beside the three."""
STEP = 1 / 16
"""Candidates along a direction lie so close, as an exponent of the growth: about 4 % of the cost."""
FURTHEST = 4.0
"""The greatest such exponent: a direction that has not reached the growth by then does not reach it."""
NEAR = 1.15
"""A candidate of the grid costs at most so many times more or less than what was asked."""
CLOSE = 1.02
"""So near to what was asked, no nearer candidate is looked for."""
LEAST_TIMES = 1.25
"""Below this many times the base's cost rounding leaves too few networks to compare."""
LEAST_GROWTH = 1.15
"""Scaled candidates are at least so many times apart in cost."""
LARGEST_PHI = 10


@dataclass(frozen=True)
class _Point:
    candidate: Candidate
    cost: Cost


def growth(base: Cost, budget: Budget, *, times: float = 2.0) -> float:
    """How many times the base's operations stage 1 takes: `times`, or less where the budget allows less.

    Raises:
        UserError: the budget is below the base's cost or leaves no room above it.
    """
    replace(budget, latency=None).check_smallest(base)
    times = min(times, budget.flops / base.flops if budget.flops else times)
    if times < LEAST_TIMES:
        raise UserError(
            f"--budget-flops allows {times:.2f} times the base's operations: compound mode compares larger models "
            f"than the base, so give at least {LEAST_TIMES:g}x, or start from a smaller backbone."
        )
    return times


def grid(
    model: Model, base: Cost, *, times: float = 2.0, most: int, budget: Budget | None = None
) -> list[tuple[Slot, Cost]]:
    """The trainings of stage 1: the base, each dimension alone, and ways to share the same growth among them.

    A way is a point (d, w, r) of a simplex, d + w + r = 1, for the multipliers times^(t d), times^(t w / 2) and
    times^(t r / 2), as depth costs once and width and resolution twice (arXiv:1905.11946, section 3.3). The t is
    found by counting: the one at which the measured cost comes nearest to `times` the base's. The points come from a
    lattice, each as far as can be from those before, so that any number of them covers the simplex. A multiplier that
    rounds to no change is 1, and of several candidates that are the same network at the same image size the first
    counts.

    Args:
        model: the network at scale 1.
        base: its cost.
        times: the growth in operations. A budget that allows less lowers it.
        most: how many candidates beside the base and the three alone.
        budget: operations and parameters that no candidate exceeds; a latency is not looked at.

    Returns:
        Slots with their counted costs. A dimension alone is there at whatever growth comes nearest, as long as the
        family can scale it; of the others those that change two dimensions and come within 15 % of `times`.

    Raises:
        UserError: the budget is below the base's cost or leaves no room above it, or the family can't be scaled.
    """
    limits = replace(budget or Budget(), latency=None)
    times = growth(base, limits, times=times)
    found = {BASE: _Point(Candidate(), base)}

    def add(key: str | None, shares: tuple[float, float, float]) -> bool:
        point = _nearest(model, base, times, limits, lambda t: _shared(times**t, shares))
        if point is None or any(point.cost.same_network(other.cost) for other in found.values()):
            return False
        point = _plain(model, point)
        scale = point.candidate
        changed = sum(value != 1 for value in (scale.depth, scale.width, scale.resolution))
        if key is None and (changed < 2 or not 1 / NEAR <= point.cost.ratio(base) / times <= NEAR):
            return False
        found[key or f"grid/{scale.depth:.2f}-{scale.width:.2f}-{scale.resolution:.2f}"] = point
        return True

    for key, corner in zip(ALONE, _CORNERS, strict=True):
        add(key, corner)
    if len(found) == 1:
        raise UserError(
            f"{model.name} can be scaled in no dimension to {times:.3g} times its cost within the budget: take "
            "another backbone, see `fewlabel backbones`."
        )
    missing = most
    for shares in _spread():
        if missing <= 0:
            break
        missing -= add(None, shares)
    return [
        (Slot(key, 1, point.candidate, protected=key in (BASE, *ALONE)), point.cost) for key, point in found.items()
    ]


def scaled(model: Model, base: Cost, chosen: Candidate, budget: Budget) -> list[tuple[Slot, Cost]]:
    """The trainings of stage 2: the chosen coefficients to the power of phi, for phi = 2, 3, ... within the budget.

    The last is the largest phi, in tenths, that the budget allows, where it costs clearly more than the one before.
    Powers that rounding makes the same network are left out, and so are those at which the family can't be built.

    Args:
        model: the network at scale 1.
        base: its cost.
        chosen: alpha, beta and gamma as multipliers: the candidate at phi = 1.
        budget: operations and parameters; a latency is not looked at. Without either there is no end, and phi = 2 is
            the only one.
    """
    limits = replace(budget, latency=None)

    def within(phi: float) -> _Point | None:
        point = _counted(model, _power(chosen, phi))
        return point if point is not None and limits.allows(point.cost) else None

    powers: list[tuple[float, _Point]] = []
    phi = 2
    while phi <= LARGEST_PHI and (point := within(phi)) is not None:
        powers.append((phi, point))
        phi += 1
        if limits == Budget():
            break
    else:
        tenths = (phi - tenth / 10 for tenth in range(1, 10))
        powers += [(one, point) for one in tenths if (point := within(one)) is not None][:1]
    first = _counted(model, chosen)
    slots: list[tuple[Slot, Cost]] = []
    before = base.flops if first is None else first.cost.flops
    for power, point in powers:
        if point.cost.flops >= LEAST_GROWTH * before:
            slots.append((Slot(f"phi/{power:g}", 2, point.candidate, phi=power, protected=True), point.cost))
            before = point.cost.flops
    return slots


_CORNERS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def _shared(growth: float, shares: tuple[float, float, float]) -> Candidate:
    depth, width, resolution = shares
    # Hundredths: what a person reads is what is built.
    return Candidate(round(growth**depth, 2), round(growth ** (width / 2), 2), round(growth ** (resolution / 2), 2))


def _power(chosen: Candidate, phi: float) -> Candidate:
    return replace(
        chosen,
        depth=round(chosen.depth**phi, 3),
        width=round(chosen.width**phi, 3),
        resolution=round(chosen.resolution**phi, 3),
    )


def _counted(model: Model, candidate: Candidate) -> _Point | None:
    """The candidate with its cost; None if the family can't take its scale."""
    try:
        return _Point(candidate, count(model, candidate.scale))
    except UserError:
        return None


def _nearest(
    model: Model, base: Cost, times: float, limits: Budget, along: Callable[[float], Candidate]
) -> _Point | None:
    """The candidate of a direction whose cost is nearest to `times` that of `base`, by ratio, within `limits`.

    The cost never falls along a direction, so bisection brackets it; None where nothing but the base keeps within.
    """
    low, high = 0, None
    found: list[_Point] = []
    # The formula is about right, so it is asked first.
    step = round(1 / STEP)
    while low < step <= FURTHEST / STEP:
        point = _counted(model, along(step * STEP))
        if point is not None and limits.allows(point.cost):
            found.append(point)
            if 1 / CLOSE <= point.cost.ratio(base) / times <= CLOSE:
                break
        if point is not None and point.cost.ratio(base) <= times and limits.allows(point.cost):
            low = step
        else:
            # What the family can't build is passed from below.
            high = step
        step = 2 * step if high is None else (low + high) // 2
    reached = [one for one in found if not one.cost.same_network(base)]
    return min(reached, key=lambda one: abs(math.log(one.cost.ratio(base) / times)), default=None)


def _plain(model: Model, point: _Point) -> _Point:
    """The same network without the multipliers that rounding leaves no effect."""
    for name in ALONE:
        without = _counted(model, replace(point.candidate, **{name: 1.0}))
        if without is not None and without.cost.same_network(point.cost):
            point = without
    return point


def _spread() -> Iterator[tuple[float, float, float]]:
    """The lattice without its corners, each point as far as can be from the corners and from those before it.

    The middle comes first: it is where the paper's coefficients are (shares of 0.28, 0.29 and 0.43).
    """
    left = [
        (depth / LATTICE, width / LATTICE, (LATTICE - depth - width) / LATTICE)
        for depth, width in itertools.product(range(LATTICE + 1), repeat=2)
        if depth + width <= LATTICE
    ]
    taken: list[tuple[float, float, float]] = list(_CORNERS)
    left = [point for point in left if point not in taken]
    while left:
        # Of equally far points the more even one: it tries more at once.
        point = max(left, key=lambda one: (round(min(math.dist(one, other) for other in taken), 9), -max(one)))
        left.remove(point)
        taken.append(point)
        yield point
