"""What `index build` says of the neighbours: precision against untrained and chance, and examples to look at."""

import json

import numpy as np
import pytest
from PIL import Image

from fewlabel.__main__ import main
from fewlabel.retrieval import Index
from fewlabel.tracking.run import Run


@pytest.fixture
def build(indexed, tmp_path):
    """`fewlabel index build` with the encoder of fresh weights; its figures."""

    def run(data, *arguments, out="run"):
        out = tmp_path / out
        source = ("--data", data, "--val-share", 0, "--out", out, "--encoder", indexed.parent / "encoder")
        assert main(["index", "build", *map(str, (*source, *arguments))]) == 0
        return json.loads((out / "result.json").read_text())["metrics"]

    return run


def test_the_figures_are_those_of_all_pairs(build, collection, tmp_path, capfd):
    metrics = build(collection, "--seed", 3)
    index = Index.open(tmp_path / "run")
    different = list({entry.key: entry for entry in reversed(index.entries)}.values())
    vectors = index.features([entry.key for entry in different]).astype(np.float64)
    table = vectors @ vectors.T
    np.fill_diagonal(table, -np.inf)
    labels = np.array([entry.labels[0] for entry in different])
    shares = labels[np.argsort(-table, axis=1)] == labels[:, None]
    for k in (1, 5, 10):
        assert metrics[f"precision_at_{k}"]["mean"] == pytest.approx(shares[:, :k].mean())
    others = np.array([(labels == label).sum() - 1 for label in labels])
    assert metrics["precision_at_5_chance"] == pytest.approx((others / (len(labels) - 1)).mean())
    # Weights of another draw are another untrained network.
    assert metrics["precision_at_1_untrained"] != metrics["precision_at_1"]
    assert metrics["judged_images"] == metrics["judged_queries"] == 26
    shown = " ".join(capfd.readouterr().err.split())
    assert "precision@5" in shown
    assert "26 queries, each among the 26 labelled images outside its group" in shown
    with Image.open(tmp_path / "run" / "neighbours.png") as opened:
        assert opened.width > 800


def test_a_sample_is_judged_or_none(build, collection, tmp_path):
    metrics = build(collection, "--judged-images", 12)
    assert metrics["judged_images"] == 12


def test_none_is_judged_where_nobody_asks_or_labels(build, collection, write_images, tmp_path, capfd):
    assert "precision_at_5" not in build(collection, "--judged-images", 0, out="unasked")
    assert "precision_at_5" not in build(write_images(tmp_path / "unlabelled", 3))
    assert "precision@5" not in capfd.readouterr().err


def test_wandb_gets_pictures_and_no_names_of_files(build, collection, monkeypatch):
    tables = {}
    monkeypatch.setattr(Run, "log_table", lambda self, name, columns, rows: tables.update({name: (columns, rows)}))
    build(collection)
    columns, rows = tables["neighbours"]
    assert columns == ["query", *(f"neighbour {rank}" for rank in range(1, 6))]
    assert len(rows) == 12
    for query, *neighbours in rows:
        assert query.caption in ("across", "up")
        for cell in neighbours:
            similarity, label = cell.caption.split()
            assert -1 <= float(similarity) <= 1
            assert label in ("across", "up")
            assert cell.image.size == (16, 16)


def test_a_negative_number_is_refused(refused):
    assert "--judged-images is -1" in refused("index", "build", "--judged-images", -1)
