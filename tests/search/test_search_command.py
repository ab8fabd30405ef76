"""`fewlabel search` on PostgreSQL: several workers, several runs that join one study."""

import json

import optuna

from fewlabel.__main__ import main
from fewlabel.search.storage import open_storage

TINY = ("--backbone", "cct_2_3x2", "--image-size", 16, "--batch-size", 16)
OPTIONS = (*TINY, "--mode", "free", "--max-steps", 20, "--trials", 5, "--confirm", 1, "--labels", 0.2)


def searched(storage, out, *arguments):
    return main([str(argument) for argument in ("search", *arguments, "--storage", storage, "--out", out)])


def test_runs_that_join_a_study_share_its_trials_and_its_winner(database, tmp_path, capfd):
    first, second = tmp_path / "first", tmp_path / "second"
    assert searched(database, first, *OPTIONS, "--workers", 2) == 0
    said = capfd.readouterr().err
    assert "2 x 1 processes on cpu" in said
    assert "accuracy of a linear probe after SimCLR pretraining, on validation images, against flops" in said
    storage = open_storage(database, stale_after=60)
    study = optuna.load_study(study_name="cct_2_3x2-digits", storage=storage)
    trials = len(study.trials)
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert sorted(trial.user_attrs["slot"] for trial in done) == [
        "base",
        *(f"trial/{number}" for number in range(1, 5)),
    ]
    assert len({tuple(trial.params.values()) for trial in done}) == 5
    assert all(trial.values[1] == trial.user_attrs["cost"]["flops"] for trial in done)
    places = {trial.user_attrs["worker"]["directory"] for trial in study.trials}
    assert places == {str(first / "workers" / str(index)) for index in range(2)}
    assert study.user_attrs["test"].keys() >= {"winner", "base", "difference"}
    # Another machine comes too late to train, and has report and winner all the same.
    assert searched(database, second, *OPTIONS) == 0
    assert len(study.get_trials()) == trials
    winners = [json.loads((run / "winner.json").read_text()) for run in (first, second)]
    assert winners[0] == winners[1]
    results = [json.loads((run / "result.json").read_text()) for run in (first, second)]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert results[0]["verdict"] == results[1]["verdict"]
    assert (second / "report.html").exists()


def test_what_a_family_cannot_scale_stays_as_it_is(file, tmp_path, capfd):
    only = ("--backbone", "timm/test_resnet", "--image-size", 32, "--batch-size", 16, "--max-steps", 2)
    held = (*only, "--mode", "free", "--resolution-range", 1, 1)
    assert searched(file, tmp_path / "run", *held) == 2
    said = " ".join(capfd.readouterr().err.split())
    assert "The depth stays as it is: timm/test_resnet can't be made deeper or wider" in said
    assert "Nothing is left to search for timm/test_resnet" in said
