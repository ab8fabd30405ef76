"""What a candidate costs, counted or measured before any training, and what it may cost."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation
from functools import lru_cache
from statistics import median
from typing import Any, Self

import torch

from fewlabel.backbones.backbone import Backbone
from fewlabel.backbones.cost import count_flops, count_parameters
from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.registry import create
from fewlabel.backbones.scale import Scale
from fewlabel.errors import UserError

__all__ = ["Budget", "Cost", "Model", "count"]

LATENCY_SECONDS = 0.5
"""How long a latency is measured for, at least `LATENCY_REPEATS` passes."""
LATENCY_REPEATS = 10


@dataclass(frozen=True)
class Model:
    """The network that a search starts from, at scale 1."""

    name: str
    image_size: int
    """Side of the square image in pixels, before scaling."""
    in_chans: int = 3
    options: Mapping[str, Any] = field(default_factory=dict)
    """The backbone's own, as `fewlabel.backbones.create` takes them."""

    def create(self, scale: Scale) -> Backbone:
        """The network at `scale`, with fresh weights from torch's global random state.

        Raises:
            UserError: the family can't take that scale.
        """
        return create(self.name, image_size=self.image_size, in_chans=self.in_chans, scale=scale, **self.options)


@dataclass(frozen=True)
class Cost:
    """The cost of one image's forward pass."""

    parameters: int
    """Trainable numbers."""
    flops: int
    """Operations, a multiplication and an addition being two (`fewlabel.backbones.cost.count_flops`)."""
    image_size: int
    """Side of the square image in pixels, scaled."""
    latency: float | None = None
    """Seconds, the median; None: not measured."""

    def ratio(self, base: "Cost") -> float:
        """How many times the operations of `base`."""
        return self.flops / base.flops

    def same_network(self, other: "Cost") -> bool:
        """Whether both stem from the same network at the same image size, as rounding makes of close multipliers."""
        return replace(self, latency=None) == replace(other, latency=None)

    def of(self, name: str) -> float:
        """The cost that --against names flops, params or latency.

        Raises:
            ValueError: the latency was not measured.
        """
        value = {"flops": self.flops, "params": self.parameters, "latency": self.latency}[name]
        if value is None:
            raise ValueError("The latency was not measured.")
        return value

    def as_json(self) -> dict[str, Any]:
        """Names to numbers; `from_json` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The cost that `as_json` wrote."""
        return cls(**values)


def count(model: Model, scale: Scale, *, latency_on: torch.device | None = None) -> Cost:
    """The cost of `model` at `scale`, counted on the meta device: no weights are made.

    Args:
        model: the network at scale 1.
        scale: its multipliers.
        latency_on: measure the latency there too, in float32: the median of single images' passes.

    Raises:
        UserError: the family can't take that scale.
    """
    cost = _counted(model.name, model.image_size, model.in_chans, json.dumps(dict(model.options)), scale)
    return cost if latency_on is None else replace(cost, latency=_latency(model, scale, latency_on))


@lru_cache(maxsize=4096)
def _counted(name: str, image_size: int, in_chans: int, options: str, scale: Scale) -> Cost:
    with without_weights():
        backbone = Model(name, image_size, in_chans, json.loads(options)).create(scale)
    return Cost(count_parameters(backbone), count_flops(backbone), backbone.image_size)


@torch.inference_mode()
def _latency(model: Model, scale: Scale, device: torch.device) -> float:
    # What a search trains next must not depend on whether latencies were measured.
    with torch.random.fork_rng():
        backbone = model.create(scale).to(device).eval()
        image = torch.randn(1, backbone.in_chans, backbone.image_size, backbone.image_size).to(device)
    backbone.arrange()
    seconds: list[float] = []
    for _ in range(2):
        _timed(backbone, image)
    while len(seconds) < LATENCY_REPEATS or sum(seconds) < LATENCY_SECONDS:
        seconds.append(_timed(backbone, image))
    return median(seconds)


def _timed(backbone: Backbone, image: torch.Tensor) -> float:
    started = time.perf_counter()
    backbone(image)
    if image.device.type != "cpu":
        torch.accelerator.synchronize(image.device)
    return time.perf_counter() - started


@dataclass(frozen=True)
class Budget:
    """The most that a candidate may cost; None: any."""

    flops: float | None = None
    """Operations of one image's forward pass."""
    parameters: float | None = None
    latency: float | None = None
    """Seconds of one image's forward pass."""

    @classmethod
    def parse(
        cls, base: Cost, *, flops: str | None = None, parameters: str | None = None, latency: str | None = None
    ) -> Self:
        """The budget from texts as typed: `2x` is twice `base`, else a number with or without its unit.

        Args:
            base: the cost at scale 1; with its latency, if one is given in multiples of it.
            flops: such as 2x, 3e9, 600M or 1.5G.
            parameters: such as 2x, 4e6 or 5M.
            latency: such as 2x, 10ms or 0.01s.

        Raises:
            UserError: a text of another form, or no positive number.
        """
        return cls(
            flops=_limit("--budget-flops", flops, base.flops, _SIZES),
            parameters=_limit("--budget-params", parameters, base.parameters, _SIZES),
            latency=_limit("--budget-latency", latency, base.latency, _TIMES),
        )

    def excess(self, cost: Cost) -> dict[str, float]:
        """By how much of each limit `cost` exceeds it: 0.5 is half as much again, 0 or less keeps it.

        Raises:
            ValueError: a latency is limited, and that of `cost` was not measured.
        """
        exceeded = {}
        for name, limit in asdict(self).items():
            if limit is not None:
                value = getattr(cost, name)
                if value is None:
                    raise ValueError(f"The {name} is limited but was not measured.")
                exceeded[name] = value / limit - 1
        return exceeded

    def allows(self, cost: Cost) -> bool:
        """Whether `cost` keeps every limit."""
        return all(excess <= 0 for excess in self.excess(cost).values())

    def check_smallest(self, smallest: Cost) -> None:
        """Refuse a budget that the smallest candidate exceeds, before anything is trained.

        Raises:
            UserError: it names the limit and what the smallest takes.
        """
        for name, excess in self.excess(smallest).items():
            if excess > 0:
                flag = {"flops": "--budget-flops", "parameters": "--budget-params", "latency": "--budget-latency"}[name]
                # Rounded up, so that what is advised is enough; the budget down, so that it is seen to be less.
                shown = _described(name, getattr(smallest, name), ROUND_CEILING)
                given = _described(name, getattr(self, name), ROUND_FLOOR)
                raise UserError(
                    f"{flag} is {given}, less than the smallest candidate takes: "
                    f"{shown}. Give at least {shown}, or start from a smaller backbone, image size or range."
                )


_SIZES = {
    unit: Decimal(size)
    for unit, size in [("", "1"), ("k", "1e3"), ("m", "1e6"), ("g", "1e9"), ("b", "1e9"), ("t", "1e12")]
}
_TIMES = {unit: Decimal(size) for unit, size in [("s", "1"), ("ms", "1e-3"), ("us", "1e-6")]}


def _limit(flag: str, text: str | None, base: float | None, units: Mapping[str, Decimal]) -> float | None:
    if text is None:
        return None
    typed = text.strip().lower()
    unit = typed.lstrip("0123456789.+-")
    # What looks like the exponent's letter belongs to the number.
    if unit.startswith("e"):
        unit = unit[1:].lstrip("0123456789+-")
    # In tenths and not in halves: 1.001k must not come out below 1001.
    try:
        number = Decimal(typed.removesuffix(unit) if unit else typed)
    except InvalidOperation:
        number = Decimal(0)
    factor = units.get(unit) if unit != "x" or base is None else Decimal(base)
    if factor is None or not 0 < float(number) < float("inf"):
        forms = "2x, 10ms or 0.01s" if units is _TIMES else "2x, 3e9, 600M or 1.5G"
        raise UserError(f"{flag} is {text!r}: write a positive number such as {forms}; 2x is twice the base's cost.")
    return float(number * factor)


def _described(name: str, value: float, rounding: str) -> str:
    exact = Decimal(value)
    if name == "latency":
        return f"{(1000 * exact).quantize(Decimal('0.01'), rounding)}ms"
    for letter in "GMk":
        size = _SIZES[letter.lower()]
        if exact >= size:
            return f"{(exact / size).quantize(Decimal('0.001'), rounding)}{letter}"
    return f"{exact.quantize(Decimal(1), rounding)}"
