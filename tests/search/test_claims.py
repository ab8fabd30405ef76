"""Who trains what: nothing twice, nothing lost, and every end of a training has its consequence."""

import json
import shutil
import signal
from dataclasses import dataclass, field

import psycopg
import pytest
from quick_search import QuickTrainer, quick_search, quick_worker
from sqlalchemy import text

from fewlabel.errors import UserError
from fewlabel.search.claims import BUSY, claim, conclude
from fewlabel.search.worker import Stopped
from fewlabel.tracking.lock import DirectoryLock


@pytest.fixture(autouse=True)
def search_goes_on(tmp_path):
    """The lock that a search holds on its run while its workers work."""
    lock = DirectoryLock(tmp_path)
    yield
    lock.release()


def work(url, directory, trainer=None, index=0, **options):
    worker = quick_worker(url, directory, index, trainer or QuickTrainer(directory), **options)
    assert worker.work() == 0
    return worker.studies


def settled(study):
    """Slots and what they tried and came to, in the order of their numbers, without what was broken off."""
    return [
        (trial.user_attrs["slot"], trial.user_attrs["candidate"], trial.values, trial.user_attrs["outcome"])
        for trial in study.trials
        if trial.state.name != "FAIL"
    ]


@dataclass
class BrokenTrainer(QuickTrainer):
    """Raises `errors[slot]`, an error for each time that the slot is tried."""

    errors: dict = field(default_factory=dict)

    def train(self, candidate, log, report, *, full, checkpoint):
        left = self.errors.get(log.record["config"]["slot"])
        if left and not full:
            raise left.pop(0)
        return super().train(candidate, log, report, full=full, checkpoint=checkpoint)


def test_the_same_seed_gives_the_same_trials_also_after_stops(tmp_path, monkeypatch):
    # So that the sampler soon goes by what it has seen.
    monkeypatch.setattr("fewlabel.search.sampling.STARTUP_TRIALS", 3)
    options = {"trials": 8, "against": ["flops"], "pruner": "halving", "budget": 3e6, "confirm": 0}
    stops = {"base": [KeyboardInterrupt()], "trial/3": [Stopped("stopped")] * 2, "trial/6": [KeyboardInterrupt()]}
    found = {}
    for name, seed in (("one", 0), ("stopped", 0), ("other", 1)):
        directory = tmp_path / name
        directory.mkdir()
        lock = DirectoryLock(directory)
        url = f"sqlite:///{directory / 'study.db'}"
        trainer = BrokenTrainer(directory, errors=stops if name == "stopped" else {})
        status, sittings = signal.SIGINT, 0
        while status:
            worker = quick_worker(url, directory, 0, trainer, seed=seed, **options)
            status, sittings = worker.work(), sittings + 1
        lock.release()
        assert sittings == (5 if name == "stopped" else 1)
        found[name] = settled(worker.studies.proxy)
        assert len(worker.studies.proxy.trials) == len(found[name]) + (4 if name == "stopped" else 0)
    assert found["one"] == found["stopped"] != found["other"]
    outcomes = {outcome.partition(":")[0] for *_, outcome in found["one"]}
    assert outcomes >= {"trained", "stopped early"}


def test_what_a_dead_worker_left_is_taken_over_with_its_candidate(file, tmp_path):
    studies, stages, rules = quick_search(file)
    places = [tmp_path / "workers" / name for name in "ab"]
    for place in places:
        place.mkdir(parents=True)
    locks = [DirectoryLock(place) for place in places]
    base = claim(studies, stages, rules, places[0])
    first = claim(studies, stages, rules, places[1])
    assert (base.slot.key, first.slot.key) == ("base", "trial/1")
    locks[1].release()
    again = claim(studies, stages, rules, tmp_path / "workers" / "c")
    assert again.slot.key == "trial/1"
    assert again.candidate == first.candidate
    assert again.before.number == first.trial.number
    assert [trial.state.name for trial in studies.proxy.trials] == ["RUNNING", "FAIL", "RUNNING"]
    # The base's worker lives, and its trial is nobody else's.
    assert claim(studies, stages, rules, tmp_path / "workers" / "d").slot.key == "trial/2"
    locks[0].release()


def test_a_worker_on_another_machine_is_given_up_by_its_heartbeat(storage_url, tmp_path):
    studies, stages, rules = quick_search(storage_url, stale_after=40)
    place = tmp_path / "workers" / "here"
    first = claim(studies, stages, rules, place)
    first.trial.set_user_attr("worker", {"host": "elsewhere", "directory": str(tmp_path)})
    assert claim(studies, stages, rules, place).slot.key == "trial/1"
    with studies.storage.engine.begin() as connection:
        ago = "2001-01-01 00:00:00"
        connection.execute(
            text("UPDATE trial_heartbeats SET heartbeat = :ago WHERE trial_id = :trial"),
            {"ago": ago, "trial": first.trial._trial_id},
        )
    assert claim(studies, stages, rules, tmp_path / "workers" / "other").slot.key == "base"
    # Its worker was only slow: what it found comes too late, and harms nothing.
    from optuna.exceptions import UpdateFinishedTrialError

    with pytest.raises(UpdateFinishedTrialError):
        conclude(studies.proxy, first.trial, "trained", rules)


def test_what_died_between_wanting_and_taking_a_trial_is_taken_next(file, tmp_path):
    studies, stages, rules = quick_search(file)
    claim(studies, stages, rules, tmp_path / "a")
    studies.proxy.enqueue_trial({}, user_attrs={"slot": "trial/5", "stage": 1})
    studies.proxy._storage.create_new_trial(studies.proxy._study_id)
    taken = claim(studies, stages, rules, tmp_path / "b")
    assert taken.slot.key == "trial/5"
    assert [trial.state.name for trial in studies.proxy.trials] == ["RUNNING", "RUNNING", "FAIL"]


def test_nothing_to_do_while_others_have_what_is_left(file, tmp_path):
    studies, stages, rules = quick_search(file, trials=2)
    places = [tmp_path / "workers" / name for name in "ab"]
    for place in places:
        place.mkdir(parents=True)
    locks = [DirectoryLock(place) for place in places]
    for place in places:
        assert claim(studies, stages, rules, place) != BUSY
    assert claim(studies, stages, rules, tmp_path / "c") == BUSY
    for lock in locks:
        lock.release()


def test_what_is_over_budget_is_refused_untrained_and_the_sampler_told(file, tmp_path):
    studies = work(file, tmp_path, trials=2, budget=0.05e6)
    base, *rejected = studies.proxy.trials
    # The base is there to compare with, whatever it costs.
    assert (base.state.name, base.constraints["flops"]) == ("COMPLETE", pytest.approx(19))
    assert len(rejected) == 20
    for trial in rejected:
        assert trial.state.name == "PRUNED"
        assert trial.user_attrs["outcome"].startswith("rejected: ")
        assert max(trial.constraints.values()) > 0
        assert "run" not in trial.user_attrs
    assert {"over the budget of flops" in trial.user_attrs["outcome"] for trial in rejected} >= {True}
    assert any("no depth below 0.55" in trial.user_attrs["outcome"] for trial in rejected)


def test_divergence_and_too_little_memory_are_recorded_and_the_study_goes_on(file, tmp_path):
    trainer = QuickTrainer(tmp_path, diverges_above=1.05, grows_above=1.2)
    studies = work(file, tmp_path, trainer, trials=8, confirm=0)
    ends = {"diverged": 0, "out of memory": 0, "trained": 0}
    for trial in studies.proxy.trials:
        outcome = trial.user_attrs["outcome"].partition(":")[0]
        if outcome == "rejected":
            continue
        ends[outcome] += 1
        assert trial.state.name == ("COMPLETE" if outcome == "trained" else "PRUNED")
        assert (trial.constraints.get("trainable", 0) > 0) == (outcome != "trained")
        record = json.loads((tmp_path / "trials" / f"{trial.number:04d}" / "status.json").read_text())
        assert record["status"] == ("finished" if outcome == "trained" else "failed")
    assert all(ends.values())
    assert sum(ends.values()) == 8


def test_a_base_that_cannot_be_trained_ends_the_search(file, tmp_path):
    worker = quick_worker(file, tmp_path, 0, BrokenTrainer(tmp_path, errors={"base": [MemoryError()]}))
    with pytest.raises(UserError, match=r"base could not be trained \(out of memory\)"):
        worker.work()


def test_an_error_ends_the_worker_and_three_the_slot(file, tmp_path):
    trainer = BrokenTrainer(tmp_path, errors={"trial/1": [RuntimeError(f"broken {time}") for time in range(3)]})
    for time in range(3):
        with pytest.raises(RuntimeError, match=f"broken {time}"):
            quick_worker(file, tmp_path, 0, trainer, trials=3, confirm=0).work()
    studies = work(file, tmp_path, trainer, trials=3, confirm=0)
    failed = [trial.user_attrs["outcome"] for trial in studies.proxy.trials if trial.state.name == "FAIL"]
    assert failed == [f"failed: RuntimeError: broken {time}" for time in range(3)]
    assert {slot for slot, *_, outcome in settled(studies.proxy) if outcome == "trained"} == {"base", "trial/2"}


def test_checkpoints_go_with_the_training_and_stay_with_what_was_stopped(file, tmp_path):
    class Keeping(BrokenTrainer):
        def train(self, candidate, log, report, *, full, checkpoint):
            (log.directory / "checkpoints").mkdir(exist_ok=True)
            return super().train(candidate, log, report, full=full, checkpoint=checkpoint)

    trainer = Keeping(tmp_path, errors={"base": [Stopped("stopped")]})
    options = {"trials": 2, "confirm": 0}
    assert quick_worker(file, tmp_path, 0, trainer, **options).work() == signal.SIGINT
    assert [path.parent.name for path in tmp_path.glob("trials/*/checkpoints")] == ["0000"]
    studies = work(file, tmp_path, trainer, **options)
    # The second trial of the slot goes on in the directory of the first.
    base = studies.proxy.trials[1]
    assert base.user_attrs["run"] == str(tmp_path / "trials" / "0000")
    assert not list(tmp_path.glob("trials/*/checkpoints"))


def test_a_lost_directory_is_begun_anew(file, tmp_path):
    trainer = BrokenTrainer(tmp_path, errors={"base": [Stopped("stopped")]})
    assert quick_worker(file, tmp_path, 0, trainer, trials=2, confirm=0).work() == signal.SIGINT
    shutil.rmtree(tmp_path / "trials")
    studies = work(file, tmp_path, trainer, trials=2, confirm=0)
    assert studies.proxy.trials[1].user_attrs["run"] == str(tmp_path / "trials" / "0001")


def test_a_worker_ends_when_its_search_is_gone(file, tmp_path):
    """Killed -9, a search can tell its workers nothing: its run is no longer locked."""
    directory = tmp_path / "left alone"
    directory.mkdir()
    trainer = QuickTrainer(directory, seconds=3.0)
    worker = quick_worker(file, directory, 0, trainer, trials=3, confirm=0)
    assert worker.work() == signal.SIGTERM
    assert [trial.user_attrs["outcome"] for trial in worker.studies.proxy.trials] == ["stopped"]


def test_a_storage_that_goes_away_is_told_of(database, tmp_path):
    name = database.rpartition("/")[2]

    class Cutting(QuickTrainer):
        def train(self, candidate, log, report, *, full, checkpoint):
            with psycopg.connect(database.replace(name, "postgres"), autocommit=True) as connection:
                connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            return super().train(candidate, log, report, full=full, checkpoint=checkpoint)

    with pytest.raises(UserError, match=rf"{name} was lost: .*not currently accepting connections.*--resume"):
        quick_worker(database, tmp_path, 0, Cutting(tmp_path)).work()
