"""Answers on disk: the same back, and nothing from half a file."""

import pytest
import torch

from fewlabel.supervised.answers import Answer, AnswerFolder


@pytest.fixture
def folder(tmp_path):
    return AnswerFolder(tmp_path / "answers")


@pytest.mark.parametrize("with_val", [True, False])
def test_an_answer_comes_back_as_it_was(folder, with_val):
    probabilities = torch.rand(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    answer = Answer(probabilities[:, :3], probabilities[:2, 3:] if with_val else None, {"penalty": 0.5, "by": "folds"})
    folder.put("probe", "0.1", 3, answer)
    found = folder.get("probe", "0.1", 3)
    assert torch.equal(found.test, answer.test)
    assert (found.val is not None) is with_val
    assert not with_val or torch.equal(found.val, answer.val)
    assert found.about == answer.about


def test_only_the_one_asked_for_is_found(folder):
    folder.put("probe", "0.1", 0, Answer(torch.ones(1, 2), None, {}))
    assert folder.get("probe", "0.1", 1) is None
    assert folder.get("probe", "1", 0) is None
    assert folder.get("knn", "0.1", 0) is None


def test_a_damaged_file_is_no_answer(folder):
    folder.put("probe", "0.1", 0, Answer(torch.ones(4, 2), None, {}))
    path = folder.place("probe", "0.1", 0)
    path.write_bytes(path.read_bytes()[:-9])
    assert folder.get("probe", "0.1", 0) is None
