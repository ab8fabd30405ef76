"""`fewlabel runs` and `fewlabel views`."""

import json

import numpy as np
import pytest
from PIL import Image

from fewlabel.__main__ import main
from fewlabel.data.presets import PRESETS


@pytest.fixture(scope="module")
def runs(pretrain, tmp_path_factory):
    """A folder with a finished run and one that never finished."""
    root = tmp_path_factory.mktemp("runs")
    for name in ("done", "stopped"):
        assert pretrain("--max-steps", 1, "--out", root / name) == 0
    (root / "stopped" / "result.json").unlink()
    return root


def test_runs_as_a_table(runs, capsys):
    assert main(["runs", "--root", str(runs)]) == 0
    table = capsys.readouterr().out
    (done,) = (line for line in table.splitlines() if str(runs / "done") in line)
    assert all(part in done for part in ("pretrain", "finished", "digits", "timm/test_resnet", "knn_accuracy 0."))
    (stopped,) = (line for line in table.splitlines() if str(runs / "stopped") in line)
    assert "interrupted" in stopped


def test_runs_as_json(runs, capsys):
    assert main(["runs", "--root", str(runs), "--json"]) == 0
    done, stopped = json.loads(capsys.readouterr().out)
    result = json.loads((runs / "done" / "result.json").read_text())
    assert done["figure"] == {"name": "knn_accuracy", **_renamed(result["metrics"]["knn_accuracy"])}
    assert done["parents"]["source"].startswith("digits@")
    assert (stopped["status"], stopped["figure"]) == ("interrupted", None)


def _renamed(interval):
    return {"value": interval["mean"], "low": interval["low"], "high": interval["high"]}


def test_no_runs_yet(tmp_path, capsys):
    assert main(["runs", "--root", str(tmp_path / "none")]) == 0
    assert "fewlabel pretrain" in capsys.readouterr().err


def test_views_are_drawn_and_never_over_a_file(tmp_path, capfd, refused):
    picture = tmp_path / "my views.png"
    assert main(["views", "--out", str(picture), "--json"]) == 0
    shown = capfd.readouterr()
    result = json.loads(shown.out)
    assert (result["picture"], result["views"], result["image_size"]) == (str(picture), "digits", 12)
    assert PRESETS["digits"].why[:40] in " ".join(shown.err.split())
    with Image.open(picture) as image:
        pixels = np.asarray(image)
    assert pixels.std() > 10
    before = picture.read_bytes()
    assert "exists" in refused("views", "--out", picture)
    assert picture.read_bytes() == before


def test_the_views_of_a_seed_are_the_same(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert main(["views", "--out", str(tmp_path / f"{name}.png"), "--seed", str(seed)]) == 0
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c
