"""Workers on one machine are started, started anew when they die, and stopped."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from fewlabel.errors import UserError
from fewlabel.search.workers import environment_of, supervise

LEADER = """
import sys, json
from pathlib import Path
from fewlabel.search.workers import supervise
command, logs = json.loads(sys.argv[1]), Path(sys.argv[2])
sys.exit(supervise(command, [{"N": "0"}, {"N": "1"}], logs, progress=lambda: 0))
"""


def worker(body):
    return [sys.executable, "-c", "import os, signal, sys, time\nfrom pathlib import Path\n" + body]


def test_a_worker_that_is_killed_starts_anew(tmp_path):
    body = f"""
been = Path({str(tmp_path)!r}) / f"been-{{os.environ['N']}}"
again = been.exists()
been.touch()
print("again" if again else "first", flush=True)
if not again and os.environ["N"] == "1":
    os.kill(os.getpid(), signal.SIGKILL)
"""
    looks = []
    status = supervise(worker(body), [{"N": "0"}, {"N": "1"}], tmp_path, progress=lambda: len(looks.append(0) or looks))
    assert status == 0
    said = [(tmp_path / str(index) / "log.txt").read_text().split() for index in range(2)]
    assert said == [["first"], ["first", "again"]]
    assert len(looks) >= 2


def test_one_that_reports_a_mistake_ends_the_search_with_what_it_said(tmp_path):
    body = "print('Error: the disk is full', file=sys.stderr)\nsys.exit(2)"
    with pytest.raises(UserError, match=r"Worker 0 ended.*\n.*the disk is full"):
        supervise(worker(body), [{}], tmp_path, progress=lambda: 0)


def test_those_that_die_again_and_again_end_it_too(tmp_path):
    with pytest.raises(UserError, match="RuntimeError: no reason"):
        supervise(worker("raise RuntimeError('no reason')"), [{}], tmp_path, progress=lambda: 0)
    assert (tmp_path / "0" / "log.txt").read_text().count("no reason\n") > 2


def test_a_signal_reaches_all_and_ends_it(tmp_path):
    body = f"""
def end(number, frame):
    (Path({str(tmp_path)!r}) / f"ended-{{os.environ['N']}}").touch()
    sys.exit(130)
signal.signal(signal.SIGINT, end)
(Path({str(tmp_path)!r}) / f"up-{{os.environ['N']}}").touch()
time.sleep(60)
"""
    leader = subprocess.Popen(
        [sys.executable, "-c", LEADER, json.dumps(worker(body)), tmp_path], stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while len(list(tmp_path.glob("up-*"))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    leader.send_signal(signal.SIGINT)
    _, said = leader.communicate(timeout=30)
    assert leader.returncode == signal.SIGINT
    assert said.count("Stopping") == 1
    assert len(list(tmp_path.glob("ended-*"))) == 2


@pytest.mark.parametrize(
    ("index", "workers", "processes", "devices", "expected"),
    [
        (0, 1, 1, [], {"OMP_NUM_THREADS": "8"}),
        (1, 2, 2, [], {"OMP_NUM_THREADS": "2"}),
        (0, 16, 1, [], {"OMP_NUM_THREADS": "1"}),
        (1, 2, 1, ["0", "1"], {"OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": "1"}),
        (1, 2, 2, ["0", "1", "2", "3"], {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "2,3"}),
        (2, 3, 1, ["4", "7"], {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "4"}),
    ],
)
def test_workers_divide_the_machine(index, workers, processes, devices, expected, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert environment_of(index, workers, processes, cores=8, devices=devices) == expected


def test_threads_that_the_user_chose_stay(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert environment_of(0, 2, 1, cores=os.cpu_count() or 1, devices=[])["OMP_NUM_THREADS"] == "3"
