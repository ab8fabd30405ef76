"""`fewlabel index ...`: from a folder to an index, and on from there."""

import json
import shutil
import subprocess
import sys

import pytest

from fewlabel.__main__ import main
from fewlabel.retrieval import Index
from fewlabel.tracking.catalogue import list_runs, newest_index


@pytest.fixture
def built(tmp_path, trained, striped, capfd):
    """The run that made an index of the striped images."""
    run = tmp_path / "index run"
    assert main(["index", "build", "--encoder", str(trained), "--data", str(striped), "--out", str(run)]) == 0
    capfd.readouterr()
    return run


def said(capfd, *arguments, status=0):
    """The JSON that a command prints."""
    assert main([*map(str, arguments), "--json"]) == status
    return json.loads(capfd.readouterr().out)


def test_a_run_makes_an_index_of_all_splits(tmp_path, trained, striped, capfd):
    run = tmp_path / "run"
    assert main(["index", "build", "--encoder", str(trained), "--data", str(striped), "--out", str(run), "--json"]) == 0
    out, told = capfd.readouterr()
    result = json.loads(out)
    assert result == json.loads((run / "result.json").read_text())
    assert result["index"] == str(run / "index")
    assert {name: result["metrics"][name] for name in ("recall", "images", "vectors")} == {
        "recall": 1.0,
        "images": 77,
        "vectors": 76,
    }
    assert result["plan"]["factory"] == "Flat"
    encoder = json.loads((run / "config.json").read_text())["parents"]["encoder"]
    assert encoder.endswith(f"@{Index.open(run).encoder.hash[:16]}")
    for word in ("40 train", "12 val", "25 test", "every search is exact", str(run / "index"), "fewlabel query IMAGE"):
        assert word in told


def test_the_newest_index_is_the_default(built, tmp_path, monkeypatch, capfd, refused):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "There is no finished run with an index" in refused("index", "info")
    (tmp_path / "here" / "runs").mkdir()
    shutil.copytree(built, tmp_path / "here" / "runs" / "index-1")
    assert str(newest_index(tmp_path / "here" / "runs")).endswith("runs/index-1/index")
    assert said(capfd, "index", "info")["directory"] == "runs/index-1/index"
    assert [(record.command, record.status) for record in list_runs(tmp_path / "here" / "runs")] == [
        ("index", "finished")
    ]


def test_info_says_what_an_index_holds_without_torch(built, capfd):
    facts = said(capfd, "index", "info", "--index", built)
    assert (facts["images"], facts["vectors"], facts["plan"]["width"], facts["generation"]) == (77, 76, 96, 1)
    assert facts["splits"] == {"train": 40, "val": 12, "test": 25}
    assert facts["labels"] == {"up": 39, "across": 38}
    assert main(["index", "info", "--index", str(built)]) == 0
    told = capfd.readouterr().out
    for word in ("77, of which 76 are different", "Flat, cosine, width 96", "up 39", "timm/test_resnet at 32 px"):
        assert word in told
    code = f"""
import sys
from fewlabel.__main__ import main
main(["index", "info", "--index", {str(built)!r}])
assert not {{"torch", "faiss"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_new_folder_is_added_and_taken_out_again(built, write_images, tmp_path, capfd):
    photos = write_images(tmp_path / "new photos [2]", 3)
    (photos / "bad.png").write_text("no image")
    arguments = ("index", "add", "--index", built, "--data", photos, "--max-bad-share", 0.5)
    added = said(capfd, *arguments)
    assert {name: added[name] for name in ("new", "known", "images", "vectors")} == {
        "new": 3,
        "known": 0,
        "images": 80,
        "vectors": 79,
    }
    assert [image["id"] for image in added["bad_images"]] == ["bad.png"]
    assert said(capfd, *arguments)["known"] == 3
    removed = said(capfd, "index", "remove", photos / "000.png", "001.png", "--index", built)
    assert (removed["removed"], removed["images"]) == ({"images": 2, "vectors": 2}, 78)
    assert main(["index", "remove", "002.png", "--index", str(built)]) == 0
    told = capfd.readouterr().err
    assert "Removed: 1 images; 1 of them stand nowhere else" in told
    assert "77, of which 76 are different" in told
    assert [entry.id for entry in Index.open(built).entries if entry.id.endswith(("000.png", "bad.png"))] == []


def test_a_single_image_may_be_added(built, write_images, tmp_path, capfd):
    assert said(capfd, "index", "add", "--index", built, "--data", write_images(tmp_path / "one", 1))["new"] == 1


def test_a_check_tells_damage_from_images_that_moved(built, striped, capfd):
    found = said(capfd, "index", "check", "--index", built, "--sample", 5)
    assert (found["sound"], found["problems"], found["embedded"], found["images"]) == (True, [], 5, 77)
    shutil.rmtree(striped / "test")
    assert main(["index", "check", "--index", str(built)]) == 0
    told = capfd.readouterr().err
    for word in ("moved: 25 of 77 image files", "test/across/00.png", "and 15 more", "is sound"):
        assert word in told
    vectors = next((built / "index").glob("vectors-*"))
    vectors.write_bytes(vectors.read_bytes()[:-1])
    found = said(capfd, "index", "check", "--index", built, status=1)
    assert not found["sound"]
    assert vectors.name in found["problems"][0]["what"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("info", "--index", "nowhere"), "nowhere does not exist"),
        (("add", "--index", "nowhere", "--data", "digits"), "nowhere does not exist"),
        (("add", "--index", "nowhere"), "Which images?"),
        (("remove",), "Which images?"),
        (("remove", "a.png", "--index", "nowhere"), "nowhere does not exist"),
        (("check", "--index", "nowhere"), "nowhere does not exist"),
        (("check", "--sample", "0"), "--sample is 0"),
        (("build", "--recall", "1.5"), "--recall is 1.5"),
        (("build", "--memory", "0"), "--memory is 0"),
        (("build", "--encoder", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_done_is_said(refused, tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    assert reason in refused("index", *arguments)


def test_a_factory_that_faiss_does_not_know_is_refused(refused, trained, striped, tmp_path):
    arguments = ("--encoder", trained, "--data", striped, "--out", tmp_path / "run", "--factory", "Fast")
    assert "Fast" in refused("index", "build", *arguments)
    assert not (tmp_path / "run" / "index" / "index.json").exists()


def test_an_index_that_has_outgrown_its_layout_is_told_so(built, capfd):
    path = built / "index" / "index.json"
    facts = json.loads(path.read_text())
    facts["plan"] |= {"factory": "IVF4,Flat", "asked": "auto", "count": 5}
    path.write_text(json.dumps(facts))
    assert main(["index", "info", "--index", str(built)]) == 0
    assert "build it again: IVF4,Flat was chosen for 5 images" in " ".join(capfd.readouterr().out.split())
