"""Vectors by key in FAISS, held against numpy's sorting of all similarities."""

from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest
from faiss.contrib.exhaustive_search import knn_ground_truth

from fewlabel.errors import UserError
from fewlabel.retrieval import vectors as module
from fewlabel.retrieval.plan import Plan
from fewlabel.retrieval.vectors import VectorIndex, check_factory

WIDTH = 32
FACTORIES = ("Flat", "SQ8", "HNSW16", "HNSW16_SQ8,RFlat", "IVF8,SQ8", "IVF8,PQ8x4fs,RFlat", "PCAR16,IVF8,SQ8,RFlat")
KEPT_EXACTLY = ("Flat", "HNSW16", "HNSW16_SQ8,RFlat", "IVF8,PQ8x4fs,RFlat", "PCAR16,IVF8,SQ8,RFlat")


@pytest.fixture(scope="module")
def points():
    """600 points in 20 clusters, with a mean of their own as features that are never negative have."""
    generator = np.random.default_rng(0)
    centres = 1 + generator.standard_normal((20, WIDTH))
    chosen = centres[generator.integers(20, size=600)] + 0.3 * generator.standard_normal((600, WIDTH))
    return chosen.astype(np.float32)


@pytest.fixture(scope="module")
def keys():
    return np.random.default_rng(1).permutation(5000)[:600].astype(np.int64)


def expected(points, keys, queries, k, metric="cosine"):
    points, queries = points.astype(np.float64), queries.astype(np.float64)
    if metric == "cosine":
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        similarities = queries @ points.T
    else:
        similarities = -np.linalg.norm(queries[:, None] - points[None], axis=2)
    order = np.argsort(-similarities, axis=1)[:, :k]
    return np.take_along_axis(similarities, order, axis=1), keys[order]


@pytest.fixture
def searched_exactly(monkeypatch):
    """Every selection is a large one; the queries for which it was searched exactly nevertheless."""
    monkeypatch.setattr(module, "FLAT_BYTES", 0)
    asked = []

    def noted(queries, *arguments, **options):
        asked.extend(queries)
        return knn_ground_truth(queries, *arguments, **options)

    monkeypatch.setattr(module, "knn_ground_truth", noted)
    return asked


def agreement(found, right):
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, right, strict=True)])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_flat_search_is_exact(points, keys, metric):
    index = VectorIndex.build(points, keys, factory="Flat", metric=metric)
    queries = points[:50] + 0.1
    similarities, found = index.search(queries, 7)
    right, right_keys = expected(points, keys, queries, 7, metric)
    assert np.array_equal(found, right_keys)
    assert similarities == pytest.approx(right, abs=1e-3 if metric == "euclidean" else 1e-6)
    assert (similarities.dtype, found.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("factory", FACTORIES)
def test_a_living_index(points, keys, tmp_path, factory, metric):
    """Built of 500, 100 added, 300 removed: what is left is found, what is gone never is, also from a file."""
    index = VectorIndex.build(points[:500], keys[:500], factory=factory, metric=metric)
    index.add(points[500:], keys[500:])
    gone = np.random.default_rng(2).permutation(600)[:300]
    index.remove(keys[gone])
    left = np.setdiff1d(np.arange(600), gone)
    assert len(index) == 300
    assert np.array_equal(np.sort(index.keys), np.sort(keys[left]))

    similarities, found = index.search(points, 10)
    right, right_keys = expected(points[left], keys[left], points, 10, metric)
    assert not np.isin(found, keys[gone]).any()
    assert agreement(found, right_keys) > (0.95 if factory in KEPT_EXACTLY else 0.9)
    assert np.median(np.abs(similarities - right)) < (1e-6 if factory in KEPT_EXACTLY and metric == "cosine" else 0.05)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True) if metric == "cosine" else points
    assert np.abs(index.vectors(keys[left]) - unit[left]).mean() < (1e-6 if factory in KEPT_EXACTLY else 0.02)

    index.write(tmp_path / "vectors.faiss")
    for mapped in (False, True):
        again = VectorIndex.read(tmp_path / "vectors.faiss", Plan.from_json(index.plan.as_json()), mapped=mapped)
        assert all(np.array_equal(a, b) for a, b in zip(again.search(points, 10), (similarities, found), strict=True))
        assert np.array_equal(again.vectors(keys[left]), index.vectors(keys[left]))
        one = again.search(points[left[:20]], 1, keys=keys[left[:1]])
        assert np.array_equal(one[1][:, 0], np.repeat(keys[left[:1]], 20))


def test_a_removed_graph_searches_as_one_built_without(points, keys):
    index = VectorIndex.build(points, keys, factory="HNSW16")
    index.remove(keys[:200])
    _, right = expected(points[200:], keys[200:], points[200:300], 10)
    assert agreement(index.search(points[200:300], 10)[1], right) > 0.99


@pytest.mark.parametrize("factory", ["Flat", "IVF8,PQ8x4fs,RFlat", "HNSW16"])
def test_a_small_selection_is_searched_exactly(points, keys, factory):
    index = VectorIndex.build(points, keys, factory=factory)
    chosen = np.random.default_rng(3).permutation(600)[:40]
    similarities, found = index.search(points[:30], 10, keys=keys[chosen])
    right, right_keys = expected(points[chosen], keys[chosen], points[:30], 10)
    assert np.array_equal(found, right_keys)
    assert similarities == pytest.approx(right, abs=1e-6)


@pytest.mark.parametrize(
    "factory", ["Flat", "SQ8", "IVF8,SQ8", "IVF8,PQ8x4fs,RFlat", "HNSW16", "PCAR16,IVF8,SQ8,RFlat"]
)
def test_a_large_selection_is_left_to_faiss(points, keys, factory, searched_exactly):
    index = VectorIndex.build(points, keys, factory=factory)
    chosen = np.arange(0, 600, 2)
    _, found = index.search(points[:100], 10, keys=keys[chosen])
    _, right = expected(points[chosen], keys[chosen], points[:100], 10)
    assert searched_exactly == []
    assert np.isin(found, keys[chosen]).all()
    assert agreement(found, right) > 0.9


def test_a_selection_far_from_a_query_is_searched_exactly_for_this_one(points, keys, searched_exactly):
    """The one list that is read has too few of a selection that lies in others."""
    index = VectorIndex.build(points, keys, factory="IVF8,SQ8", recall=0.01)
    assert index.plan.parameters == {"nprobe": 1}
    _, order = expected(points, keys, points[4:5], 600)
    chosen = np.isin(keys, order[0, 200:])
    queries = points[[4, np.flatnonzero(keys == order[0, -1])[0]]]
    similarities, found = index.search(queries, 10, keys=keys[chosen])
    assert len(searched_exactly) == 1
    assert searched_exactly[0] == pytest.approx(queries[0] / np.linalg.norm(queries[0]))
    right, right_keys = expected(points[chosen], keys[chosen], queries, 10)
    assert agreement(found, right_keys) > 0.9
    assert similarities == pytest.approx(right, abs=0.02)


def test_fewer_than_asked(points, keys):
    index = VectorIndex.build(points[:3], keys[:3])
    assert index.search(points[:2], 10)[0].shape == (2, 3)
    similarities, found = index.search(points[:2], 10, keys=keys[:1])
    assert np.array_equal(found, [[keys[0], -1, -1]] * 2)
    assert np.isneginf(similarities[:, 1:]).all()
    similarities, found = index.search(points[:2], 2, keys=keys[:0])
    assert np.array_equal(found, np.full((2, 2), -1))
    assert index.search(points[:0], 2)[1].shape == (0, 2)
    index.remove(keys[:3])
    assert len(index) == 0
    assert index.search(points[:2], 10)[1].shape == (2, 0)
    assert index.search(points[:2], 10, keys=keys[:0])[1].shape == (2, 0)
    assert index.vectors(keys[:0]).shape == (0, WIDTH)
    index.add(points[:3], keys[:3])
    assert np.array_equal(index.search(points[:3], 1)[1][:, 0], keys[:3])


def test_an_empty_index(tmp_path):
    index = VectorIndex.build(np.empty((0, WIDTH), np.float32), np.empty(0, np.int64))
    assert (index.plan.factory, index.plan.recall.measured) == ("Flat", 1.0)
    index.write(tmp_path / "empty.faiss")
    assert len(VectorIndex.read(tmp_path / "empty.faiss", index.plan, mapped=True)) == 0


@pytest.mark.parametrize("factory", ["Flat", "IVF8,SQ8"])
def test_a_query_of_zeros_is_similar_to_nothing(points, keys, factory):
    zero = np.zeros((1, WIDTH), np.float32)
    index = VectorIndex.build(points, keys, factory=factory)
    assert index.search(zero, 3)[0] == pytest.approx(0, abs=0.03)
    assert index.search(zero, 1, keys=keys[:1])[0] == pytest.approx(0, abs=1e-6)


def test_keys_that_are_known_or_not(points, keys):
    index = VectorIndex.build(points[:10], keys[:10])
    with pytest.raises(ValueError, match="twice"):
        index.add(points[:1], keys[:1])
    with pytest.raises(ValueError, match="twice"):
        index.add(points[10:12], keys[[10, 10]])
    for call in (index.remove, index.vectors, lambda wrong: index.search(points, 1, keys=wrong)):
        with pytest.raises(KeyError, match=str(keys[20])):
            call(keys[[0, 20]])


def test_many_threads_at_once(points, keys):
    index = VectorIndex.build(points, keys, factory="IVF8,PQ8x4fs,RFlat")
    calls = [{"queries": points[i::4], "k": 5, "keys": keys[:500] if i % 2 else None} for i in range(4)] * 8
    alone = [index.search(**call)[1] for call in calls]
    with ThreadPoolExecutor(8) as pool:
        together = [search.result()[1] for search in [pool.submit(index.search, **call) for call in calls]]
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_the_same_seed_gives_the_same_file(points, keys, tmp_path):
    for name in ("first", "second"):
        VectorIndex.build(points, keys, factory="IVF8,PQ8x4fs,RFlat", seed=5).write(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


@pytest.mark.parametrize("factory", FACTORIES)
def test_the_size_that_the_plan_states(points, keys, tmp_path, factory):
    index = VectorIndex.build(points, keys, factory=factory)
    index.write(tmp_path / "file")
    assert index.plan.bytes_per_vector == (tmp_path / "file").stat().st_size / 600


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("HNWS32", "--factory HNWS32 makes no index of vectors of width 32: could not parse .*Take auto"),
        ("IVF8,PQ5", "--factory IVF8,PQ5 makes no index of vectors of width 32: .*Take auto"),
        ("", "makes no index"),
    ],
)
def test_a_factory_that_faiss_does_not_make(points, keys, factory, reason):
    with pytest.raises(UserError, match=reason):
        check_factory(factory, WIDTH, "cosine")
    with pytest.raises(UserError, match=reason):
        VectorIndex.build(points, keys, factory=factory)


@pytest.mark.parametrize("factory", ["auto", *FACTORIES])
def test_a_factory_that_faiss_makes(factory):
    check_factory(factory, WIDTH, "euclidean")


@pytest.mark.parametrize(
    ("factory", "count", "reason"),
    [
        ("IVF1024,Flat", 600, "can't take 600 vectors of width 32: Number of training points .*1024"),
        ("HNSW16", 39, "is for 40 vectors and more, and here are 39: take auto"),
        ("NSG16", 600, "can't take 600 vectors of width 32: .*Take auto"),
        ("IDMap,Flat", 600, "can't take 600 vectors"),
    ],
)
def test_a_factory_that_these_vectors_do_not_suit(points, keys, factory, count, reason):
    with pytest.raises(UserError, match=reason):
        VectorIndex.build(points[:count], keys[:count], factory=factory)


def test_a_file_that_is_not_the_index(points, keys, tmp_path):
    index = VectorIndex.build(points, keys, factory="IVF8,PQ8x4fs,RFlat")
    path = tmp_path / "vectors.faiss"
    index.write(path)
    whole = path.read_bytes()
    for size in [0, 3, 40, *range(100, len(whole), len(whole) // 40)]:
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"vectors.faiss is no readable FAISS index .*build the index again"):
            VectorIndex.read(path, index.plan)
    faiss.write_index(faiss.IndexFlatL2(WIDTH), str(path))
    with pytest.raises(UserError, match=r"holds IndexFlat.*, not vectors by key"):
        VectorIndex.read(path, index.plan)
    VectorIndex.build(points, keys, factory="Flat").write(path)
    with pytest.raises(UserError, match="is not the IVF8,PQ8x4fs,RFlat of width 32 that its plan says"):
        VectorIndex.read(path, index.plan)
    path.unlink()
    with pytest.raises(UserError, match=r"vectors.faiss is no readable"):
        VectorIndex.read(path, index.plan)


def test_writing_where_there_is_no_room(points, keys, tmp_path):
    with pytest.raises(OSError, match="could not write"):
        VectorIndex.build(points, keys).write(tmp_path / "missing" / "file")
