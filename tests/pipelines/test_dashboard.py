"""The start of the dashboard; what it serves is tested in tests/search."""

import socket

import optuna
import pytest

from fewlabel.__main__ import main
from fewlabel.search import dashboard
from fewlabel.search.storage import sqlite_url
from fewlabel.tracking.run import Run

served = []


@pytest.fixture
def start(monkeypatch, capfd):
    """Start the command with a server that ends at once; what it said, and what was served."""
    monkeypatch.setattr(dashboard, "serve", lambda app, listening: served.append(app))

    def run(*arguments):
        served.clear()
        assert main(["dashboard", "--port", "0", *map(str, arguments)]) == 0
        return " ".join(capfd.readouterr().err.split()), served[0]

    return run


@pytest.fixture
def search(tmp_path, monkeypatch):
    """Make the run of a search, with its study in a storage."""
    monkeypatch.chdir(tmp_path)

    def make(name="a study", storage=None, begun=True):
        run = Run.create("search", {"study": {"storage": storage}}, slug=name, group=name, project="test")
        run.close("interrupted")
        if begun:
            optuna.create_study(storage=storage or sqlite_url(run.directory / "study.db"), study_name=name)
        return run.directory

    return make


def names_in(app):
    return optuna.get_all_study_names(app._storage)


def test_it_shows_the_newest_search_to_this_machine(start, search, monkeypatch):
    search("first")
    search("second")
    said, app = start()
    assert names_in(app) == ["second"]
    assert (app._study, app._local) == ("second", True)
    assert "Page: http://127.0.0.1:" in said
    assert "/report" in said
    assert "Stop: Ctrl-C" in said
    assert "no password" not in said


def test_it_finds_the_storage_of_a_search(start, search, tmp_path):
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    directory = search("elsewhere", storage)
    search("newest")
    assert names_in(start("--study", directory)[1]) == ["elsewhere"]
    _, app = start("--storage", storage)
    assert names_in(app) == ["elsewhere"]
    assert app._study is None


def test_an_address_that_others_reach_is_warned_of(start, search):
    search()
    said, app = start("--host", "0.0.0.0")
    assert "Anyone who can reach 0.0.0.0 can see the study: there is no password" in said
    assert not app._local


def test_a_taken_port_is_said(start, search):
    search()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said, _ = start("--port", port)
    assert f"Port {port} is taken: this is at " in said


def test_it_opens_the_browser_if_asked(start, search, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    search()
    start()
    assert opened == []
    said, _ = start("--open")
    assert f"Page: {opened[0]}" in said


def test_what_is_missing_is_said(refused, search, tmp_path):
    assert "No search in runs/ yet: begin one with `fewlabel search`" in refused("dashboard")
    assert "is no run: it has no config.json" in refused("dashboard", "--study", tmp_path)
    unbegun = search(begun=False)
    assert "study.db does not exist" in refused("dashboard", "--study", unbegun)
    missing = tmp_path / "missing.db"
    assert "missing.db does not exist" in refused("dashboard", "--storage", f"sqlite:///{missing}")
    assert not missing.exists()
    assert "give one of them" in refused("dashboard", "--study", unbegun, "--storage", "sqlite:///x.db")
    with Run.create("pretrain", {}, project="test") as run:
        run.finish({})
    assert "is no run of `fewlabel search`" in refused("dashboard", "--study", run.directory)
