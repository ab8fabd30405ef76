"""What the dashboard answers to requests, those of no browser included."""

import io
import json
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from made_studies import add, compound_study, interval, new_study

from fewlabel.search.candidate import Candidate
from fewlabel.search.dashboard import Dashboard
from fewlabel.search.table import FULL_LENGTH
from fewlabel.tracking.run import Run

NAME = "vit on photos/a & b"
SECRET = "never to be shown"


@pytest.fixture
def study(storage, tmp_path):
    """Trial 0 has its run here; the directory of trial 1 has another's, that of 2 is gone, that of 9 was never one."""

    def run_of(number):
        if number > 2:
            return None
        run = Run.create("trial", {"backbone": {"scale_depth": 1.25}}, out=tmp_path / "runs" / str(number), project="t")
        for step in range(3):
            run.log(step, {"loss": 3.0 - step, "once" if step else "never": 1.0})
        run.finish({})
        if number == 1:
            run.record["wandb_id"] = "other"
            run.record["secret"] = SECRET
        if number == 2:
            run.directory = tmp_path / "elsewhere"
        return run

    study = compound_study(storage, name=NAME, run_of=run_of)
    (tmp_path / "secret.txt").write_text(SECRET)
    add(study, "trial/evil", Candidate(), interval(0.5), run=type("Run", (), {"directory": tmp_path, "wandb_id": "x"}))
    (tmp_path / "config.json").write_text(json.dumps({"wandb_id": "y", "config": {"secret": SECRET}}))
    return study


@pytest.fixture
def ask(storage, study):
    """The status, headers and body of an answer."""

    def asked(path, method="GET", local=True, body=b"", chosen=NAME, **environ):
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path.encode().decode("latin-1"), **environ}
        environ |= {"QUERY_STRING": "", "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        environ.setdefault("HTTP_HOST", "127.0.0.1:8080")
        environ.setdefault("SCRIPT_NAME", "")
        environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")
        setup_testing_defaults(environ)
        answer = []
        result = validator(Dashboard(storage, study=chosen, local=local))(
            environ, lambda status, headers, *_: answer.extend((int(status[:3]), dict(headers)))
        )
        content = b"".join(result)
        result.close()
        return (*answer, content.decode())

    return asked


def test_the_report_is_that_of_the_storage_now(ask, study):
    status, headers, _ = ask("/report")
    assert (status, headers["Location"]) == (302, "/report/vit%20on%20photos%2Fa%20%26%20b")
    status, headers, page = ask(f"/report/{NAME}")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "resolution bought the most" in page
    assert 'href="/trials/vit%20on%20photos%2Fa%20%26%20b/3"' in page
    assert "trial/new" not in page
    add(study, "trial/new", Candidate(depth=1.5), interval(0.9))
    assert "trial/new" in ask(f"/report/{NAME}")[2]


def test_of_several_studies_all_are_listed_unless_one_was_asked_for(ask, storage):
    new_study(storage, "another")
    new_study(storage, "another" + FULL_LENGTH)
    assert ask("/report")[0] == 302
    status, _, page = ask("/report", chosen=None)
    assert status == 200
    assert page.count('href="/report/') == 2


def test_the_page_of_a_trial_shows_its_run(ask):
    status, _, page = ask(f"/trials/{NAME}/0")
    assert status == 200
    assert "scale_depth" in page
    assert "1.25" in page
    assert "loss from 3 at step 0 to 1 at step 2" in page
    assert "never from" not in page
    assert "0.600 (0.590 to 0.610)" in page
    assert 'href="/dashboard/studies/' in page


@pytest.mark.parametrize("number", [1, 2, 9])
def test_only_the_trials_own_run_is_read(ask, study, tmp_path, number):
    status, _, page = ask(f"/trials/{NAME}/{number}")
    assert status == 200
    assert SECRET not in page
    assert "was trained elsewhere, or was moved" in page


@pytest.mark.parametrize(
    "path",
    [
        "/report/absent",
        "/report/../../etc/passwd",
        "/report//etc/passwd",
        "/trials/",
        "/trials/0",
        "/trials/absent/0",
        f"/trials/{NAME}",
        f"/trials/{NAME}/",
        f"/trials/{NAME}/99",
        f"/trials/{NAME}/-1",
        f"/trials/{NAME}/00",
        f"/trials/{NAME}/²",
        f"/trials/{NAME}/0/config.json",
        f"/trials/{NAME}/0/../../secret.txt",
        f"/trials/{NAME}/../{NAME}/0",
        "/trials/\x00/0",
        "/static/../__init__.py",
        "/static/../../../../../../../../etc/passwd",
        "/artifacts/1/1",
        "/secret.txt",
    ],
)
def test_nothing_else_is_there(ask, path):
    status, _, page = ask(path)
    assert status in (400, 403, 404)
    assert SECRET not in page


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "192.168.0.7", "", "127.0.0.1.evil.example"])
def test_a_foreign_name_for_this_machine_is_refused(ask, host):
    assert ask(f"/report/{NAME}", HTTP_HOST=host)[0] == 421
    assert ask("/api/studies", HTTP_HOST=host)[0] == 421
    assert ask("/api/studies", local=False, HTTP_HOST=host)[0] == 200


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "[::1]:8080"])
def test_names_of_this_machine_are_served(ask, host):
    assert ask("/api/studies", HTTP_HOST=host)[0] == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/api/studies/0"),
        ("POST", "/api/studies"),
        ("POST", "/api/studies/0/rename"),
        ("POST", "/api/trials/0/tell"),
        ("POST", "/api/trials/0/user-attrs"),
        ("PUT", "/api/studies/0/preference_feedback_component"),
        ("PUT", "/api/studies/0/note/../rename"),
        ("OPTIONS", "/api/studies"),
    ],
)
def test_a_study_is_only_looked_at(ask, storage, method, path):
    before = storage.get_all_studies()
    body = json.dumps({"study_name": "renamed", "directions": ["minimize"], "state": "fail"}).encode()
    status, _, said = ask(path, method, body=body, CONTENT_TYPE="application/json")
    assert (status, said) == (403, "Only notes can be changed here.")
    assert [one.study_name for one in storage.get_all_studies()] == [one.study_name for one in before]


def test_notes_can_be_written(ask, study, storage):
    body = json.dumps({"version": 1, "body": "looked at it"}).encode()
    path = f"/api/studies/{study._study_id}/note"
    assert ask(path, "PUT", body=body, CONTENT_TYPE="application/json")[0] == 204
    assert "looked at it" in ask(f"/api/studies/{study._study_id}")[2]
    assert ask(path, "PUT", body=b" " * (2**20 + 1), CONTENT_TYPE="application/json")[0] == 413


def test_every_answer_forbids_guessing_its_kind_and_framing_it(ask):
    for path in ("/dashboard", "/api/studies", f"/report/{NAME}", "/absent"):
        headers = ask(path)[1]
        assert (headers["X-Content-Type-Options"], headers["X-Frame-Options"]) == ("nosniff", "DENY")
