"""`fewlabel duplicates`: groups in the terminal, as a table, as JSON and as a picture."""

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from fewlabel.__main__ import main
from fewlabel.retrieval import Index


@pytest.fixture(scope="module")
def cosines(indexed):
    """Of all pairs of different images in double precision, with the ids of each image's places."""
    index = Index.open(indexed)
    keys = np.unique([entry.key for entry in index.entries])
    vectors = index.features(keys).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T, [{entry.id for entry in index.entries if entry.key == key} for key in keys]


@pytest.fixture(scope="module")
def threshold(cosines):
    """Between the two near copies and all other pairs."""
    table, _ = cosines
    near = np.sort(table[np.triu_indices_from(table, 1)])[::-1]
    assert near[1] - near[2] > 1e-5
    return (near[1] + near[2]) / 2


@pytest.fixture
def duplicates(indexed):
    return lambda *arguments: main(["duplicates", *map(str, arguments), "--index", str(indexed)])


NAMES = [
    ["test/up/copy.png", "train/up/0.png", "train/up/tiny change.png"],
    ["train/across/labelled anew.png", "train/up/1.png"],
    ["train/across/0.png", "train/across/near.png"],
]


def test_the_table_has_a_row_for_each_image_of_each_group(duplicates, collection, threshold, tmp_path, capfd):
    for ending in ("csv", "parquet"):
        assert duplicates("--threshold", threshold, "--table", tmp_path / f"found.{ending}") == 0
    assert "7 of 28 images, in 3 groups; 1 of these lie across splits, in 1 the labels differ" in capfd.readouterr().err
    rows = pyarrow.parquet.read_table(tmp_path / "found.parquet").to_pylist()
    with (tmp_path / "found.csv").open(newline="") as lines:
        assert [row["id"] for row in csv.DictReader(lines)] == [row["id"] for row in rows]
    groups = [[row for row in rows if row["group"] == number] for number in (1, 2, 3)]
    assert [sorted(row["id"] for row in group) for group in groups] == NAMES
    assert [[row["kind"] for row in group] for group in groups] == [
        ["first", "exact", "near"],
        ["first", "exact"],
        ["first", "near"],
    ]
    assert [{(row["across_splits"], row["labels_differ"]) for row in group} for group in groups] == [
        {(True, False)},
        {(False, True)},
        {(False, False)},
    ]
    for row in rows:
        assert row["path"] == str(collection / row["id"])
        assert row["label"] == row["id"].split("/")[1]
        assert row["split"] == row["id"].split("/")[0]
        assert row["similarity"] == 1 if row["kind"] != "near" else threshold < row["similarity"] < 1


@pytest.mark.parametrize("quantile", [0.9, 0.98])
def test_the_groups_are_those_of_all_pairs_joined_one_by_one(duplicates, cosines, quantile, capfd):
    table, names = cosines
    pairs = np.sort(table[np.triu_indices_from(table, 1)])
    place = int(quantile * len(pairs))
    limit = (pairs[place] + pairs[place + 1]) / 2
    groups = [set(places) for places in names]
    for one, other in zip(*np.nonzero(table >= limit), strict=True):
        if groups[one] is not groups[other]:
            joined = groups[one] | groups[other]
            groups = [joined if group <= joined else group for group in groups]
    expected = {frozenset(group) for group in groups if len(group) > 1}
    assert duplicates("--threshold", limit, "--json") == 0
    shown = capfd.readouterr()
    found = json.loads(shown.out)
    assert {frozenset(image["id"] for image in group["images"]) for group in found["groups"]} == expected
    # A group of more than ten whose images are not all like its first is told.
    largest = max(found["groups"], key=lambda group: len(group["images"]))
    assert largest["lowest_similarity"] == min(image["similarity"] for image in largest["images"])
    chained = len(largest["images"]) > 10 and largest["lowest_similarity"] < limit
    assert ("linked in a chain" in shown.err) == chained
    assert chained == (quantile == 0.9)


def test_the_terminal_shows_the_groups(duplicates, threshold, capfd):
    assert duplicates("--threshold", threshold) == 0
    lines = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert lines[1][:3] == ["1", "1.0000", "first"]
    assert lines[1][-2:] == ["across", "splits"]
    assert lines[2][:2] == ["1.0000", "exact"]
    assert lines[3][1] == "near"
    assert [line[0] for line in lines].count("2") == 1


def test_the_picture_shows_them_with_what_is_odd_framed(duplicates, threshold, tmp_path):
    assert duplicates("--threshold", threshold, "--picture", tmp_path / "found.png") == 0
    with Image.open(tmp_path / "found.png") as opened:
        pixels = np.asarray(opened)
    framed = (pixels == (0xD5, 0x5E, 0x00)).all(axis=2)
    tops = np.flatnonzero(np.diff(framed.any(axis=1).astype(int)) == 1)
    # The copy in the other split, and the copy with the other label.
    assert len(tops) == 2


def test_without_near_images_it_says_so(duplicates, indexed, tmp_path, capfd):
    assert duplicates("--threshold", 1, "--json") == 0
    assert [len(group["images"]) for group in json.loads(capfd.readouterr().out)["groups"]] == [2, 2]
    alone = Index.open(shutil.copytree(indexed, tmp_path / "index"))
    alone.remove(["test/up/copy.png", "train/up/1.png"])
    table = tmp_path / "found.csv"
    arguments = ["--index", str(alone.directory), "--threshold", "1", "--table", str(table)]
    assert main(["duplicates", *arguments, "--picture", str(tmp_path / "found.png")]) == 0
    assert "No two of 26 images have a similarity of 1 or more" in capfd.readouterr().err
    assert table.read_text().startswith('"group","id","path"')
    assert not (tmp_path / "found.png").exists()


def test_it_needs_no_torch(indexed, tmp_path):
    script = (
        "import sys; from fewlabel.__main__ import main;"
        f"status = main(['duplicates', '--index', {str(indexed)!r}, '--picture', {str(tmp_path / 'found.png')!r}]);"
        "sys.exit(status or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], env=os.environ, capture_output=True, text=True, check=False)
    assert (done.returncode, (tmp_path / "found.png").is_file()) == (0, True), done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--threshold", "98"), "--threshold is 98.0; it must be above 0 and at most 1"),
        (("--threshold", "nan"), "--threshold is nan"),
        (("--table", "found.xlsx"), "--table is found.xlsx; its name must end in .csv or .parquet"),
        (("--picture", "found.csv"), "--picture is found.csv; its name must end in .png"),
        (("--index", "nowhere"), "nowhere does not exist"),
    ],
    ids=str,
)
def test_bad_options_are_refused(indexed, refused, arguments, message):
    assert message in refused("duplicates", "--index", indexed, *arguments)


def test_an_existing_file_is_kept_unless_asked_for(indexed, duplicates, tmp_path, refused):
    for flag, name in (("--table", "mine.csv"), ("--picture", "mine.png")):
        (tmp_path / name).write_text("mine")
        assert "--overwrite" in refused("duplicates", "--index", indexed, flag, tmp_path / name)
        assert (tmp_path / name).read_text() == "mine"
        assert duplicates(flag, tmp_path / name, "--overwrite") == 0
        assert (tmp_path / name).read_bytes()[:4] != b"mine"
