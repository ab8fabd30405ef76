"""Where a page listens, and who reaches it there."""

import socket

import pytest

from fewlabel import listening
from fewlabel.errors import UserError
from fewlabel.listening import address_of, is_local, listen


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.4", False),
        ("example.org", False),
        ("", False),
    ],
)
def test_what_is_reached_from_this_machine_alone(host, expected):
    assert is_local(host) is expected


def test_a_taken_port_gives_the_next_free_one(monkeypatch):
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with listen("127.0.0.1", port) as second:
            assert port < second.getsockname()[1] < port + 20
        monkeypatch.setattr(listening, "_TRIED_PORTS", 1)
        with pytest.raises(UserError, match=rf"Can't listen at 127.0.0.1, ports {port} to {port}: .*--port"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 70000, "--port is 70000"),
        ("127.0.0.1", -1, "--port is -1"),
        ("no such host", 0, "--host no such host is no address"),
        ("192.0.2.1", 0, "Can't listen at 192.0.2.1"),
    ],
)
def test_where_nothing_can_listen_is_said(host, port, message):
    with pytest.raises(UserError, match=message):
        listen(host, port)


def test_the_address_is_one_to_type_into_a_browser():
    with socket.create_server(("0.0.0.0", 0)) as everywhere:
        assert address_of(everywhere) == f"http://127.0.0.1:{everywhere.getsockname()[1]}/"
