"""Splits: no group on two sides, the shares and classes as asked, and nothing that depends on the order."""

import random
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabel.data.splits import divide, strata_of

SHARES = {"test": 0.2, "val": 0.1}

images = st.lists(
    st.tuples(st.integers(-1, 3), st.one_of(st.none(), st.integers(0, 12).map(str))), min_size=1, max_size=120
)


@settings(max_examples=150, deadline=None)
@given(images, st.integers(0, 5), st.randoms(use_true_random=False))
def test_groups_stay_whole_and_order_does_not_matter(
    rows: list[tuple[int, str | None]], seed: int, shuffler: random.Random
) -> None:
    ids = [f"image{index}" for index in range(len(rows))]
    labels, groups = [label for label, _ in rows], [group for _, group in rows]
    parts = divide(ids, labels, groups, SHARES, seed)
    assert sorted(index for part in parts.values() for index in part) == list(range(len(rows)))
    assert parts["train"]
    for group in set(groups) - {None}:
        holders = {name for name, part in parts.items() if any(groups[index] == group for index in part)}
        assert len(holders) == 1
    units = len(set(groups) - {None}) + groups.count(None)
    if units >= 3:
        assert parts["test"]
        assert parts["val"]

    order = list(range(len(rows)))
    shuffler.shuffle(order)
    again = divide([ids[i] for i in order], [labels[i] for i in order], [groups[i] for i in order], SHARES, seed)
    assert {name: {order[i] for i in part} for name, part in again.items()} == {
        name: set(part) for name, part in parts.items()
    }


def test_shares_hold_within_each_class() -> None:
    labels = [0] * 1000 + [1] * 200 + [2] * 50
    parts = divide([str(i) for i in range(1250)], labels, None, SHARES, 0)
    for name, share in (SHARES | {"train": 0.7}).items():
        counts = Counter(labels[index] for index in parts[name])
        for label, size in ((0, 1000), (1, 200), (2, 50)):
            assert abs(counts[label] - share * size) <= 1.5


def test_many_tiny_classes_together_give_their_share() -> None:
    labels = [index // 2 for index in range(400)]
    parts = divide([str(i) for i in range(400)], labels, None, {"test": 0.2}, 0)
    assert 78 <= len(parts["test"]) <= 82
    assert {labels[index] for index in parts["train"]} == set(range(200))


def test_large_groups_keep_to_the_share_as_well_as_they_can() -> None:
    groups = [str(index // 25) for index in range(1000)]
    parts = divide([str(i) for i in range(1000)], None, groups, SHARES, 3)
    assert len(parts["test"]) == 200
    assert len(parts["val"]) == 100


def test_a_group_larger_than_the_share_stays_in_train() -> None:
    groups: list[str | None] = ["big"] * 90 + [None] * 10
    parts = divide([str(i) for i in range(100)], None, groups, {"test": 0.1}, 0)
    assert set(range(90)) <= set(parts["train"])
    assert parts["test"]


def test_the_seed_changes_the_outcome() -> None:
    ids = [str(i) for i in range(100)]
    assert divide(ids, None, None, SHARES, 0) == divide(ids, None, None, SHARES, 0)
    assert divide(ids, None, None, SHARES, 0) != divide(ids, None, None, SHARES, 1)


def test_new_images_move_no_more_than_the_border() -> None:
    small = divide([str(i) for i in range(1000)], None, None, {"test": 0.2}, 0)
    large = divide([str(i) for i in range(1010)], None, None, {"test": 0.2}, 0)
    assert len(set(small["test"]) - set(large["test"])) <= 10


def test_an_image_of_several_labels_goes_by_its_rarest() -> None:
    labels = np.array([[1, 1, 0], [1, 0, 1], [1, 0, 0], [1, 0, 1], [0, 0, 0], [0, -1, 0], [-1, -1, -1]])
    assert strata_of(labels).tolist() == [1, 2, 0, 2, 3, 3, -1]


def test_a_group_goes_by_the_rarest_label_of_all_its_images() -> None:
    labels = np.array([[1, 0], [0, 1], [0, 0], [1, 0], [1, 0], [-1, -1], [0, 0]])
    groups = ["p", "p", "p", None, None, "q", "q"]
    # With the group's labels united, label 0 is on 5 images and label 1 on 3.
    assert strata_of(labels, groups).tolist() == [1, 1, 1, 0, 0, 2, 2]
