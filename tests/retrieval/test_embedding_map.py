import math

import numpy as np
import pytest

from fewlabel.retrieval.embedding_map import MAPPED, EmbeddingMap, sample_keys


def clusters(count=30, groups=3, width=20):
    """Groups of points, far apart; a third of the pairs are of one group."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(groups, width)) * 4
    group = np.repeat(np.arange(groups), count)
    features = centres[group] + generator.normal(size=(len(group), width))
    return features.astype(np.float32), group


def project(features, seed=0):
    return EmbeddingMap.project(np.arange(len(features)), features, seed)


def test_what_lies_together_stays_together():
    features, group = clusters()
    points = project(features).points
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (group[distances.argmin(axis=1)] == group).mean() > 0.95


def test_a_map_fills_the_unit_square_at_one_scale_and_comes_again():
    features, _ = clusters(10)
    mapped, again = project(features), project(features)
    low, high = mapped.points.min(axis=0), mapped.points.max(axis=0)
    assert (high - low).max() == pytest.approx(1, abs=1e-5)
    assert (low + high) / 2 == pytest.approx([0.5, 0.5], abs=1e-5)
    np.testing.assert_array_equal(mapped.points, again.points)
    assert mapped.method == "t-SNE, perplexity 10"


def test_a_mapped_image_falls_on_its_own_place():
    features, _ = clusters(10)
    mapped = project(features)
    np.testing.assert_allclose(mapped.place(features), mapped.points, atol=1e-3)


def test_any_other_image_falls_on_the_weighted_mean_of_its_five_nearest():
    features, _ = clusters(10)
    mapped = project(features)
    query = features[3] + np.float32(0.5)
    near = sorted((math.dist(query, row), place) for place, row in enumerate(features.tolist()))[:5]
    weights = [1 / distance**2 for distance, _ in near]
    expected = [
        sum(weight * float(mapped.points[place, axis]) for weight, (_, place) in zip(weights, near, strict=True))
        / sum(weights)
        for axis in (0, 1)
    ]
    assert mapped.place(query[None])[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "features",
    [
        np.ones((1, 4)),
        np.ones((40, 4)),
        np.eye(2),
        np.arange(30.0)[:, None],
        np.arange(30.0)[:, None] * np.ones((30, 3)),
    ],
    ids=["one image", "equal images", "two images", "one component", "on a line"],
)
def test_few_or_flat_embeddings_have_a_map_too(features):
    mapped = project(features.astype(np.float32))
    assert np.isfinite(mapped.points).all()
    assert mapped.points.min() >= 0
    assert mapped.points.max() <= 1
    placed = mapped.place(features.astype(np.float32))
    np.testing.assert_allclose(placed, mapped.points, atol=1e-3)


def test_a_map_needs_an_embedding_for_each_key():
    with pytest.raises(ValueError, match="3 keys and 2 features"):
        EmbeddingMap.project(np.arange(3), np.ones((2, 4), dtype=np.float32))


def test_a_sample_is_even_ordered_and_comes_again():
    few = np.array([7, 3, 3, 5])
    assert sample_keys(few).tolist() == [3, 5, 7]
    many = np.arange(10 * MAPPED)
    drawn = sample_keys(many)
    assert len(np.unique(drawn)) == MAPPED
    assert (np.diff(drawn) > 0).all()
    assert drawn.tolist() == sample_keys(many).tolist() != sample_keys(many, seed=1).tolist()
    assert drawn.mean() == pytest.approx(many.mean(), rel=0.05)
