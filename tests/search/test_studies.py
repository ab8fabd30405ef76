"""Storages that can't be had, and studies that are not the one that was meant."""

import os
import socket
import sys

import optuna
import pytest

from fewlabel.errors import UserError
from fewlabel.search.storage import keep_password, one_at_a_time, open_storage, sqlite_url
from fewlabel.search.study import open_studies

IDENTITY = {"search": {"mode": "free", "trials": 30}, "fingerprint": "abc"}


def studies_in(url, identity=IDENTITY, name="s", create=True):
    storage = open_storage(url, stale_after=60)
    return open_studies(storage, name, metrics=["accuracy", "flops"], identity=identity, create=create)


def test_a_server_that_is_not_there():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(UserError, match=rf"127\.0\.0\.1:{port}/studies can't be reached: .*refused.*createdb"):
        open_storage(f"postgresql://me@127.0.0.1:{port}/studies", stale_after=60)


def test_a_database_or_password_that_is_not_there(database, monkeypatch):
    with pytest.raises(UserError, match=r"database \"nowhere\" does not exist"):
        open_storage(database.rpartition("/")[0] + "/nowhere", stale_after=60)
    monkeypatch.setenv("PGPASSWORD", "wrong")
    with pytest.raises(UserError, match="password authentication failed") as told:
        open_storage(database, stale_after=60)
    assert "wrong" not in str(told.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("runs/study.db", "no URL of a database"),
        ("mysql://me@here/studies", "not mysql"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:////nowhere/at/all/study.db", "unable to open database file"),
    ],
)
def test_what_is_no_storage(url, said):
    with pytest.raises(UserError, match=said):
        open_storage(url, stale_after=60)


def test_a_file_of_something_else(tmp_path):
    (tmp_path / "notes.db").write_text("these are notes\n" * 100)
    with pytest.raises(UserError, match="not a database"):
        open_storage(sqlite_url(tmp_path / "notes.db"), stale_after=60)
    assert (tmp_path / "notes.db").read_text().startswith("these are notes")


def test_a_password_is_kept_from_records_and_logs(postgres, database, monkeypatch):
    name = database.rpartition("/")[2]
    url = postgres.set(database=name).render_as_string(hide_password=False)
    monkeypatch.setattr(sys, "argv", ["fewlabel", "search", "--storage", url, f"--storage={url}"])
    monkeypatch.delenv("PGPASSWORD")
    assert keep_password(url) == database
    assert sys.argv[2:] == ["--storage", database, f"--storage={database}"]
    assert os.environ["PGPASSWORD"] == postgres.password
    assert open_storage(database, stale_after=60).engine.url.password is None
    assert keep_password(database) == database


def test_joining_makes_no_second_study(storage_url):
    first, second = studies_in(storage_url), studies_in(storage_url, create=False)
    first.proxy.enqueue_trial({"depth": 1.0})
    assert [trial.system_attrs["fixed_params"] for trial in second.proxy.trials] == [{"depth": 1.0}]
    assert second.proxy.metric_names == ["accuracy", "flops"]
    assert [direction.name for direction in second.full.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert optuna.get_all_study_names(first.storage) == ["s", "s (full length)"]


def test_a_study_of_another_space_is_refused_with_the_differences(file):
    studies_in(file)
    other = {"search": {"mode": "free", "trials": 50}, "fingerprint": "def"}
    with pytest.raises(UserError, match=r"'s' seeks something else: fingerprint is def and was abc; search\.trials is"):
        studies_in(file, other)
    assert studies_in(file, other, name="t").name == "t"


def test_a_study_of_another_version_is_refused(file, monkeypatch):
    studies_in(file)
    monkeypatch.setattr("fewlabel.search.study.__version__", "99.0")
    with pytest.raises(UserError, match=r"made by Fewlabel 0.*this is 99\.0"):
        studies_in(file)


def test_a_study_of_another_program_is_refused_and_one_left_bare_taken_over(file):
    storage = open_storage(file, stale_after=60)
    optuna.create_study(storage=storage, study_name="theirs").add_trial(optuna.create_trial(value=1.0))
    with pytest.raises(UserError, match="not made by Fewlabel"):
        studies_in(file, name="theirs")
    optuna.create_study(storage=storage, study_name="bare", directions=["maximize", "minimize"])
    studies_in(file, name="bare")
    assert studies_in(file, name="bare", create=False).proxy.user_attrs["fewlabel"]["identity"] == IDENTITY


def test_a_study_that_is_not_there_is_not_made_for_a_worker(file):
    with pytest.raises(UserError, match="no study 's'"):
        studies_in(file, create=False)


def test_one_at_a_time(storage_url):
    """A second process waits at the door: here it is a second connection, asked in a thread."""
    from threading import Thread

    storages = [open_storage(storage_url, stale_after=60) for _ in range(2)]
    order = []

    def enter():
        with one_at_a_time(storages[1], "s"):
            order.append("second")

    with one_at_a_time(storages[0], "s"):
        thread = Thread(target=enter)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
