"""`fewlabel predict`: a row for each image, from a classifier on disk."""

import csv
import json
import shutil

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image

import fewlabel
from fewlabel.__main__ import main
from fewlabel.data.loading import load


@pytest.fixture(scope="module")
def classifier(make_classifier, tmp_path_factory):
    return make_classifier(tmp_path_factory.mktemp("made") / "classifier")


@pytest.fixture
def stripes(tmp_path):
    for name in ("across", "up", "unlabelled"):
        (tmp_path / "stripes" / name).mkdir(parents=True)
        for number in range(10):
            pixels = np.random.default_rng([len(name), number]).integers(0, 128, (16, 16), dtype=np.uint8)
            pixels[:, ::4] += 100
            Image.fromarray(pixels if name == "up" else pixels.T).save(tmp_path / "stripes" / name / f"{number}.png")
    return tmp_path / "stripes"


def predict(tmp_path, *arguments):
    return main(["predict", *map(str, arguments), "--out", str(tmp_path / "run")])


def rows_of(file):
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_every_image_has_a_row_with_the_classifiers_own_probabilities(classifier, stripes, tmp_path, capsys):
    assert predict(tmp_path, "--classifier", classifier, "--data", stripes, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    rows = rows_of(tmp_path / "run" / "predictions.csv")
    assert {row["id"] for row in rows} == {
        f"{name}/{n}.png" for name in ("across", "up", "unlabelled") for n in range(10)
    }
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    loaded = fewlabel.load_classifier(classifier)
    right = []
    for row in rows:
        with torch.no_grad():
            said = loaded.probabilities([Image.open(stripes / row["id"])])[0]
        given = [float(row["probability_across"]), float(row["probability_up"])]
        torch.testing.assert_close(torch.tensor(given), said, rtol=1e-4, atol=1e-5)
        assert row["predicted"] == ("across", "up")[int(said.argmax())]
        assert float(row["confidence"]) == max(given)
        folder = row["id"].partition("/")[0]
        assert row["label"] == ("" if folder == "unlabelled" else folder)
        right += [row["predicted"] == row["label"]] if row["label"] else []
    assert result["metrics"]["accuracy"]["mean"] == pytest.approx(sum(right) / 20)
    assert (result["metrics"]["images"], result["parents"]["classifier"][-17:]) == (30, f"@{loaded.hash[:16]}")


def test_a_single_image_without_a_label_will_do(classifier, write_images, tmp_path):
    photos = write_images(tmp_path / "one photo [1]", 1)
    table = tmp_path / "new" / "table.parquet"
    assert predict(tmp_path, "--classifier", classifier, "--data", photos, "--table", table) == 0
    [row] = pyarrow.parquet.read_table(table).to_pylist()
    assert row["id"] == "000.png"
    assert row["predicted"] in ("across", "up")
    assert "label" not in row


def test_an_existing_table_is_kept_unless_asked_for(classifier, write_images, tmp_path, refused):
    photos, table = write_images(tmp_path / "photos", 3), tmp_path / "table.csv"
    table.write_text("mine")
    arguments = ("--classifier", classifier, "--data", photos, "--table", table)
    assert "--overwrite" in refused("predict", *arguments, "--out", tmp_path / "run")
    assert table.read_text() == "mine"
    assert not (tmp_path / "run").exists()
    assert predict(tmp_path, *arguments, "--overwrite") == 0
    assert len(rows_of(table)) == 3


def test_labels_of_other_classes_are_shown_and_not_scored(make_classifier, stripes, tmp_path, capfd):
    other = make_classifier(tmp_path / "other", ("cat", "dog"))
    assert predict(tmp_path, "--classifier", other, "--data", stripes) == 0
    assert "nothing is scored" in capfd.readouterr().err
    assert set(json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]) == {"images"}
    assert {row["label"] for row in rows_of(tmp_path / "run" / "predictions.csv")} == {"across", "up", ""}


def test_classes_are_matched_by_name(make_classifier, stripes, tmp_path, capfd):
    """The same head with its classes named in another order scores as many right as it had wrong."""
    shares = []
    for names in (("across", "up"), ("up", "across")):
        place = tmp_path / names[0]
        assert predict(place, "--classifier", make_classifier(place / "c", names), "--data", stripes) == 0
        shares.append(json.loads((place / "run" / "result.json").read_text())["metrics"]["accuracy"]["mean"])
    assert sum(shares) == pytest.approx(1)


def test_the_images_it_was_trained_on_are_not_scored(make_classifier, stripes, tmp_path, capfd):
    fingerprint = load(str(stripes)).fingerprint
    trained = make_classifier(
        tmp_path / "trained", provenance={"source": {"fingerprint": fingerprint}, "run": "finetune-1"}
    )
    assert predict(tmp_path, "--classifier", trained, "--data", stripes) == 0
    assert "test alone, which it did not learn from" in capfd.readouterr().err
    rows = [row for row in rows_of(tmp_path / "run" / "predictions.csv") if row["split"] == "test" and row["label"]]
    right = sum(row["predicted"] == row["label"] for row in rows) / len(rows)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["metrics"]["accuracy"]["mean"] == pytest.approx(right)
    assert result["parents"]["classifier"].startswith("finetune-1@")


def test_several_labels_are_yes_or_no(make_classifier, write_images, tmp_path):
    write_images(tmp_path / "images", 12)
    rows = ["path,cough,fever"] + [f"images/{n:03d}.png,{n % 2},{'' if n == 5 else n % 3 % 2}" for n in range(12)]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    both = make_classifier(tmp_path / "both", ("fever", "cough"), multi_label=True)
    source = ("--data", tmp_path / "table.csv", "--label-column", "cough,fever")
    assert predict(tmp_path, "--classifier", both, *source) == 0
    found = rows_of(tmp_path / "run" / "predictions.csv")
    assert len(found) == 12
    for row in found:
        for name in ("cough", "fever"):
            assert row[f"predicted_{name}"] == ("yes" if float(row[f"probability_{name}"]) > 0.5 else "no")
    known = {row["id"]: row["label_fever"] for row in found}
    assert sorted(known.values()).count("") == 1
    known_cough = [row["predicted_cough"] == row["label_cough"] for row in found]
    known_fever = [row["predicted_fever"] == row["label_fever"] for row in found if row["label_fever"]]
    expected = (np.mean(known_cough) + np.mean(known_fever)) / 2
    metrics = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
    assert metrics["accuracy"]["mean"] == pytest.approx(expected)


def test_the_newest_classifier_is_the_default(classifier, write_images, tmp_path, monkeypatch, refused, start):
    monkeypatch.chdir(tmp_path)
    photos = write_images(tmp_path / "photos", 2)
    assert "finetune --data" in refused("predict", "--data", photos)
    run = tmp_path / "runs" / "finetune-1"
    shutil.copytree(classifier, run / "classifier")
    (run / "config.json").write_text(
        json.dumps(
            {"command": "finetune", "created": "2026-01-01T00:00:00+00:00", "config": {}, "source": {}, "parents": {}}
        )
    )
    (run / "result.json").write_text(json.dumps({"metrics": {}}))
    assert predict(tmp_path, "--data", "photos") == 0
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())
    # From whatever folder the run is repeated.
    assert recorded["config"]["source"]["data"] == recorded["source"]["data"] == str(photos)
    assert predict(tmp_path / "again", "--classifier", run, "--data", photos) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--table", "table.xlsx"), ".csv or .parquet"),
        (("--classifier", "nowhere"), "no classifier directory nowhere"),
        (("--data", "nowhere"), "no file or folder 'nowhere'"),
    ],
    ids=str,
)
def test_bad_options_are_refused_without_a_trace(classifier, tmp_path, refused, arguments, message):
    given = arguments if "--classifier" in arguments else ("--classifier", classifier, *arguments)
    assert message in refused("predict", *given, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()
