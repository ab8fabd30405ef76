"""Precision@k and mean average precision, against scikit-learn, slow loops and counted permutations."""

from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from fewlabel.retrieval.quality import LabelledImages, measure, ranking_figures


def drawn(seed, images=60, width=6, classes=4, groups=40):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, images)
    features = (np.eye(classes, width)[labels] + 0.6 * generator.normal(size=(images, width))).astype(np.float32)
    names = [f"patient {number}" for number in generator.integers(0, groups, images)]
    return labels, features, names


def similarities(features, metric):
    values = features.astype(np.float64)
    if metric == "euclidean":
        return -np.linalg.norm(values[:, None] - values, axis=2)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return values @ values.T


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("several", [False, True], ids=["one class an image", "several labels"])
def test_the_figures_are_those_of_scikit_learn_and_of_a_loop(metric, several):
    labels, features, names = drawn(0)
    if several:
        labels = np.random.default_rng(1).integers(-1, 2, (60, 3))
    images = LabelledImages.of(labels, names)
    table = similarities(features, metric)
    for query in range(60):
        others = [place for place in range(60) if names[place] != names[query]]
        shares = [
            bool(((labels[query] == 1) & (labels[place] == 1)).any()) if several else labels[query] == labels[place]
            for place in others
        ]
        if not any(shares):
            continue
        found = ranking_figures(images, features, np.array([query]), metric)
        expected = average_precision_score(shares, table[query, others])
        assert found["mean_average_precision"][0] == pytest.approx(expected, abs=1e-9)
        nearest = np.argsort(-table[query, others])
        for k in (1, 5, 10):
            assert found[f"precision_at_{k}"][0] == pytest.approx(np.mean(np.array(shares)[nearest[:k]]))


def test_what_is_equally_near_has_no_order():
    """Precision@k is the mean over all orders of the tied images; in file order a collapsed encoder would look good."""
    labels = np.array([0, 0, 0, 1, 1, 1])
    images = LabelledImages.of(labels, list("abcdef"))
    collapsed = np.ones((6, 3), dtype=np.float32)
    found = ranking_figures(images, collapsed, np.arange(6))
    assert found["precision_at_1"] == pytest.approx([2 / 5] * 6)
    assert found["precision_at_5"] == pytest.approx([2 / 5] * 6)
    expected = average_precision_score([True, True, False, False, False], np.ones(5))
    assert found["mean_average_precision"] == pytest.approx([expected] * 6)


def test_chance_is_the_mean_over_every_order():
    labels = np.array([0, 0, 0, 1, 1, 2])
    images = LabelledImages.of(labels, ["p", "q", "r", "s", "s", "t"])
    features = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    quality = measure(images, features, features)
    # Of class 1 both images are of one patient, and class 2 has one image: neither can be found.
    assert (quality.images, quality.queries) == (6, 3)
    relevant = [True, True, False, False, False]
    orders = [np.array(order) for order in permutations(relevant)]
    assert quality.chance["precision_at_1"] == pytest.approx(np.mean([order[0] for order in orders]))
    average = np.mean([average_precision_score(order, np.arange(5, 0, -1)) for order in orders])
    assert quality.chance["mean_average_precision"] == pytest.approx(average)


def test_good_features_are_told_from_random_ones():
    labels, features, names = drawn(2, images=300)
    noise = np.random.default_rng(3).normal(size=(300, 5)).astype(np.float32)
    metrics = measure(LabelledImages.of(labels, names), features, noise).metrics()
    for name in ("precision_at_1", "precision_at_5", "precision_at_10", "mean_average_precision"):
        figure, chance, untrained = metrics[name], metrics[f"{name}_chance"], metrics[f"{name}_untrained"]
        assert chance < figure["low"] < figure["mean"] < figure["high"]
        assert untrained["low"] < chance + 0.03
        assert untrained["high"] > chance - 0.03
        assert metrics[f"{name}_gain"]["low"] > 0
        assert metrics[f"{name}_gain"]["mean"] == pytest.approx(figure["mean"] - untrained["mean"])
    assert (metrics["judged_images"], metrics["judged_queries"]) == (300, 300)


def test_the_interval_is_as_wide_as_the_groups_make_it():
    """300 images of 6 patients, whose images are alike, say less than 300 independent ones: compare the theory."""
    generator = np.random.default_rng(4)
    labels = np.repeat([0, 1, 0, 1, 0, 1], 50)
    features = generator.normal(size=(300, 2)).astype(np.float32)
    # Whether a patient's images lie with their class is up to the patient.
    features += 2 * np.repeat([[0, 1], [1, 0], [0, 1], [0, 1], [1, 0], [1, 0]], 50, axis=0).astype(np.float32)
    alone, patients = (
        measure(LabelledImages.of(labels, names), features, features).learned["precision_at_5"]
        for names in ([str(number) for number in range(300)], [str(number // 50) for number in range(300)])
    )
    assert patients.high - patients.low > 2 * (alone.high - alone.low)
    queries = LabelledImages.of(labels, [str(number) for number in range(300)])
    deviation = ranking_figures(queries, features, np.arange(300))["precision_at_5"].std() / np.sqrt(300)
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)


def test_with_nothing_to_find_there_is_no_figure():
    features = np.eye(3, dtype=np.float32)
    assert measure(LabelledImages.of(np.array([0, 1, 2]), list("abc")), features, features) is None
    assert measure(LabelledImages.of(np.array([0, 0, 0]), list("aaa")), features, features) is None


def test_of_many_images_a_sample_asks(monkeypatch):
    monkeypatch.setattr("fewlabel.retrieval.quality._MOST_QUERIES", 50)
    labels, features, names = drawn(5, images=200)
    images = LabelledImages.of(labels, names)
    first, again, other = (measure(images, features, features, seed=seed) for seed in (0, 0, 1))
    assert first.queries == 50
    assert first.images == 200
    assert first == again
    assert first != other
    assert set(first.gain.values()) == {type(first.gain["precision_at_1"])(0.0, 0.0, 0.0)}
