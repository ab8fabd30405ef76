"""The most confident mistakes are mistakes, in the order of confidence, and name the right images."""

import numpy as np
import pytest

from fewlabel.supervised.metrics import Predictions
from fewlabel.supervised.mistakes import Mistake, most_confident_mistakes

LABELS = np.array([0, 1, 1, 0, 2, 2])


def said(rows, labels=LABELS):
    return Predictions(np.array(rows), labels, threshold=None, ordinal=False)


def test_the_mean_over_draws_decides_what_is_wrong_and_how_sure():
    first = [[0.9, 0.1, 0], [0.8, 0.2, 0], [0.6, 0.4, 0], [0.9, 0.1, 0], [0.1, 0.9, 0], [0, 0.2, 0.8]]
    second = [[0.9, 0.1, 0], [0.6, 0.4, 0], [0.0, 1.0, 0], [0.9, 0.1, 0], [0.2, 0.8, 0], [0, 0.4, 0.6]]
    found = most_confident_mistakes([said(first), said(second)], list("abcdef"), 10)
    # Of image c one draw is wrong and the other right, and surer.
    assert found == [
        Mistake(4, "e", label=2, predicted=1, confidence=pytest.approx(0.85), column=None),
        Mistake(1, "b", label=1, predicted=0, confidence=pytest.approx(0.7), column=None),
    ]
    assert most_confident_mistakes([said(first), said(second)], list("abcdef"), 1) == found[:1]


def test_equals_keep_the_order_of_the_images():
    wrong = said(np.eye(3)[[1, 0, 0, 1, 0, 0]])
    assert [mistake.id for mistake in most_confident_mistakes([wrong], list("abcdef"), 4)] == list("abcd")


def test_none_where_all_is_right():
    assert most_confident_mistakes([said(np.eye(3)[LABELS])], list("abcdef"), 4) == []


def test_each_known_label_of_an_image_is_a_decision():
    labels = np.array([[1, 0], [0, -1], [1, 1]])
    draws = [said([[0.2, 0.9], [0.4, 0.99], [0.5, 0.7]], labels)]
    found = most_confident_mistakes(draws, ["a", "b", "c"], 10)
    assert found == [
        Mistake(0, "a", label=0, predicted=1, confidence=pytest.approx(0.9), column=1),
        Mistake(0, "a", label=1, predicted=0, confidence=pytest.approx(0.8), column=0),
        # As everywhere, a probability of 0.5 is a no.
        Mistake(2, "c", label=1, predicted=0, confidence=pytest.approx(0.5), column=0),
    ]


def test_ids_of_other_images_are_refused():
    with pytest.raises(ValueError, match="expected 6 ids, not 2"):
        most_confident_mistakes([said(np.eye(3)[LABELS])], ["a", "b"], 4)
