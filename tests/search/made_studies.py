"""Studies as a search leaves them in its storage, made by hand: no network is trained."""

import math
import random
import warnings

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from fewlabel.search.candidate import Candidate

RANGES = {name: FloatDistribution(0.25, 4.0) for name in ("depth", "width", "resolution")}
BASE_COST = {"parameters": 1_000_000, "flops": 50_000_000, "image_size": 32, "latency": None}


def interval(mean, half=0.01):
    return {"mean": mean, "low": mean - half, "high": mean + half}


def add(
    study,
    slot,
    candidate,
    value=None,
    *,
    state=TrialState.COMPLETE,
    ratio=None,
    phi=None,
    excess=0.0,
    run=None,
    **attrs,
):
    """Put a trial into `study`; `value` is an interval."""
    formula = candidate.depth * candidate.width**2 * candidate.resolution**2
    ratio = round(formula * 1.03, 4) if ratio is None else ratio
    values = None
    if state is TrialState.COMPLETE:
        values = [value["mean"], *[ratio * BASE_COST["flops"]] * (len(study.directions) - 1)]
    trial = create_trial(
        state=state,
        values=values,
        params={name: getattr(candidate, name) for name in RANGES},
        distributions=RANGES,
        constraints={"flops": excess},
        user_attrs={
            "slot": slot,
            "candidate": candidate.as_json(),
            "phi": phi,
            "cost": {**BASE_COST, "flops": int(ratio * BASE_COST["flops"])},
            "cost_ratio": ratio,
            "value": value,
            "run": None if run is None else str(run.directory.absolute()),
            "wandb_id": None if run is None else run.wandb_id,
            "seconds": 12.5,
            **attrs,
        },
    )
    study.add_trial(trial)
    return study.get_trials(deepcopy=False)[-1].number


def new_study(storage, name="vit on digits", objectives=("accuracy",), **identity):
    study = optuna.create_study(
        storage=storage, study_name=name, directions=["maximize", *["minimize"] * (len(objectives) - 1)]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(objectives))
    study.set_user_attr(
        "fewlabel",
        {
            "format": 1,
            "version": "0.1.0",
            "identity": {"mode": "compound", "objective": "probe", "seed": 0, "source": {"name": "digits"}, **identity},
        },
    )
    return study


def compound_study(storage, *, name="vit on digits", half=0.01, best="resolution", run_of=lambda number: None):
    """Base, each dimension alone, a grid of three, phi 2 and 3 of which the last is over the budget."""
    study = new_study(storage, name)
    gains = {"depth": 0.01, "width": 0.02, "resolution": 0.03} | {best: 0.06}
    add(study, "base", Candidate(), interval(0.6, half), ratio=1.0, run=run_of(0))
    add(study, "depth", Candidate(depth=2.0), interval(0.6 + gains["depth"], half), run=run_of(1))
    add(study, "width", Candidate(width=1.4), interval(0.6 + gains["width"], half), run=run_of(2))
    add(study, "resolution", Candidate(resolution=1.4), interval(0.6 + gains["resolution"], half), run=run_of(3))
    chosen = Candidate(1.2, 1.1, 1.15)
    for number, (scale, value) in enumerate(
        [((1.1, 1.1, 1.2), 0.67), ((chosen.depth, chosen.width, chosen.resolution), 0.7), ((1.3, 1.15, 1.05), 0.65)], 4
    ):
        candidate = Candidate(*scale)
        key = "grid/" + "-".join(f"{side:.2f}" for side in scale)
        add(study, key, candidate, interval(value, half), run=run_of(number))
    study.set_user_attr("chosen", chosen.as_json())
    for phi in (2, 3):
        candidate = Candidate(chosen.depth**phi, chosen.width**phi, chosen.resolution**phi)
        over = (
            {"state": TrialState.PRUNED, "excess": 0.5, "outcome": "rejected: over the budget of 4x"}
            if phi == 3
            else {}
        )
        value = None if over else interval(0.66 + 0.04 * phi, half)
        add(study, f"phi/{phi}", candidate, value, phi=phi, **over)
    return study


def free_study(storage, *, name="free", trials=24, noise=0.004, seed=0):
    """Accuracy against FLOPs, where resolution buys most and depth nothing; some rejected, some stopped early."""
    study = new_study(storage, name, ("accuracy", "flops"), mode="free")
    generator = random.Random(seed)
    add(study, "base", Candidate(), interval(0.6), ratio=1.0)
    for number in range(trials):
        candidate = Candidate(*(round(2 ** generator.uniform(-1, 1), 3) for _ in RANGES))
        value = 0.6 + 0.01 * math.log2(candidate.width) + 0.05 * math.log2(candidate.resolution)
        outcome: dict = {}
        if candidate.depth * candidate.width**2 * candidate.resolution**2 > 6:
            outcome = {"state": TrialState.PRUNED, "excess": 0.4, "outcome": "rejected: over the budget of 6x"}
        elif number % 6 == 5:
            outcome = {"state": TrialState.PRUNED}
        add(
            study,
            f"trial/{number}",
            candidate,
            None if outcome else interval(value + generator.gauss(0, noise)),
            **outcome,
        )
    return study
