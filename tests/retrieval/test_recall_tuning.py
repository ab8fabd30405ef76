"""Search parameters: the cheapest pair that reaches the recall, held against trying all pairs."""

import numpy as np
import pytest

from fewlabel.retrieval.layers import Knob
from fewlabel.retrieval.recall import Truth, exact_neighbours, tune
from fewlabel.retrieval.vectors import VectorIndex

WIDTH = 32


class Settings:
    nprobe = k_factor = 1


class Model(Truth):
    """The recall of a search as a formula: more lists find more, more candidates lose less."""

    def __init__(self, settings, steepness, loss):
        super().__init__(np.empty((0, WIDTH)), np.empty(0), lambda positions: positions)
        object.__setattr__(self, "formula", lambda n, k: (1 - np.exp(-steepness * n)) * (1 - loss / k))
        object.__setattr__(self, "settings", settings)

    def recalls(self, index):
        return np.full(4, self.formula(self.settings.nprobe, self.settings.k_factor))


@pytest.mark.parametrize("steepness", [2, 0.3, 0.05, 0.006])
@pytest.mark.parametrize("loss", [0.005, 0.1, 0.4])
@pytest.mark.parametrize("candidate_bytes", [1, 300, 6000])
def test_the_cheapest_pair(steepness, loss, candidate_bytes):
    settings = Settings()
    model = Model(settings, steepness, loss)
    knobs = [Knob("k_factor", settings, 64, candidate_bytes), Knob("nprobe", settings, 1024, 1000.0)]
    chosen = tune(None, knobs, model, 0.98)
    assert chosen == {"nprobe": settings.nprobe, "k_factor": settings.k_factor}

    efforts = [n for n in range(1, 1025) if n.bit_count() == 1 or (n % 3 == 0 and (n // 3).bit_count() == 1)]
    pairs = [(n, 2**power) for n in efforts for power in range(7)]
    reaching = [pair for pair in pairs if model.formula(*pair) >= 0.98]
    costs = {(n, k): n * 1000.0 + k * 10 * candidate_bytes for n, k in reaching}
    assert costs[chosen["nprobe"], chosen["k_factor"]] == min(costs.values())


def test_out_of_reach_the_best_is_taken():
    settings = Settings()
    model = Model(settings, 0.05, 0)
    formula = model.formula
    object.__setattr__(model, "formula", lambda n, k: 0.9 * formula(n, k))
    chosen = tune(None, [Knob("nprobe", settings, 1024, 1.0)], model, 0.99)
    assert formula(chosen["nprobe"], 1) >= 0.9989
    assert chosen["nprobe"] < 256


@pytest.fixture(scope="module")
def points():
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((60, WIDTH))
    chosen = centres[generator.integers(60, size=4000)] + 0.5 * generator.standard_normal((4000, WIDTH))
    return (chosen / np.linalg.norm(chosen, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("factory", ["IVF64,PQ8x4fs,RFlat", "HNSW8", "IVF64,SQ8"])
def test_the_recall_of_other_queries_is_the_one_measured(points, factory):
    index = VectorIndex.build(points[:3600], np.arange(3600), factory=factory, recall=0.9)
    right = np.argsort(-points[3600:] @ points[:3600].T, axis=1)[:, :10]
    found = index.search(points[3600:], 10)[1]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, right, strict=True)])
    assert index.plan.recall.queries == 180
    assert index.plan.recall.measured == pytest.approx(recall, abs=0.03)
    assert recall >= 0.88


def test_more_recall_takes_more_lists():
    points = np.random.default_rng(1).standard_normal((4000, WIDTH)).astype(np.float32)
    plans = [
        VectorIndex.build(points, np.arange(4000), factory="IVF64,SQ8", recall=asked).plan for asked in (0.5, 0.8, 0.95)
    ]
    lists = [plan.parameters["nprobe"] for plan in plans]
    assert lists[0] < lists[1] < lists[2] < 64
    assert all(plan.recall.measured >= plan.recall.asked - 0.02 for plan in plans)


def test_a_recall_out_of_reach_is_said(points):
    plan = VectorIndex.build(points, np.arange(4000), factory="IVF64,PQ4x4fs", recall=0.99).plan
    assert plan.recall.measured < 0.9
    assert not plan.recall.reached


def test_equally_near_vectors_are_as_good(points):
    """Of 30 vectors that are all the same, an index that finds other ten than exact search misses none."""
    same = np.repeat(points[:1], 30, axis=0)
    vectors = np.concatenate([points[100:200], same])

    class Last:
        def search(self, queries, count):
            return None, np.tile(np.arange(130 - count, 130), (len(queries), 1))

    truth = exact_neighbours(points[:1], iter([vectors[:64], vectors[64:]]), lambda positions: vectors[positions])
    assert truth.limits == pytest.approx(0, abs=1e-12)
    assert truth.recalls(Last()) == pytest.approx(1)
    strangers = exact_neighbours(points[100:101], iter([vectors]), lambda positions: vectors[positions])
    assert strangers.recalls(Last()) == pytest.approx(0)
