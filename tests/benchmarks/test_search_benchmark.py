from datetime import datetime, timedelta
from math import sqrt
from typing import Any

import optuna
import pytest

from benchmarks import bench_search, search_page, search_saving
from benchmarks.search_studies import BATCH_SIZE

NOON = datetime(2026, 1, 1, 12)


def trial(
    number: int, values: dict[int, float], *, stopped: bool = False, flops: int = 10**9
) -> optuna.trial.FrozenTrial:
    made = optuna.trial.create_trial(
        state=optuna.trial.TrialState.PRUNED if stopped else optuna.trial.TrialState.COMPLETE,
        value=None if stopped else values[max(values)],
        intermediate_values=values,
        user_attrs={"slot": f"trial/{number}", "cost": {"flops": flops}},
    )
    made.number = number
    made.datetime_start, made.datetime_complete = NOON, NOON + timedelta(seconds=len(values))
    return made


def test_what_was_spent_counts_all_that_was_trained_up_to_the_target() -> None:
    trials = [
        trial(0, {1: 0.2, 2: 0.3, 9: 0.4}),
        trial(1, {}, stopped=True),
        trial(2, {1: 0.9}, stopped=True),
        trial(3, {1: 0.3, 2: 0.4, 9: 0.7}, flops=2 * 10**9),
        trial(4, {1: 0.3, 2: 0.5, 9: 0.8}),
    ]
    step = 3 * 10**9 * BATCH_SIZE / 1e15
    # A trial that was stopped has no value to reach the target with.
    assert search_saving.spent(trials, 0.6) == {"petaflop": pytest.approx(step * (9 + 1 + 18)), "seconds": 7.0}
    assert search_saving.spent(trials)["petaflop"] == pytest.approx(step * (9 + 1 + 18 + 9))


def test_replaying_equal_curves_stops_nothing_and_losers_stop_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_saving, "ORDERS", 20)
    equal = [trial(number, {1: 0.5, 3: 0.5, 9: 0.5}) for number in range(4)]
    assert search_saving.replayed(equal, 0) == {
        "orders": 20,
        "share": 1.0,
        "to_target": 1.0,
        "best_found": 1.0,
        "shortfall": 0.0,
    }
    ranked = [trial(number, dict.fromkeys((1, 3, 9), number / 10)) for number in range(6)]
    found = search_saving.replayed(ranked, 0)
    assert found["best_found"] == 1.0
    assert 1 / 6 < found["share"] < 0.8
    assert found["share"] < found["to_target"] < 1


def test_what_the_way_tells_of_the_end() -> None:
    ends = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    starts = (0.1, 0.1, 0.1, 0.4, 0.3, 0.2)
    curves = [{1: start, 2: end / 2, 9: end} for start, end in zip(starts, ends, strict=True)]
    trials = [trial(place, curve) for place, curve in enumerate(curves)]
    early, middle, last = search_saving.foretold([*trials, trial(6, {1: 0.9}, stopped=True)])
    assert early == {
        "share": pytest.approx(1 / 9),
        "all": pytest.approx(11.5 / sqrt(15.5 * 17.5)),
        "better_half": pytest.approx(-1),
    }
    assert middle == {"share": pytest.approx(2 / 9), "all": pytest.approx(1), "better_half": pytest.approx(1)}
    assert last == {"share": 1, "all": pytest.approx(1), "better_half": pytest.approx(1)}


def test_the_page_has_every_figure_and_the_papers_coefficients() -> None:
    value = {"mean": 0.4, "low": 0.38, "high": 0.42}
    found: dict[str, Any] = {
        "settings": {
            "coefficients": {"images": 3000, "validation": 2000, "threads": 1},
            "pruning": {"trials": 16, "small_images": 1500, "small_validation": 4000, "small_epochs": 9, "threads": 2},
            "workers": {"shared_trials": 10},
        },
        "coefficients": [
            {
                "network": "A net",
                "seed": 3,
                "epochs": 4,
                "chosen": {"depth": 1.3, "width": 1.05, "resolution": 1.1},
                "verdict": ["Depth bought the most."],
                "trainings": [
                    {"slot": slot, "scale": {"depth": 1.3, "width": 1.0, "resolution": 1.0}, "accuracy": accuracy}
                    | {"image_size": 40, "ratio": 2.04, "seconds": 61.2}
                    for slot, accuracy in (("depth", value), ("grid/1.30-1.00-1.00", value), ("width", None))
                ],
            }
        ],
        "pruning": [
            {
                "seed": seed,
                "target": 0.41,
                "foretold": [
                    {"share": 2 / 9, "all": 0.7, "better_half": 0.25},
                    {"share": 1.0, "all": 1.0, "better_half": 1.0},
                ],
                "replayed": {"orders": 1000, "share": 0.4, "to_target": 0.45, "best_found": 0.97, "shortfall": 0.001},
                **{
                    name: {
                        "best": 0.42,
                        "trained": 15,
                        "completed": 6,
                        "total": {"petaflop": spent, "seconds": 400.0},
                        "to_target": {"petaflop": spent / 2, "seconds": 200.0},
                        "again": [0.4, 0.41],
                    }
                    for name, spent in (("none", 4.0), ("halving", halving))
                },
            }
            for seed, halving in ((3, 1.0), (5, 2.5))
        ],
        "workers": {"one": 200.0, "two": 110.0, "one_thread": 300.0},
    }
    record = {"machine": {"cpu": "A CPU", "cores": 2}, "date": "2026-01-01", "load_average_before": 0.1, "found": found}
    page = search_page.page(record)
    assert "| found | 1.30, 1.05, 1.10 |" in page
    assert "| the paper's, on ImageNet | 1.20, 1.10, 1.15 |" in page
    assert "| depth alone | 1.30, 1.00, 1.00 | 40 px | 2.04x | 0.400 (0.380 to 0.420) | 61 |" in page
    assert "| together (the best of them) | 1.30" in page
    assert "width alone" not in page
    assert "All seeds together: 44 % of the compute to the target, 44 % in all." in page
    assert "Seed 3: 25 % of the compute" in page
    assert "0.405 (0.400 to 0.410) with halving" in page
    assert "| 22 % | 0.70 | 0.25 | 0.70 | 0.25 |\n" in page
    assert "| 2 | half | 110 | 55 % |" in page
    first, second, time = bench_search.rows(found)
    assert (first["ratio"], first["met"]) == (pytest.approx(4.0), True)
    assert (second["ratio"], second["met"]) == (pytest.approx(1.6), False)
    assert (time["ratio"], time["met"]) == (pytest.approx(200 / 110), True)
    assert bench_search.rows({**found, "workers": {"one": 200.0, "two": 130.0, "one_thread": 1.0}})[-1]["met"] is False


def test_studies_of_other_seeds_stay_while_the_settings_are_the_same() -> None:
    def measured(seeds: list[int], trials: int, value: str) -> dict[str, Any]:
        studies = [{"seed": seed, "value": value} for seed in seeds]
        return {"pruning": studies, "settings": {"pruning": {"trials": trials, "seeds": seeds}}}

    known = {"workers": {"one": 1.0}, **measured([4, 7], 24, "before")}
    found = bench_search.together(known, measured([5, 7], 24, "now"))
    assert [(one["seed"], one["value"]) for one in found["pruning"]] == [(4, "before"), (5, "now"), (7, "now")]
    assert found["settings"]["pruning"] == {"trials": 24, "seeds": [4, 5, 7]}
    assert found["workers"] == known["workers"]
    assert [one["seed"] for one in bench_search.together(known, measured([5], 12, "now"))["pruning"]] == [5]
