"""Scale: the compound rule and the rounding of depth, width and resolution."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewlabel.backbones.scale import Scale
from fewlabel.errors import UserError


def test_the_compound_rule_raises_each_base_to_phi():
    assert Scale.compound(0) == Scale()
    scale = Scale.compound(2)
    assert (scale.depth, scale.width, scale.resolution) == pytest.approx((1.44, 1.21, 1.3225))
    assert Scale.compound(-1, 2, 4, 5) == Scale(0.5, 0.25, 0.2)


@pytest.mark.parametrize(
    ("width", "number", "multiple", "expected"),
    [(1.1, 16, 8, 16), (1.1, 112, 8, 120), (0.35, 24, 8, 8), (1.1, 192, 24, 216), (1.0, 13, 8, 13)],
)
def test_widths_round_to_multiples(width, number, multiple, expected):
    assert Scale(width=width).channels(number, multiple) == expected


@given(width=st.floats(0.1, 10), number=st.integers(8, 4096), multiple=st.sampled_from([8, 16, 24, 64]))
def test_widths_are_multiples_near_the_exact_width(width, number, multiple):
    if width * number < multiple / 2 or width == 1:
        return
    rounded = Scale(width=width).channels(number, multiple)
    assert rounded % multiple == 0
    assert rounded >= 0.9 * width * number
    assert abs(rounded - width * number) <= multiple


@pytest.mark.parametrize(
    ("depth", "number", "multiple", "expected"),
    [(1.2, 2, 1, 2), (1.25, 2, 1, 3), (1.2, 6, 2, 8), (1.2, 2, 2, 2), (0.5, 1, 1, 1), (1.0, 3, 2, 3)],
)
def test_depths_round_to_the_nearest_halves_up(depth, number, multiple, expected):
    assert Scale(depth=depth).blocks(number, multiple) == expected


@pytest.mark.parametrize(
    ("resolution", "size", "multiple", "expected"),
    [(1.15, 224, 8, 256), (1.15, 224, 16, 256), (1.15, 32, 1, 37), (1.0, 225, 8, 225), (0.1, 32, 1, 3)],
)
def test_resolutions_round_to_multiples(resolution, size, multiple, expected):
    assert Scale(resolution=resolution).side(size, multiple) == expected


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: Scale(depth=0.4).blocks(1), "nothing: take at least 0.5"),
        (lambda: Scale(depth=0.4).blocks(2, 2), "nothing: take at least 0.5"),
        (lambda: Scale(width=0.2).channels(16), "nothing, as they come in multiples of 8: take at least 0.25"),
        (lambda: Scale(resolution=0.1).side(64, 32), "nothing, as this backbone takes multiples of 32 px"),
        (lambda: Scale(depth=0.0), "depth multiplier is 0.0"),
        (lambda: Scale(width=float("nan")), "width multiplier is nan"),
        (lambda: Scale(resolution="2"), "resolution multiplier is '2'"),
        (lambda: Scale(depth=True), "depth multiplier is True"),
        (lambda: Scale.compound(100), "multiplier"),
        (lambda: Scale.compound(10**6), "no compound scaling"),
        (lambda: Scale.compound(0.5, alpha=-1.0), "no compound scaling"),
    ],
)
def test_what_makes_no_sense_is_refused(call, hint):
    with pytest.raises(UserError, match=hint):
        call()
