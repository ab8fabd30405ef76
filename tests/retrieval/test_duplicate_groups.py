"""Duplicate groups, against all pairs compared in double precision and joined one by one."""

import numpy as np
import pytest

from fewlabel.retrieval.duplicates import find_duplicates, link_vectors
from fewlabel.retrieval.manifest import Entry
from fewlabel.retrieval.vectors import VectorIndex


def clustered(seed, count=400, width=16):
    """Vectors among which some are copies of others with a little noise, of many strengths."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(count, width))
    for place in range(count // 2):
        vectors[count // 2 + place] = vectors[generator.integers(count // 2 + place)]
        vectors[count // 2 + place] += generator.uniform(0, 0.4) * generator.normal(size=width)
    return (vectors * generator.uniform(0.5, 2, (count, 1)))[generator.permutation(count)].astype(np.float32)


def slow_components(vectors, threshold):
    units = vectors.astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    component = list(range(len(units)))
    for one in range(len(units)):
        for other in range(one):
            if units[one] @ units[other] >= threshold:
                kept, lost = sorted((component[one], component[other]))
                component = [kept if number == lost else number for number in component]
    return component


def index_of(vectors, keys, factory, metric="cosine"):
    return VectorIndex.build(vectors, keys, factory=factory, metric=metric)


@pytest.mark.parametrize("threshold", [0.7, 0.9, 0.98])
@pytest.mark.parametrize(
    ("factory", "metric", "exhaustive"),
    [("Flat", "cosine", True), ("Flat", "euclidean", True), ("Flat", "cosine", False), ("HNSW32", "cosine", False)],
    ids=str,
)
def test_the_components_are_those_of_all_pairs(threshold, factory, metric, exhaustive, monkeypatch):
    monkeypatch.setattr("fewlabel.retrieval.duplicates._ROWS", 64)
    monkeypatch.setattr("fewlabel.retrieval.duplicates._COLUMNS", 150)
    monkeypatch.setattr("fewlabel.retrieval.duplicates._NEIGHBOURS", 8)
    vectors = clustered(0)
    keys = np.arange(400) * 3 + 5
    found = link_vectors(index_of(vectors, keys, factory, metric), keys, threshold, exhaustive=exhaustive)
    expected = slow_components(vectors, threshold)
    assert 1 < 400 - len(set(expected)) < 399
    assert found.tolist() == expected


def test_an_approximate_index_cannot_link_what_is_apart():
    """Candidates are verified: what a coarse index takes for near is not near for that."""
    vectors = np.random.default_rng(0).normal(size=(2000, 16)).astype(np.float32)
    keys = np.arange(2000)
    found = link_vectors(index_of(vectors, keys, "IVF16,Flat"), keys, 0.999, exhaustive=False)
    assert found.tolist() == keys.tolist()


def test_more_alike_images_than_candidates_are_one_group():
    """Each of 300 finds 32 of the others; which 32 must not matter."""
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(500, 8)).astype(np.float32)
    vectors[100:400] = vectors[100] + 1e-4 * generator.normal(size=(300, 8))
    keys = np.arange(500)
    found = link_vectors(index_of(vectors, keys, "HNSW32"), keys, 0.999, exhaustive=False)
    assert set(found[100:400]) == {100}
    assert len(set(found.tolist())) == 201


def test_a_threshold_of_one_asks_for_equal_features_and_zeros_are_like_nothing():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(40, 100)).astype(np.float32)
    vectors[20:30] = 3 * vectors[:10]
    vectors[35:] = 0
    keys = np.arange(40)
    found = link_vectors(index_of(vectors, keys, "Flat"), keys, 1.0, exhaustive=True)
    assert found.tolist() == [*range(20), *range(10), *range(30, 40)]


def entry(name, key, split="train", labels=()):
    return Entry(name, f"/photos/{name}", labels, split, None, f"{key:032x}", key)


def turned(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_groups_say_what_each_image_is():
    vectors = turned(0, 5, 90, 95, 180, 270)
    entries = [
        entry("a.png", 0, labels=("cat",)),
        entry("near a.png", 1, labels=("cat",)),
        entry("b.png", 2),
        entry("near b.png", 3, "test", ("dog",)),
        entry("copy of near b.png", 3, "test", ("dog",)),
        entry("alone.png", 4),
        entry("c.png", 5, labels=("x", "y")),
        entry("copy of c.png", 5, labels=("y", "x")),
        entry("copy of c, labelled anew.png", 5, labels=("x",)),
        entry("copy of a.png", 0),
    ]
    found = find_duplicates(entries, index_of(vectors, np.arange(6), "Flat"), 0.99, exhaustive=True)
    near = pytest.approx(np.cos(np.radians(5)))
    assert [[(m.entry.id, m.similarity, m.kind) for m in group.members] for group in found] == [
        [("b.png", 1.0, "first"), ("near b.png", near, "near"), ("copy of near b.png", near, "exact")],
        [
            ("c.png", 1.0, "first"),
            ("copy of c.png", 1.0, "exact"),
            ("copy of c, labelled anew.png", 1.0, "exact"),
        ],
        [("a.png", 1.0, "first"), ("copy of a.png", 1.0, "exact"), ("near a.png", near, "near")],
    ]
    assert [(group.across_splits, group.labels_differ) for group in found] == [
        (True, False),
        (False, True),
        (False, False),
    ]


def test_a_chain_shows_in_its_lowest_similarity():
    entries = [entry(f"{place}.png", place) for place in range(5)]
    (group,) = find_duplicates(entries, index_of(turned(0, 8, 16, 24, 32), np.arange(5), "Flat"), 0.99, exhaustive=True)
    assert [member.entry.id for member in group.members] == [f"{place}.png" for place in range(5)]
    assert group.lowest == pytest.approx(np.cos(np.radians(32)))


def test_without_duplicates_there_is_no_group():
    entries = [entry("a.png", 0), entry("b.png", 1)]
    assert find_duplicates(entries, index_of(turned(0, 90), np.arange(2), "Flat"), 0.9, exhaustive=True) == []
    assert find_duplicates([], index_of(turned(0), np.arange(1), "Flat"), 0.9, exhaustive=False) == []
