import pytest

from fewlabel.supervised.config import FewLabelsConfig


@pytest.mark.parametrize(
    ("labelled", "classes", "shares"),
    [
        (4708, 2, (0.01, 0.1, 1.0)),
        (400, 2, (0.01, 0.1, 1.0)),
        (399, 2, (0.1, 1.0)),
        (1080, 50, (0.1, 1.0)),
        (59, 3, (0.5, 1.0)),
        (12, 3, (0.5, 1.0)),
        (11, 3, (1.0,)),
        (2, 2, (1.0,)),
    ],
)
def test_default_shares_hold_two_labels_of_a_class_at_least(
    labelled: int, classes: int, shares: tuple[float, ...]
) -> None:
    assert FewLabelsConfig().settled(labelled, classes).labels == shares


def test_what_the_user_names_stays() -> None:
    for asked in (FewLabelsConfig(labels=(0.01,)), FewLabelsConfig(shots=(1, 5))):
        assert asked.settled(20, 10) == asked
