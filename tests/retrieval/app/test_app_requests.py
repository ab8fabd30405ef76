"""What is served to whoever sends what no browser would."""

import http.client
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fewlabel.retrieval import Index
from fewlabel.retrieval.app.server import UPLOAD_BYTES


def climbs(target):
    """Ways to ask for a file by its path."""
    up = "../" * 12 + target.lstrip("/")
    coded = up.replace("../", "%2e%2e%2f")
    roots = ("gradio_api/file=", "file=", "file/", "gradio_api/file/", "static/", "assets/", "report/", "thumbnail/")
    roots += ("picture/", "svelte/", "gradio_api/proxy=file://", "gradio_api/custom_component/1/client/component/")
    return [f"/{root}{path}" for root in roots for path in (target, up, coded, coded.replace("%2f", "%252f"))]


def test_no_file_is_served_whatever_is_asked(served):
    secret = served.photos.parent / "secret.png"
    index = served.index / "index.json"
    image = served.photos / "train/up/0.png"
    for target in (secret, index, image, Path("/etc/passwd")):
        told = target.read_bytes()
        for path in climbs(str(target)):
            status, content = served.get(path)
            assert status >= 400, path
            assert told not in content, path


def test_only_pictures_of_the_index_are_given(served):
    key = Index.open(served.index).entries[0].key
    status, content = served.get(f"/thumbnail/{key}")
    assert (status, content[:4]) == (200, b"\x89PNG")
    for wrong in ("-1", "999999999", "9" * 30, "x", "", f"{key}.png", "%00"):
        for kind in ("thumbnail", "picture"):
            status, content = served.get(f"/{kind}/{wrong}")
            assert 400 <= status < 500, wrong
            assert content[:4] != b"\x89PNG"
    assert served.get(f"/thumbnail/{key}", headers={"host": "evil.example"})[0] == 421


def test_an_image_too_large_is_refused_before_it_is_read(served):
    connection = http.client.HTTPConnection(urlsplit(served.address).netloc, timeout=60)
    connection.putrequest("POST", "/image")
    connection.putheader("content-length", str(UPLOAD_BYTES + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_many_at_once_are_queued_and_all_answered(served):
    keys = [entry.key for entry in Index.open(served.index).entries]

    def one(visitor):
        wanted = keys[visitor % len(keys)]
        return served.ask("results", "pick", [10, [], []], {"key": str(wanted)}, f"visitor{visitor}")

    with ThreadPoolExecutor(24) as crowd:
        answers = list(crowd.map(one, range(48)))
    for visitor, answer in enumerate(answers):
        assert answer["success"], answer
        query, status, results, _ = answer["output"]["data"]
        assert f"picture/{keys[visitor % len(keys)]}?" in query
        assert "10 nearest of 33 images" in status
        assert results.count("<li>") == 10


@pytest.mark.parametrize("picked", [None, {}, {"key": "-1"}, {"key": "../../etc/passwd"}, {"key": "9" * 40}, [1], "x"])
def test_a_choice_that_is_none_is_told_and_nothing_breaks(served, picked):
    answer = served.ask("results", "pick", [10, [], []], picked, f"odd{picked!r}"[:20].encode().hex())
    assert answer["success"]
    assert "choose" in str(answer["output"])


def test_a_file_of_this_machine_is_not_taken_for_one_that_was_sent(served):
    for path in (served.photos / "train/up/1.png", served.photos.parent / "secret.png"):
        file = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
        for component, event, picked in (("results", "pick", {"key": "0"}), ("drop", "sent", {"word": str(path)})):
            answer = served.ask(component, event, [file, [], []], picked, f"file {path.name} {event}".encode().hex())
            assert "<figure" not in str(answer)
        assert path.exists()
    assert [path for path in served.temporary.rglob("*") if path.is_file()] == []


def test_what_was_sent_is_taken_once_by_who_sent_it(served):
    image = (served.photos / "train/up/1.png").read_bytes()
    status, word = served.get("/image", "POST", image, {"x-name": "..%2Fa%20%3Cb%3E.png"})
    assert status == 200
    for attempt, expected in enumerate(("a &lt;b&gt;.png", "did not arrive")):
        answer = served.ask("drop", "sent", [5, [], []], {"word": word.decode(), "status": 200}, f"sent{attempt}")
        assert expected in str(answer["output"])
    answer = served.ask("drop", "sent", [5, [], []], {"status": 413}, "large")
    assert "larger than 50 MB" in str(answer["output"])
