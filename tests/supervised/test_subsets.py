"""Label subsets: nested, in the classes' proportions, groups whole, and nothing that depends on the order."""

import random
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fewlabel.errors import UserError
from fewlabel.supervised.subsets import Subset, fractions_of, shots_of


def classes_of(labels: list[int]) -> list[int]:
    """What an image of three labels counts for."""
    if max(labels) < 0:
        return []
    return [place for place, label in enumerate(labels) if label == 1] or [3]


label_rows = st.lists(
    st.tuples(st.lists(st.integers(-1, 1), min_size=3, max_size=3), st.integers(0, 25)), min_size=2, max_size=60
).filter(lambda images: len({label for labels, _ in images for label in classes_of(labels)}) >= 2)
rows = st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 25)), min_size=2, max_size=80).filter(
    lambda images: len({label for label, _ in images} - {-1}) >= 2
)
asked = st.sampled_from(
    [(fractions_of, [0.03, 0.1, 0.1, 0.35, 0.8, 1.0]), (shots_of, [1, 2, 2, 5, 80])],
)


def names(count: int) -> list[str]:
    return [f"image{index}" for index in range(count)]


def counts_of(subset: Subset, labels: Tensor) -> list[int]:
    return torch.bincount(labels[subset.indices], minlength=int(labels.max()) + 1).tolist()


def amount(subset: Subset) -> float:
    found = subset.fraction if subset.shots is None else subset.shots
    assert found is not None
    return found


@settings(max_examples=150, deadline=None)
@given(rows, st.booleans(), asked, st.integers(0, 5), st.randoms(use_true_random=False))
def test_what_holds_for_every_subset(
    images: list[tuple[int, int]],
    grouped: bool,
    function_and_values: tuple[Callable[..., list[Subset]], list[float]],
    seed: int,
    shuffler: random.Random,
) -> None:
    function, values = function_and_values
    ids = names(len(images))
    labels = torch.tensor([label for label, _ in images])
    groups = [f"patient{group}" for _, group in images] if grouped else None
    subsets = function(ids, labels, groups, values, 3, seed)
    assert [(amount(subset), subset.draw) for subset in subsets] == sorted(
        {(amount(subset), subset.draw) for subset in subsets}
    )
    assert [amount(subset) for subset in subsets if subset.draw == 0] == sorted(set(values))
    labelled = {index for index, (label, _) in enumerate(images) if label >= 0}
    for subset in subsets:
        held = subset.indices.tolist()
        assert subset.indices.dtype == torch.int64
        assert held == sorted(set(held))
        assert set(held) <= labelled
        assert {images[index][0] for index in held} == {images[index][0] for index in labelled}
        if groups is not None:
            patients = {groups[index] for index in held}
            assert set(held) == {index for index in labelled if groups[index] in patients}
        for larger in subsets:
            if larger.draw == subset.draw and amount(larger) > amount(subset):
                assert set(held) <= set(larger.indices.tolist())
    last = [subset for subset in subsets if amount(subset) == max(values)]
    assert [(subset.draw, set(subset.indices.tolist())) for subset in last] == [(0, labelled)]

    order = list(range(len(images)))
    shuffler.shuffle(order)
    moved = None if groups is None else [groups[index] for index in order]
    again = function([ids[index] for index in order], labels[order], moved, values[::-1], 3, seed)
    assert [(amount(subset), subset.draw) for subset in again] == [(amount(s), s.draw) for s in subsets]
    for subset, other in zip(subsets, again, strict=True):
        assert {order[index] for index in other.indices.tolist()} == set(subset.indices.tolist())


@settings(max_examples=100, deadline=None)
@given(label_rows, st.booleans(), asked, st.randoms(use_true_random=False))
def test_what_holds_for_every_subset_of_several_labels(
    images: list[tuple[list[int], int]],
    grouped: bool,
    function_and_values: tuple[Callable[..., list[Subset]], list[float]],
    shuffler: random.Random,
) -> None:
    function, values = function_and_values
    ids, labels = names(len(images)), torch.tensor([row for row, _ in images])
    groups = [f"patient{group}" for _, group in images] if grouped else None
    subsets = function(ids, labels, groups, values, 3, 0)
    labelled = {index for index, (row, _) in enumerate(images) if max(row) >= 0}
    present = {label for row, _ in images for label in classes_of(row)}
    for subset in subsets:
        held = subset.indices.tolist()
        assert held == sorted(set(held))
        assert set(held) <= labelled
        assert {label for index in held for label in classes_of(images[index][0])} == present
        if groups is not None:
            patients = {groups[index] for index in held}
            assert set(held) == {index for index in labelled if groups[index] in patients}
        for larger in subsets:
            if larger.draw == subset.draw and amount(larger) > amount(subset):
                assert set(held) <= set(larger.indices.tolist())
    last = [subset for subset in subsets if amount(subset) == max(values)]
    assert [set(subset.indices.tolist()) for subset in last] == [labelled]

    order = list(range(len(images)))
    shuffler.shuffle(order)
    moved = None if groups is None else [groups[index] for index in order]
    again = function([ids[index] for index in order], labels[order], moved, values[::-1], 3, 0)
    for subset, other in zip(subsets, again, strict=True):
        assert {order[index] for index in other.indices.tolist()} == set(subset.indices.tolist())


def test_a_fraction_of_several_labels_has_their_proportions() -> None:
    generator = torch.Generator().manual_seed(0)
    rates = torch.tensor([0.4, 0.2, 0.1, 0.03, 0.02])
    labels = (torch.rand(3000, 5, generator=generator) < rates).long()
    for subset in fractions_of(names(3000), labels, None, [0.02, 0.1, 0.5], 3, 0):
        assert subset.fraction is not None
        assert len(subset.indices) == pytest.approx(3000 * subset.fraction, rel=0.1)
        found, due = labels[subset.indices].sum(dim=0), labels.sum(dim=0) * subset.fraction
        assert (found - due).abs().max() <= 0.15 * due.max() + 2
        none = (labels == 0).all(dim=1)
        assert int(none[subset.indices].sum()) == pytest.approx(int(none.sum()) * subset.fraction, rel=0.1, abs=2)


def test_shots_of_several_labels_are_images_with_each() -> None:
    generator = torch.Generator().manual_seed(1)
    labels = (torch.rand(500, 4, generator=generator) < 0.2).long()
    for subset in shots_of(names(500), labels, None, [1, 5, 10], 5, 0):
        assert subset.shots is not None
        counts = [*labels[subset.indices].sum(dim=0).tolist(), int((labels[subset.indices] == 0).all(dim=1).sum())]
        assert min(counts) >= subset.shots
        assert max(counts) <= 2 * subset.shots + 1


def test_a_fraction_is_divided_in_the_classes_proportions() -> None:
    sizes = [1000, 200, 50, 3]
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes))
    for subset in fractions_of(names(1253), labels, None, [0.01, 0.1, 0.33, 0.5, 0.9], 3, 0):
        assert subset.fraction is not None
        assert len(subset.indices) == round(subset.fraction * 1253)
        for count, size in zip(counts_of(subset, labels), sizes, strict=True):
            assert count == pytest.approx(max(1, subset.fraction * size), abs=1)


def test_many_small_classes_together_give_the_fraction() -> None:
    labels = torch.arange(1000) % 100
    small, first, second = fractions_of(names(1000), labels, None, [0.03, 0.14], 2, 0)[1:]
    assert counts_of(small, labels) == [1] * 100
    assert Counter(counts_of(first, labels)) == Counter(counts_of(second, labels)) == {1: 60, 2: 40}
    assert counts_of(first, labels) != counts_of(second, labels)


def test_shots_are_images_per_class_or_all_of_a_small_class() -> None:
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor([100, 30, 4]))
    subsets = shots_of(names(134), labels, None, [1, 5, 20], 2, 0)
    found = [(subset.shots, subset.fraction, counts_of(subset, labels)) for subset in subsets]
    one, five, twenty = (1, None, [1, 1, 1]), (5, None, [5, 5, 4]), (20, None, [20, 20, 4])
    assert found == [one, one, five, five, twenty, twenty]


def test_each_image_is_as_likely_as_another() -> None:
    labels = torch.arange(20) % 2
    subsets = shots_of(names(20), labels, None, [2], 2000, 0)
    drawn = torch.bincount(torch.cat([subset.indices for subset in subsets]), minlength=20)
    # 2025 pairs of pairs exist, of which 2000 draws find some 1270 different ones, each with 4 of the 20 images.
    assert len(subsets) > 1200
    assert (drawn / drawn.sum() - 0.05).abs().max() < 0.01


def test_groups_of_one_class_come_within_half_a_group() -> None:
    labels = torch.arange(3000) // 1000
    groups = [f"patient{index // 4}" for index in range(3000)]
    for subset in fractions_of(names(3000), labels, groups, [0.01, 0.05, 0.333], 5, 0):
        for count in counts_of(subset, labels):
            assert subset.fraction is not None
            assert abs(count - 1000 * subset.fraction) <= 2.5
    for subset in shots_of(names(3000), labels, groups, [1, 5, 7, 20], 5, 0):
        assert subset.shots is not None
        assert set(counts_of(subset, labels)) == {{1: 4, 5: 4, 7: 8, 20: 20}[subset.shots]}


def test_mixed_and_uneven_groups_keep_near_the_proportions() -> None:
    numbers = random.Random(0)
    labels, groups = [], []
    for patient in range(600):
        usual = numbers.choices(range(4), [8, 4, 2, 1])[0]
        for _ in range(min(80, int(numbers.paretovariate(1.2)))):
            labels.append(usual if numbers.random() < 0.6 else numbers.choices(range(4), [8, 4, 2, 1])[0])
            groups.append(f"patient{patient}")
    sizes = torch.bincount(torch.tensor(labels))
    subsets = fractions_of(names(len(labels)), torch.tensor(labels), groups, [0.05, 0.1, 0.5], 5, 0)
    assert len(subsets) == 15
    for subset in subsets:
        assert subset.fraction is not None
        due = sizes * subset.fraction
        assert (torch.tensor(counts_of(subset, torch.tensor(labels))) - due).abs().sum() < 0.2 * due.sum() + 4


def test_a_huge_group_does_not_fill_a_small_subset() -> None:
    labels = torch.tensor([0] * 600 + [1] * 600)
    groups = ["huge" if index % 600 < 300 else f"patient{index}" for index in range(1200)]
    for subset in shots_of(names(1200), labels, groups, [1, 5], 40, 0):
        assert subset.shots is not None
        assert counts_of(subset, labels) == [subset.shots] * 2


def test_a_group_may_hold_every_image_of_several_classes() -> None:
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 2, 2])
    groups = ["both", "both", "both", "both", "c", "d", "e", "f"]
    for subset in shots_of(names(8), labels, groups, [1], 5, 0):
        assert counts_of(subset, labels) == [2, 2, 1]


def test_draws_differ_and_identical_ones_come_once() -> None:
    labels = torch.arange(400) % 4
    subsets = fractions_of(names(400), labels, None, [0.1, 1.0], 5, 0)
    assert [(subset.fraction, subset.draw) for subset in subsets] == [(0.1, draw) for draw in range(5)] + [(1.0, 0)]
    # The only group with class 0 has class 1 as well: there is one way to draw a shot.
    single = shots_of(names(6), torch.tensor([0, 1, 1, 1, 1, 1]), ["a", "a", "b", "b", "b", "b"], [1], 5, 0)
    assert [(subset.draw, subset.indices.tolist()) for subset in single] == [(0, [0, 1])]


def test_draws_differ_where_all_groups_are_of_different_sizes() -> None:
    labels = torch.tensor([label for label in range(2) for size in range(3, 9) for _ in range(size)])
    groups = [f"{label} {size}" for label in range(2) for size in range(3, 9) for _ in range(size)]
    assert len(shots_of(names(len(groups)), labels, groups, [1], 10, 0)) >= 5


def test_the_seed_decides() -> None:
    labels = torch.arange(100) % 2
    drawn = [fractions_of(names(100), labels, None, [0.1], 1, seed)[0].indices.tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_draw_of_today_is_that_of_tomorrow() -> None:
    labels = torch.arange(40) % 2
    groups = [f"patient{index // 3}" for index in range(40)]
    assert fractions_of(names(40), labels, groups, [0.2], 1, 0)[0].indices.tolist() == [
        3,
        4,
        5,
        6,
        7,
        8,
        24,
        25,
        26,
        39,
    ]


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, float("nan"), float("inf")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match="above 0 and at most 1"):
        fractions_of(names(4), torch.tensor([0, 1, 0, 1]), None, [0.5, fraction], 1, 0)


def test_shots_and_draws_below_one_are_refused() -> None:
    labels = torch.tensor([0, 1, 0, 1])
    with pytest.raises(UserError, match=r"per class is 0; it must be 1"):
        shots_of(names(4), labels, None, [1, 0], 1, 0)
    for function in (fractions_of, shots_of):
        with pytest.raises(UserError, match=r"draws is 0; it must be 1"):
            function(names(4), labels, None, [1], 0, 0)


@pytest.mark.parametrize(
    ("labels", "classes"), [(None, 0), (torch.tensor([-1, -1, -1]), 0), (torch.tensor([2, -1, 2]), 1)]
)
def test_fewer_than_two_classes_are_refused(labels: Tensor | None, classes: int) -> None:
    for function in (fractions_of, shots_of):
        with pytest.raises(UserError, match=f"of {classes} class.*--label-column"):
            function(names(3), labels, None, [1], 1, 0)
