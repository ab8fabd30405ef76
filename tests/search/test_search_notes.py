"""The notes of a study and its trials, and where their links lead."""

from made_studies import RANGES, new_study
from optuna_dashboard import get_note

from fewlabel.search.notes import write_note, write_study_note


def test_a_trials_note_leads_to_its_run_and_follows_it(storage):
    study = new_study(storage, "a/b c")
    trial = study.ask(RANGES)
    for name, value in {
        "slot": "trial/0_x",
        "candidate": {"depth": 1.5, "width": 1.0, "resolution": 1.0},
        "cost_ratio": 1.4,
        "run": "/runs/`odd`",
        "wandb_id": "abcd1234",
    }.items():
        trial.set_user_attr(name, value)
    write_note(trial)
    note = get_note(trial)
    assert "](/trials/a%2Fb%20c/0)" in note
    assert "`trial/0_x`: `depth x 1.5`, 1.40 times the base's cost" in note
    assert "\n\nrunning\n\n" in note
    assert "`/runs/'odd'`" in note
    assert "`abcd1234`" in note
    trial.set_user_attr("value", {"mean": 0.7, "low": 0.6, "high": 0.8})
    write_note(trial)
    assert "accuracy 0.700 (0.600 to 0.800)" in get_note(trial)


def test_a_trial_of_which_little_is_known_has_a_note_too(storage):
    trial = new_study(storage).ask(RANGES)
    write_note(trial)
    assert "`trial/0`" in get_note(trial)
    assert "W&B" not in get_note(trial)


def test_the_studys_note_leads_to_its_report(storage):
    study = new_study(storage, "a/b c")
    write_study_note(study)
    assert "](/report/a%2Fb%20c)" in get_note(study)
