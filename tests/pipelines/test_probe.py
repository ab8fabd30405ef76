"""`fewlabel probe`, from an encoder on disk to its figures."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from fewlabel.__main__ import main


@pytest.fixture(scope="module")
def trained(tmp_path_factory, pretrain):
    """A run with an encoder for 8-bit grey images."""
    run = tmp_path_factory.mktemp("probed") / "run"
    assert pretrain("--max-steps", 1, "--out", run) == 0
    return run


@pytest.fixture
def striped(tmp_path):
    """Two classes, stripes up and across; one test image is a copy of a training image."""
    for split, count in (("train", 20), ("val", 6), ("test", 12)):
        for label in ("across", "up"):
            folder = tmp_path / "striped" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                seed = [len(split), len(label), number]
                pixels = np.random.default_rng(seed).integers(0, 128, (16, 16), dtype=np.uint8)
                pixels[:, ::4] += 100
                Image.fromarray(pixels if label == "up" else pixels.T).save(folder / f"{number:02d}.png")
    shutil.copy(tmp_path / "striped/train/up/00.png", tmp_path / "striped/test/up/99.png")
    return tmp_path / "striped"


def test_the_result_holds_the_curve_the_gain_and_the_leak(trained, striped, tmp_path, capsys):
    out = tmp_path / "probe"
    arguments = ["--encoder", trained, "--data", striped, "--labels", "0.2", "1.0", "--draws", "2", "--out", out]
    assert main(["probe", *map(str, arguments), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    result = json.loads((out / "result.json").read_text())
    assert printed == result
    metrics = result["metrics"]
    methods = {"probe", "knn", "probe_untrained", "knn_untrained"}
    assert {(row["method"], row["labels"], row["draws"]) for row in metrics["curve"]} == {
        (method, *amount) for method in methods for amount in ((8, 2), (40, 1))
    }
    assert [row["labels"] for row in metrics["gain"]] == [8, 40]
    assert metrics["accuracy"] == next(
        row["accuracy"] for row in metrics["curve"] if row["method"] == "probe" and row["labels"] == 40
    )
    [leak] = [leak for leak in result["leaks"] if leak["kind"] == "exact"]
    assert leak["right"] == ["test", "test/up/99.png"]
    assert len(metrics["curve_without_leaks"]) == len(metrics["curve"])
    assert set(result["parents"]) == {"encoder", "source"}


def test_the_newest_encoder_is_the_default(trained, striped, tmp_path, monkeypatch, capfd, refused):
    monkeypatch.chdir(tmp_path)
    assert "no finished run with an encoder" in refused("probe", "--data", striped)
    shutil.copytree(trained, tmp_path / "runs" / "pretrain-1")
    assert main(["probe", "--data", str(striped), "--shots", "2"]) == 0
    told = capfd.readouterr().err
    assert "runs/pretrain-1/encoder, the newest" in told
    assert "With 4 labels" in told
    [run] = (tmp_path / "runs").glob("probe-*")
    assert json.loads((run / "result.json").read_text())["metrics"]["curve"][0]["shots"] == 2


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("--labels", "0.1", "--shots", "1"), "give one of them"),
        (("--labels", "1.5"), "--labels has 1.5"),
        (("--shots", "0"), "--shots has 0"),
        (("--draws", "0"), "--draws is 0"),
        (("--penalty", "0"), "must be a number above 0"),
        (("--test-share", "0"), "no test images"),
    ],
)
def test_what_can_not_be_probed_is_refused(trained, tmp_path, refused, arguments, hint):
    assert hint in refused("probe", "--encoder", trained, "--out", tmp_path / "out", *arguments)


def test_a_source_without_labels_is_refused(trained, tmp_path, write_images, refused):
    photos = write_images(tmp_path / "photos", 12)
    assert "have no labels" in refused("probe", "--encoder", trained, "--data", photos, "--out", tmp_path / "out")
    assert "no encoder directory" in refused("probe", "--encoder", photos, "--out", tmp_path / "out2")
