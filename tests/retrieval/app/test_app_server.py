import os
from pathlib import Path

import pytest
from fastapi import FastAPI, Response
from fastapi.testclient import TestClient

from fewlabel.retrieval.app.server import UPLOAD_BYTES, Doors, private_surroundings


@pytest.fixture
def behind():
    """An application that answers everything with 200."""
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    def anything(path: str) -> Response:
        headers = {"content-security-policy": "sandbox"} if path.startswith("report/") else {}
        return Response("in", headers=headers)

    return app


@pytest.fixture
def local(behind):
    return TestClient(Doors(behind, local=True), base_url="http://127.0.0.1:7860")


@pytest.mark.parametrize("path", ["/", "/config", "/assets/a.js", "/thumbnail/3", "/picture/3", "/report/r"])
def test_the_page_gets_what_it_needs(local, path):
    assert local.get(path).text == "in"


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/file=/etc/passwd",
        "/gradio_api/proxy=http://example.org/",
        "/gradio_api/process_recording",
        "/gradio_api/info",
        "/gradio_api/upload",
        "/gradio_api/run/predict",
        "/gradio_api/runs",
        "/gradio_api/vibe-code",
        "/monitoring",
        "/docs",
        "/openapi.json",
        "/assetsx",
    ],
)
def test_all_other_doors_are_shut(local, path):
    assert local.get(path).status_code == 404
    assert local.post(path, content=b"{}").status_code == 404


@pytest.mark.parametrize(
    ("host", "status"), [("evil.example", 421), ("evil.example:7860", 421), ("localhost:7860", 200)]
)
def test_a_foreign_name_that_points_here_is_refused(behind, host, status):
    doors = TestClient(Doors(behind, local=True))
    assert doors.get("/", headers={"host": host}).status_code == status
    assert TestClient(Doors(behind, local=False)).get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/gradio_api/queue/join", 2**20, 200),
        ("/gradio_api/queue/join", 2**20 + 1, 413),
        ("/image", UPLOAD_BYTES, 200),
        ("/image", UPLOAD_BYTES + 1, 413),
    ],
)
def test_a_body_has_a_sane_size(local, path, size, status):
    assert local.post(path, content=bytes(size)).status_code == status


def test_a_body_without_a_stated_size_is_refused(local):
    assert local.post("/image", content=iter([b"some"])).status_code == 411


def test_every_answer_forbids_the_browser_other_machines(local):
    policy = local.get("/").headers["content-security-policy"]
    assert "http" not in policy
    assert "default-src 'none'" in policy
    assert local.get("/report/r").headers.get_list("content-security-policy") == ["sandbox"]
    assert local.get("/").headers["x-content-type-options"] == "nosniff"


def test_what_gradio_writes_lies_in_a_folder_that_goes(monkeypatch):
    monkeypatch.setenv("GRADIO_ALLOWED_PATHS", "/")
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    with private_surroundings():
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        (folder / "upload.png").write_bytes(b"image")
        assert os.environ["GRADIO_ALLOWED_PATHS"] == ""
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert not folder.exists()
    assert "GRADIO_TEMP_DIR" not in os.environ
    assert os.environ["GRADIO_ALLOWED_PATHS"] == "/"
