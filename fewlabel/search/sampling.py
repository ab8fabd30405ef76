"""How free mode chooses candidates: the space, and a sampler that repeats itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fewlabel.errors import UserError
from fewlabel.search.candidate import Candidate
from fewlabel.search.config import SearchConfig
from fewlabel.search.cost import Cost, Model, count

if TYPE_CHECKING:
    import optuna
    import torch

__all__ = ["Range", "make_sampler", "smallest", "space_of", "suggest"]

TUNED = {"lr": (0.1, 10.0), "temperature": (0.5, 5.0), "weight_decay": (0.01, 10.0), "view_strength": (0.25, 2.0)}
"""The least and the greatest of each setting, as multiples of what training would take by itself."""

STARTUP_TRIALS = 10
"""Candidates drawn evenly before the sampler goes by their values."""


@dataclass(frozen=True)
class Range:
    """Numbers from `least` to `greatest`, evenly over their logarithm."""

    least: float
    greatest: float


Space = Mapping[str, Range]
"""Fields of `Candidate` to what they may be."""


def space_of(config: SearchConfig, defaults: Mapping[str, float]) -> Space:
    """What free mode chooses from.

    Args:
        config: the ranges of the scale, and what is tuned beside it.
        defaults: of each tuned setting what training would take by itself.

    Raises:
        UserError: a setting whose default is 0 is tuned: nothing says how large it may be.
    """
    space = {
        name: Range(*limits)
        for name, limits in (
            ("depth", config.depth_range),
            ("width", config.width_range),
            ("resolution", config.resolution_range),
        )
    }
    for name in config.tune:
        least, greatest = (factor * defaults[name] for factor in TUNED[name])
        if not least > 0:
            flag = "strength" if name == "view_strength" else name.replace("_", "-")
            raise UserError(
                f"--tune {name} tries multiples of --{flag}, which is {defaults[name]:g}: give it a value above 0."
            )
        space[name] = Range(least, greatest)
    return space


def suggest(trial: "optuna.Trial", space: Space) -> Candidate:
    """The candidate that `trial` is to try: as it was enqueued, else as its study's sampler chooses.

    Every dimension is asked for in every trial, also in one whose values are fixed: the sampler models jointly only
    what all finished trials of a study have.
    """
    chosen = {name: trial.suggest_float(name, one.least, one.greatest, log=True) for name, one in space.items()}
    return Candidate(**chosen)


def make_sampler(seed: int, number: int) -> "optuna.samplers.BaseSampler":
    """The sampler of one trial, which depends on nothing but the study's finished trials and the arguments.

    A sampler that lived on would draw other numbers after a resume than without the interruption.

    Args:
        seed: of the study.
        number: of the trial in its study.

    Returns:
        A tree-structured Parzen estimator (Bergstra et al. 2011) over all dimensions together, for one objective or
        several (Ozaki et al. 2022, JAIR 73); it keeps away from what other workers try at the
        moment and prefers candidates whose constraints (`trial.set_constraint`) hold.
    """
    import numpy as np
    from optuna.samplers import TPESampler

    state = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    return TPESampler(seed=state, multivariate=True, constant_liar=True, n_startup_trials=STARTUP_TRIALS)


def smallest(model: Model, space: Space, *, latency_on: "torch.device | None" = None) -> Cost:
    """The cost of the smallest candidate in `space` that the family can take, with its latency on a device if given.

    Raises:
        UserError: it can take none between the smallest and the largest.
    """
    refused: UserError | None = None
    for share in range(11):
        corner = Candidate(
            **{
                name: space[name].least * (space[name].greatest / space[name].least) ** (share / 10)
                for name in ("depth", "width", "resolution")
            }
        )
        try:
            return count(model, corner.scale, latency_on=latency_on)
        except UserError as error:
            refused = error
    assert refused is not None
    raise UserError(f"{model.name} takes no scale from the smallest to the largest of the ranges: {refused}")
