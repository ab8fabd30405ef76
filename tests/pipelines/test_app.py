"""The start of the page; the page itself is tested in tests/retrieval/app."""

import socket

import pytest

from fewlabel.__main__ import main
from fewlabel.retrieval.app import collection, page, server

served = []


@pytest.fixture
def start(monkeypatch, tmp_path, capfd):
    """Start the command with a server that ends at once; what it said, and what was served."""
    (tmp_path / "index.json").write_text("{}")
    monkeypatch.setattr(collection, "Collection", lambda directory: directory)
    monkeypatch.setattr(page, "build_app", lambda index, runs: (index, runs))
    monkeypatch.setattr(server, "serve", lambda app, listening, local: served.append((app, local)))

    def run(*arguments):
        served.clear()
        assert main(["app", "--index", str(tmp_path), *arguments]) == 0
        return " ".join(capfd.readouterr().err.split()), served[0]

    return run


def test_it_serves_this_machine_and_says_where_and_how_to_stop(start, tmp_path):
    said, (app, local) = start("--port", "0", "--runs", str(tmp_path / "runs"))
    assert "Page: http://127.0.0.1:" in said
    assert "Stop: Ctrl-C" in said
    assert "Anyone who can reach" not in said
    assert (app, local) == ((tmp_path, tmp_path / "runs"), True)


def test_an_address_that_others_reach_is_warned_of(start):
    said, (_, local) = start("--port", "0", "--host", "0.0.0.0")
    assert "Anyone who can reach 0.0.0.0 can search and see the images: there is no password" in said
    assert "Page: http://127.0.0.1:" in said
    assert not local


def test_a_taken_port_is_said(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said, _ = start("--port", str(port))
    assert f"Port {port} is taken: this is at " in said
    assert f"http://127.0.0.1:{port}/" not in said


def test_it_opens_the_browser_if_asked(start, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    start("--port", "0")
    assert opened == []
    said, _ = start("--port", "0", "--open")
    (address,) = opened
    assert f"Page: {address}" in said


def test_without_an_index_it_says_what_to_type(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "index build --data your/folder" in refused("app")
    assert "holds no index" in refused("app", "--index", tmp_path)
    assert "does not exist" in refused("app", "--index", tmp_path / "nowhere")
