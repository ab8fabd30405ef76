"""Workers killed at random instants lose no training and do none twice."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from quick_search import quick_search

from fewlabel.search.claims import claim


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("storage", "trials", "kills"), [("database", 30, 8), ("file", 12, 3)])
def test_two_workers_killed_again_and_again_lose_no_trial(storage, trials, kills, request, tmp_path):
    storage_url = request.getfixturevalue(storage)
    options = {"trials": trials, "confirm": 1, "against": ["flops"], "pruner": "halving"}
    script = Path(__file__).with_name("killed_workers.py")
    done = subprocess.run(
        [sys.executable, script, storage_url, tmp_path, str(kills), "7", json.dumps(options)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) == kills
    assert not list(tmp_path.glob("twice-*")), "a slot was trained by two workers at once"
    studies, stages, rules = quick_search(storage_url, **options)
    settled = Counter(
        trial.user_attrs["slot"]
        for trial in studies.proxy.trials
        if trial.state.name == "COMPLETE" or trial.user_attrs.get("outcome") == "stopped early"
    )
    assert settled == Counter(["base", *(f"trial/{number}" for number in range(1, trials))])
    assert [trial.state.name for trial in studies.full.trials if trial.state.name != "FAIL"] == ["COMPLETE"] * 2
    assert {trial.state.name for trial in studies.proxy.trials} <= {"COMPLETE", "PRUNED", "FAIL"}
    # What was killed in the middle of a training shows, and its candidate was tried again, not another.
    died = [trial for trial in studies.proxy.trials if trial.state.name == "FAIL"]
    assert died
    for trial in died:
        assert "outcome" not in trial.user_attrs
        later = next(
            one
            for one in studies.proxy.trials[trial.number + 1 :]
            if one.user_attrs["slot"] == trial.user_attrs["slot"] and one.params
        )
        if trial.params.keys() == later.params.keys():
            assert later.params == trial.params
    assert claim(studies, stages, rules, tmp_path / "workers" / "0") is None
