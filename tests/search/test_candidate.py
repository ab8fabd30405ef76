import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabel.errors import UserError
from fewlabel.search.candidate import Candidate

multipliers = st.floats(0.1, 10)
numbers = st.none() | st.floats(1e-6, 10)


@given(st.builds(Candidate, multipliers, multipliers, multipliers, numbers, numbers, numbers, numbers))
@settings(deadline=None)
def test_a_candidate_is_read_back_as_written(candidate: Candidate) -> None:
    assert Candidate.from_json(candidate.as_json()) == candidate


def test_what_is_not_searched_is_not_written() -> None:
    assert Candidate(1.2, lr=0.01).as_json() == {"depth": 1.2, "width": 1.0, "resolution": 1.0, "lr": 0.01}


def test_the_scale_has_the_multipliers() -> None:
    scale = Candidate(1.2, 1.1, 1.15).scale
    assert (scale.depth, scale.width, scale.resolution) == (1.2, 1.1, 1.15)


@pytest.mark.parametrize("values", [{"depht": 1.2}, {"depth": "deep"}, {"depth": True}])
def test_what_is_no_candidate_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(UserError, match="depth"):
        Candidate.from_json(values)


def test_importing_it_loads_neither_torch_nor_optuna() -> None:
    code = "import sys, fewlabel.search.candidate; sys.exit(bool({'torch', 'optuna'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
