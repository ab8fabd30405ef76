"""The manifest holds what was found, in both formats, and serves as a list of images to leave out."""

import csv

import numpy as np
import pyarrow.parquet
from made_collections import collection_of, ordinary_measures, pictures

from fewlabel.cleaning.choice import excluded
from fewlabel.cleaning.config import ThresholdsConfig
from fewlabel.cleaning.findings import find
from fewlabel.cleaning.kinds import DEFAULT_EXCLUDED
from fewlabel.cleaning.manifest import write_manifest
from fewlabel.cleaning.measures import MEASURES
from fewlabel.cleaning.thresholds import derive_thresholds
from fewlabel.data.exclusion import read_exclusion


def test_both_files_hold_every_measure_and_finding(tmp_path):
    a, b, c = pictures(3)
    measures = ordinary_measures(4)
    measures["width"] = np.arange(1, 5, dtype=np.float32)
    measures["sharpness"][1] = np.nan
    measures["width"][1] = np.nan
    made = collection_of(
        [a, a, b, c],
        ids=["a, 1.png", 'b"2".png', "c\n3.png", "d.png"],
        labels=[("cat", "indoors"), ("cat", "indoors"), None, ()],
        groups=["p1", None, "p2", None],
        splits=["train", "train", "test", ""],
        measures=measures,
    )
    config = ThresholdsConfig()
    findings = find(made, derive_thresholds(made, config), config)
    reasons = excluded(made, findings.all, DEFAULT_EXCLUDED)
    parquet, text = write_manifest(made, findings, reasons, tmp_path)
    rows = pyarrow.parquet.read_table(parquet).to_pylist()
    assert [row["id"] for row in rows] == list(made.ids)
    assert rows[0]["label"] == ["cat", "indoors"]
    assert [row["label"] for row in rows[2:]] == [None, []]
    assert rows[0]["findings"].count("exact_duplicate") == 1
    assert len(rows[0]["findings"]) == len(rows[0]["details"])
    assert [row["duplicate_group"] for row in rows] == [1, 1, None, None]
    assert [row["severity"] for row in rows][:2] == ["problem", "problem"]
    assert [row["width"] for row in rows] == [1, None, 3, 4]
    assert (rows[0]["sharpness"], rows[1]["sharpness"]) == (1.0, None)
    assert [bool(row["excluded_because"]) for row in rows] == [row in reasons for row in range(4)]
    assert rows[1]["excluded_because"] == "exact_duplicate: same pixels as a, 1.png"
    with text.open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert list(lines[0]) == list(rows[0])
    assert [line["id"] for line in lines] == list(made.ids)
    assert lines[0]["label"] == "cat; indoors"
    assert lines[1]["sharpness"] == ""
    for path in (parquet, text):
        read = read_exclusion(str(path), "")
        assert {id_: row.reason for id_, row in read.rows.items()} == {
            id_: reasons.get(row, "") for row, id_ in enumerate(made.ids)
        }
        assert {id_: row.content for id_, row in read.rows.items()} == dict(zip(made.ids, made.contents, strict=True))


def test_a_collection_of_nothing_that_can_be_read(tmp_path):
    made = collection_of(
        pictures(1), pixels=[b""], contents=[""], measures={name: np.full(1, np.nan, np.float32) for name in MEASURES}
    )
    findings = find(made, derive_thresholds(made, ThresholdsConfig()), ThresholdsConfig())
    parquet, _ = write_manifest(made, findings, {}, tmp_path)
    (row,) = pyarrow.parquet.read_table(parquet).to_pylist()
    assert row["perceptual_hash"] is row["width"] is row["pixels"] is None
