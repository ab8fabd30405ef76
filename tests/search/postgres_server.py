"""A real PostgreSQL server on the loopback, for studies that several workers share."""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

PASSWORD = "it's {not} a secret/%"


def _programs():
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found = shutil.which("initdb")
    return installed[-1] if installed else Path(found).parent if found else None


@pytest.fixture(scope="session")
def postgres():
    """URL of a server of its own that asks for a password, without a database's name behind it."""
    from sqlalchemy import URL

    programs = _programs()
    if programs is None:
        message = "needs PostgreSQL's server: initdb is neither in the path nor in /usr/lib/postgresql"
        if os.environ.get("FEWLABEL_POSTGRES_REQUIRED"):
            pytest.fail(message)
        pytest.skip(message)
    # It refuses to run as root.
    user = None
    if os.geteuid() == 0:
        names = [entry.pw_name for entry in pwd.getpwall()]
        user = "postgres" if "postgres" in names else "nobody"
    # Pytest's own folders are closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="fewlabel-postgres-"))
    (folder / "password").write_text(PASSWORD)
    if user:
        for path in (folder, folder / "password"):
            shutil.chown(path, user)
    options = {"user": user, "cwd": folder, "env": {"LC_ALL": "C", "PATH": os.environ["PATH"]}, "text": True}
    made = subprocess.run(
        [programs / "initdb", "-D", "data", "-U", "fewlabel", "-A", "scram-sha-256", "--pwfile=password", "-N"],
        capture_output=True,
        **options,
    )
    assert made.returncode == 0, made.stderr
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [programs / "postgres", "-D", "data", "-k", folder, "-h", "127.0.0.1", "-p", str(port), "-c", "fsync=off"],
            stdout=log,
            stderr=log,
            **options,
        )
    url = URL.create("postgresql", "fewlabel", PASSWORD, "127.0.0.1", port)
    try:
        _wait_for(url, server, folder / "log")
        yield url
    finally:
        # At once, whoever is still connected.
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def _connected(url):
    import psycopg

    return psycopg.connect(
        host=url.host, port=url.port, user=url.username, password=url.password, dbname="postgres", autocommit=True
    )


def _wait_for(url, server, log):
    import psycopg

    until = time.monotonic() + 60
    while True:
        try:
            _connected(url).close()
            return
        except psycopg.OperationalError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)


@pytest.fixture
def database(postgres, monkeypatch):
    """URL of a new, empty database; its password is in PGPASSWORD, as the command leaves it there."""
    name = f"studies_{secrets.token_hex(4)}"
    with _connected(postgres) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return f"postgresql://{postgres.username}@{postgres.host}:{postgres.port}/{name}"
