"""What is said of each image: of copies which stays, of a cause one finding, and what an exclusion takes."""

import time

import numpy as np
import pytest
from made_collections import collection_of, ordinary_measures, pictures, textures
from PIL import Image

from fewlabel.cleaning.choice import excluded
from fewlabel.cleaning.collection import Fault
from fewlabel.cleaning.config import ThresholdsConfig
from fewlabel.cleaning.duplicates import find_copies
from fewlabel.cleaning.findings import find
from fewlabel.cleaning.kinds import DEFAULT_EXCLUDED
from fewlabel.cleaning.measures import measure
from fewlabel.cleaning.thresholds import derive_thresholds


def found_in(collection, semantic=None, **options):
    config = ThresholdsConfig(**options)
    return find(collection, derive_thresholds(collection, config), config, semantic)


def kinds(findings, *wanted):
    """(row, kind, stays) of the findings of these kinds."""
    return [(found.row, found.kind, found.stays) for found in findings.all if found.kind in wanted]


def near(picture, seed=0):
    """The picture with a little noise: another image that shows the same."""
    return (picture + np.random.default_rng(seed).normal(0, 0.004, picture.shape)).clip(0, 1)


def test_of_equal_images_the_one_in_test_stays_else_the_first_id():
    a, b, c = pictures(3)
    splits = ["train", "val", "train", "test", "train", "train", ""]
    made = collection_of([a, a, b, a, b, b, c], splits=splits, contents=["1", "2", "3", "1", "3", "5", "6"])
    findings = found_in(made)
    assert kinds(findings, "exact_duplicate") == [
        (0, "exact_duplicate", False),
        (1, "exact_duplicate", False),
        (2, "exact_duplicate", True),
        (3, "exact_duplicate", True),
        (4, "exact_duplicate", False),
        (5, "exact_duplicate", False),
    ]
    details = {found.row: found.detail for found in findings.all if found.kind == "exact_duplicate"}
    assert details[0] == "same content as 003.png and 1 more"
    assert details[1] == "same pixels as 003.png and 1 more"
    assert {group.rows for group in findings.groups} == {(3, 1, 0), (2, 4, 5)}
    assert kinds(findings, "across_splits") == [
        (0, "across_splits", False),
        (1, "across_splits", False),
        (3, "across_splits", True),
    ]
    reasons = excluded(made, findings.all, DEFAULT_EXCLUDED)
    assert reasons[0] == "exact_duplicate: same content as 003.png and 1 more"
    assert sorted(reasons) == [0, 1, 4, 5]


def test_near_copies_are_linked_and_one_of_each_pair_stays():
    a, b, *rest = pictures(12)
    made = collection_of([a, *rest, near(a), b, near(a, 1)])
    findings = found_in(made)
    last = len(made) - 1
    assert kinds(findings, "near_duplicate") == [
        (0, "near_duplicate", True),
        (last - 2, "near_duplicate", False),
        (last, "near_duplicate", False),
    ]
    (group,) = findings.groups
    assert group.rows == (0, last - 2, last)
    assert all(0.95 < value <= 1 for value in group.similarity)
    assert not excluded(made, findings.all, DEFAULT_EXCLUDED)
    assert sorted(excluded(made, findings.all, ["near_duplicate"])) == [last - 2, last]
    assert not found_in(made, similarity=1.0).groups


def test_of_a_chain_those_that_are_not_alike_stay():
    start, end, *others = pictures(12)
    steps = [start + share * (end - start) for share in np.linspace(0, 1, 9)]
    made = collection_of([*steps, *others])
    findings = found_in(made, similarity=0.9)
    stays = [row for row, _, stays in kinds(findings, "near_duplicate") if stays]
    goes = [row for row, _, stays in kinds(findings, "near_duplicate") if not stays]
    assert len(stays) > 1
    assert goes
    (group,) = findings.groups
    assert min(group.similarity) < 0.9
    # Whatever goes is like one that stays, and of those no two are alike.
    copies = find_copies(made, ThresholdsConfig(similarity=0.9))
    places = copies.set_of
    similarity = copies.units[places] @ copies.units[places].T
    near_by_hash = np.bitwise_count(made.hashes[:, None] ^ made.hashes) <= 8
    linked = (similarity >= 0.9) & near_by_hash
    assert all(linked[row, stays].any() for row in goes)
    assert linked[np.ix_(stays, stays)].sum() == len(stays)


@pytest.mark.parametrize("alter", [lambda picture: picture, near])
def test_copies_with_different_labels_all_go_and_unknown_ones_say_nothing(alter):
    a, b, *rest = pictures(12)
    images = [a, alter(a), b, alter(b), *rest]
    labels = [("cat",), ("dog",), ("cat",), None] + [("cat",)] * len(rest)
    made = collection_of(images, labels=labels)
    findings = found_in(made)
    assert kinds(findings, "label_conflict") == [(0, "label_conflict", False), (1, "label_conflict", False)]
    reasons = excluded(made, findings.all, ["label_conflict"])
    assert reasons == {0: "label_conflict: cat here, dog at 001.png", 1: "label_conflict: dog here, cat at 000.png"}


def test_near_copies_across_splits_and_patients():
    a, b, *rest = pictures(12)
    images = [a, near(a), b, near(b), *rest]
    made = collection_of(
        images,
        splits=["train", "test", "val", "test"] + ["train"] * len(rest),
        groups=["p1", "p2", "p3", "p3"] + [None] * len(rest),
    )
    findings = found_in(made)
    assert kinds(findings, "across_splits", "across_groups") == [
        (0, "across_splits", False),
        (0, "across_groups", False),
        (1, "across_splits", True),
        (1, "across_groups", False),
        (2, "across_splits", False),
        (3, "across_splits", True),
    ]
    assert excluded(made, findings.all, DEFAULT_EXCLUDED) == {
        0: "across_splits: also in test: 001.png",
        2: "across_splits: also in test: 003.png",
    }


def test_pictures_of_one_grey_are_no_near_duplicates():
    levels = np.linspace(0.2, 0.8, 6)[:, None, None] * np.ones((32, 32))
    assert not found_in(collection_of([*levels, *pictures(5)])).groups


def test_what_only_the_encoder_links():
    a, *rest = pictures(6)
    made = collection_of([a, near(a), *rest])
    semantic = np.array([0, 0, 2, 2, 4, 5, -1])
    findings = found_in(made, semantic)
    assert kinds(findings, "semantic_duplicate") == [
        (2, "semantic_duplicate", True),
        (3, "semantic_duplicate", False),
    ]
    assert {group.rows for group in findings.groups} == {(0, 1), (2, 3)}


def test_many_equal_images_take_no_square_of_time():
    made = collection_of(
        np.repeat(pictures(2), 10_000, axis=0), labels=[("cat",)] * 19_999 + [("dog",)], splits=["train"] * 20_000
    )
    start = time.perf_counter()
    findings = found_in(made)
    assert findings.counts() == {"exact_duplicate": 20_000, "label_conflict": 10_000}
    assert time.perf_counter() - start < 10


def measured(count, **values):
    """A collection of ordinary images, of which the first has other measures."""
    columns = ordinary_measures(count)
    for name, value in values.items():
        columns[name][0] = value
    return collection_of(pictures(count), measures=columns)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, []),
        ({"sharpness": 0.01}, ["blurred"]),
        ({"sharpness": float("nan")}, []),
        ({"contrast": 0.02}, ["low_contrast"]),
        ({"contrast": 0.02, "bright_level": 0.05}, ["dark"]),
        ({"contrast": 0.02, "dark_level": 0.97}, ["bright"]),
        ({"contrast": 0, "range": 2, "sharpness": 0.01}, ["uniform"]),
        ({"shorter_side": 9, "size": 10}, ["too_small"]),
        ({"size": 3000}, ["odd_size"]),
        ({"ratio": 9, "size": 30}, ["odd_aspect"]),
        ({"colour": 0}, ["odd_mode"]),
        ({"colour": 0, "dark_level": 0.97}, ["bright"]),
        ({"channels": 1, "bits": 16}, ["odd_mode", "odd_depth"]),
    ],
)
def test_of_one_cause_there_is_one_finding(values, expected):
    findings = found_in(measured(20, **values))
    assert [(found.row, found.kind) for found in findings.all] == [(0, kind) for kind in expected]


def test_a_mode_is_odd_where_few_have_it():
    modes = ["CMYK", "RGBA", *["RGB"] * 28]
    made = collection_of(pictures(30), modes=modes)
    assert kinds(found_in(made), "odd_mode") == [(0, "odd_mode", False), (1, "odd_mode", False)]
    assert not kinds(found_in(made, odd_share=0.01), "odd_mode")
    half = collection_of(pictures(30), modes=["L", "RGB"] * 15)
    assert not kinds(found_in(half), "odd_mode")


def test_faults_come_first_and_what_the_source_passes_over_is_never_left_out():
    made = collection_of(
        pictures(3),
        faults=[(), (Fault("wrong_suffix", "a PNG file under .jpg"),), (Fault("unreadable_name", "no text"),)],
        listed=np.array([True, True, False]),
    )
    findings = found_in(made)
    assert [(found.row, found.kind, found.severity) for found in findings.all] == [
        (1, "wrong_suffix", "warning"),
        (2, "unreadable_name", "error"),
    ]
    assert excluded(made, findings.all, ["wrong_suffix", "unreadable_name"]) == {
        1: "wrong_suffix: a PNG file under .jpg"
    }


def test_encoded_anew_resized_and_brightened_copies_are_near():
    originals = textures(30, side=120)
    altered = [
        np.asarray(Image.fromarray(originals[0]).resize((70, 70))),
        (originals[1] * 1.15).clip(0, 255).astype(np.uint8),
        np.asarray(Image.fromarray(originals[2]).quantize(32).convert("RGB")),
        np.asarray(Image.fromarray(originals[3]).convert("L").convert("RGB")),
    ]
    made = collection_of([measure(pixels).picture for pixels in [*originals, *altered]])
    assert {group.rows for group in found_in(made).groups} == {(place, 30 + place) for place in range(4)}
