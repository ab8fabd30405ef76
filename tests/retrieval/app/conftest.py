"""A page that is served by a process of its own."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fewlabel.retrieval import Index
from fewlabel.tracking.run import Run

WATCH = """
import sys

def write_down(event, arguments):
    if event == "socket.connect":
        with open({path!r}, "a") as file:
            print(arguments[1], file=file)

sys.addaudithook(write_down)
open({path!r}, "w").close()
"""
"""Python runs a module of this name at its start: here it writes down every address that the server turns to."""

HOSTILE = "odd {{value}} ${1} <b>.png"


@dataclass
class Served:
    """A `fewlabel app` that runs."""

    address: str
    photos: Path
    index: Path
    temporary: Path
    hostile: str = HOSTILE
    """Name of one of the images."""

    def get(self, path, method="GET", body=None, headers=None):
        """A request with `path` as it is; no client tidies it up."""
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=60)
        connection.putrequest(method, path, skip_host=bool(headers and "host" in headers))
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, content

    def ask(self, component, event, data, picked=None, session="one"):
        """What the page's script does when something is chosen; the last answer of the server."""
        config = json.load(urllib.request.urlopen(f"{self.address}config", timeout=60))
        place = next(part["id"] for part in config["components"] if part["props"].get("elem_id") == component)
        number = next(step["id"] for step in config["dependencies"] if [place, event] in step["targets"])
        body = {"fn_index": number, "data": data, "event_data": picked, "session_hash": session, "trigger_id": place}
        status, content = self.get(
            "/gradio_api/queue/join", "POST", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        assert status == 200, content
        with urllib.request.urlopen(
            f"{self.address}gradio_api/queue/data?session_hash={session}", timeout=120
        ) as lines:
            for line in lines:
                answer = json.loads(line.removeprefix(b"data: ")) if line.startswith(b"data: ") else {}
                if answer.get("msg") == "process_completed":
                    return answer
        raise AssertionError("the answer never came")


@pytest.fixture(scope="package")
def served(tmp_path_factory, encoder, draw, read):
    """One page for all tests; at their end it must have asked no other machine, stop quietly, and leave nothing."""
    root = tmp_path_factory.mktemp("served")
    photos = root / "photos"
    for split, count in (("train", 12), ("test", 4)):
        for label, first in (("across", 0), ("up", 50)):
            for number in range(count):
                draw(photos / split / label / f"{number}.png", first + number + 100 * (split == "test"))
    draw(photos / "train/up" / HOSTILE, 999)
    (root / "secret.png").write_bytes((photos / "train/up/0.png").read_bytes() + b"never to be served")
    index = Index.build(root / "index", encoder, read(photos)).directory
    with Run.create(
        "pretrain",
        {"backbone": "vit"},
        out=root / "runs" / "first",
        slug="",
        source={"name": "photos", "data": str(photos), "fingerprint": "0"},
        project="test",
    ) as run:
        for step in (1, 2, 3):
            run.log(step, {"loss": 3.0 / step})
        script = "<script>document.body.innerHTML = 'script ran'; top.postMessage('out', '*')</script>"
        (run.directory / "report.html").write_text(f"<p>what was found</p>{script}")
        run.finish({"accuracy": 0.5})
    watching = root / "watching"
    watching.mkdir()
    (watching / "sitecustomize.py").write_text(WATCH.format(path=str(root / "connections")))
    temporary = root / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "fewlabel", "app", "--index", index, "--port", "0", "--runs", root / "runs"]
    process = subprocess.Popen(
        list(map(str, command)),
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(watching)},
        stderr=subprocess.PIPE,
        text=True,
    )
    said: list[str] = []
    ready = threading.Event()

    def listen():
        for line in process.stderr:
            said.append(line)
            if "Ctrl-C" in line:
                ready.set()
        ready.set()

    listening = threading.Thread(target=listen)
    listening.start()
    ready.wait(timeout=240)
    try:
        address = re.search(r"http://\S+/", "".join(said))
        if address is None:
            pytest.fail(f"the page did not start: {said}")
        yield Served(address[0], photos, index, temporary)
        assert (root / "connections").read_text() == "", "the server has asked another machine"
        before = len(said)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        listening.join()
        assert "".join(said[before:]).strip() == ""
        assert list(temporary.glob("fewlabel-app-*")) == []
    finally:
        process.kill()
        process.wait()
        listening.join()
        process.stderr.close()
