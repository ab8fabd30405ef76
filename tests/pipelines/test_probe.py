"""`fewlabel probe`, from an encoder on disk to its figures."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from fewlabel.__main__ import main
from fewlabel.data import load
from fewlabel.data.config import SourceConfig
from fewlabel.pipelines.labelled import LEARNED_FROM_LABELS, settled_for
from fewlabel.supervised.config import FewLabelsConfig


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
    assert [(row["method"], [penalty["how"] for penalty in row["penalties"]]) for row in metrics["penalty"]] == [
        (method, hows)
        for method in ("probe", "probe_untrained")
        for hows in (["4-fold cross-validation"] * 2, ["validation"])
    ]
    assert len(metrics["curve_without_leaks"]) == len(metrics["curve"])
    assert set(result["parents"]) == {"encoder", "source"}


@pytest.fixture
def findings(tmp_path):
    """A table of two labels, stripes up and stripes across, of which an image has none, one or both; some unknown.

    A third label is on two images alone, of which the test side has one.
    """
    rows = ["path,up,across,rare,split"]
    for number in range(90):
        up, across, rare = number % 2, number // 2 % 2, int(number in (3, 78))
        pixels = np.random.default_rng(number).integers(0, 100, (16, 16), dtype=np.uint8)
        pixels[:, ::4] += 70 * up
        pixels[::4] += 70 * across
        Image.fromarray(pixels).save(tmp_path / f"{number:02d}.png")
        split = "train" if number < 50 else "val" if number < 60 else "test"
        rows.append(f"{number:02d}.png,{up},{'' if number % 7 == 0 else across},{rare},{split}")
    (tmp_path / "findings.csv").write_text("\n".join(rows))
    return ["--data", tmp_path / "findings.csv", "--label-column", "up,across,rare"]


@pytest.mark.parametrize(
    ("header", "known", "unknown"), [("label", ["a", "b"], ""), ("up,across", ["1,", "0,", ",0", ",1"], ",")]
)
def test_an_image_counts_as_labelled_where_any_label_of_it_is_known(tmp_path, header, known, unknown):
    rows = [f"path,{header}"]
    for number in range(12):
        Image.fromarray(np.full((16, 16), 20 * number, dtype=np.uint8)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{known[number % len(known)] if number < 8 else unknown}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    data = SourceConfig(data=str(tmp_path / "table.csv"), label_column=header, val_share=0, test_share=0)
    # A half of eight is two of each, a half of fewer is not. Four more have no label.
    assert settled_for(load(data), FewLabelsConfig()).labels == (0.5, 1.0)


def test_several_labels_an_image(trained, findings, tmp_path, capfd):
    out = tmp_path / "probe"
    arguments = ["--encoder", trained, *findings, "--labels", "0.3", "1.0", "--draws", "2", "--out", out]
    assert main(["probe", *map(str, arguments)]) == 0
    metrics = json.loads((out / "result.json").read_text())["metrics"]
    methods = {"probe", "knn", "probe_untrained", "knn_untrained"}
    assert {(row["method"], row["draws"]) for row in metrics["curve"]} == {(m, n) for m in methods for n in (2, 1)}
    figures = {"accuracy", "exact_match", "auroc", "auprc", "f1", "ece"}
    assert all(figures < set(row) and "balanced_accuracy" not in row for row in metrics["curve"])
    of_labels = {row["label"]: row["auroc"] for row in metrics["auroc_of_labels"]}
    assert list(of_labels) == ["up", "across", "rare"]
    whole = next(row for row in metrics["curve"] if row["method"] == "probe" and row["fraction"] == 1)
    assert whole["auroc"]["mean"] == pytest.approx(np.mean(list(of_labels.values())))
    told = {(row["method"], penalty["how"]) for row in metrics["penalty"] for penalty in row["penalties"]}
    assert {how for method, how in told if method == "probe"} >= {"validation"}
    assert "With 50 labelled images" in capfd.readouterr().err


def test_labels_that_all_images_say_the_same_of_are_named(trained, findings, tmp_path, capfd):
    lines = (tmp_path / "findings.csv").read_text().replace("03.png,1,1,1", "03.png,1,1,0")
    (tmp_path / "findings.csv").write_text(lines)
    out = tmp_path / "probe"
    assert main(["probe", *map(str, ["--encoder", trained, *findings, "--labels", "1.0", "--out", out])]) == 0
    assert "all say the same of rare" in " ".join(capfd.readouterr().err.split())
    assert json.loads((out / "result.json").read_text())["metrics"]["auroc_of_labels"][2] == {
        "label": "rare",
        "auroc": 0.5,
    }


def test_grades_and_several_labels_exclude_each_other(trained, findings, tmp_path, refused):
    message = refused("probe", "--encoder", trained, *findings, "--ordinal", "--out", tmp_path / "out")
    assert "--ordinal is for classes that are grades" in message


def test_pretraining_on_several_labels_is_judged_without_classes(pretrain, findings, tmp_path, capfd):
    assert pretrain("--max-steps", 1, "--out", tmp_path / "run", *findings) == 0
    shown = capfd.readouterr().err
    assert "3 labels, of which an image may have several" in " ".join(shown.split())
    assert "No classes to judge by" in shown
    assert "effective_rank" in json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]


def test_the_newest_encoder_is_the_default(trained, striped, tmp_path, monkeypatch, capfd, refused):
    monkeypatch.chdir(tmp_path)
    assert "no finished run with an encoder" in refused("probe", "--data", striped)
    shutil.copytree(trained, tmp_path / "runs" / "pretrain-1")
    assert main(["probe", "--data", "striped", "--shots", "2"]) == 0
    told = capfd.readouterr().err
    assert "runs/pretrain-1/encoder, the newest" in told
    assert "With 4 labelled images" in told
    assert LEARNED_FROM_LABELS not in " ".join(told.split())
    [run] = (tmp_path / "runs").glob("probe-*")
    recorded = json.loads((run / "config.json").read_text())
    # From whatever folder the run is repeated.
    assert recorded["config"]["source"]["data"] == recorded["source"]["data"] == str(striped)
    assert json.loads((run / "result.json").read_text())["metrics"]["curve"][0]["shots"] == 2


def test_that_an_encoder_was_fine_tuned_on_labels_is_told(make_classifier, striped, tmp_path, capfd):
    make_classifier(tmp_path / "tuned" / "classifier")
    arguments = ["--encoder", tmp_path / "tuned", "--data", striped, "--shots", "1", "--out", tmp_path / "out"]
    assert main(["probe", *map(str, arguments)]) == 0
    assert LEARNED_FROM_LABELS in " ".join(capfd.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("--labels", "0.1", "--shots", "1"), "give one of them"),
        (("--labels", "1.5"), "--labels has 1.5"),
        (("--shots", "0"), "--shots has 0"),
        (("--draws", "0"), "--draws is 0"),
        (("--penalty", "0"), "must be a number above 0"),
        (("--test-share", "0"), "no labelled test images"),
    ],
)
def test_what_can_not_be_probed_is_refused(trained, tmp_path, refused, arguments, hint):
    assert hint in refused("probe", "--encoder", trained, "--out", tmp_path / "out", *arguments)


def test_a_source_without_labels_is_refused(trained, tmp_path, write_images, refused):
    photos = write_images(tmp_path / "photos", 12)
    assert "have no labels" in refused("probe", "--encoder", trained, "--data", photos, "--out", tmp_path / "out")
    assert "no encoder directory" in refused("probe", "--encoder", photos, "--out", tmp_path / "out2")
