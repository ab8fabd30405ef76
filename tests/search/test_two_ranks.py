"""A worker of two real processes: one talks to the study, and both train the same."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from quick_search import quick_search


def test_all_ranks_train_what_the_main_one_was_given(file, tmp_path):
    script = Path(__file__).with_name("two_ranks.py")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    group = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, script, file, tmp_path],
            env={**group, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for rank in ranks:
        _, said = rank.communicate(timeout=200)
        assert rank.returncode == 0, said[-3000:]
    told = [
        [json.loads(line) for line in (tmp_path / f"rank-{rank}.jsonl").read_text().splitlines()] for rank in range(2)
    ]
    assert told[0] == told[1]
    studies, _, _ = quick_search(file, trials=6, pruner="halving", confirm=1)
    trained = [
        (trial.user_attrs["candidate"], trial.user_attrs["run"])
        for study in (studies.proxy, studies.full)
        for trial in study.trials
        if "run" in trial.user_attrs
    ]
    assert [(one["candidate"], one["directory"]) for one in told[0]] == trained
    assert len({tuple(one["candidate"].items()) for one in told[0]}) >= 6
    # The pruner's word, too, is that of the main process.
    assert {one.get("ended") for one in told[1]} == {None, "stopped early"}
    assert {one["full"] for one in told[1]} == {False, True}
