"""Presets: what each may change, and how a name is found."""

import subprocess
import sys

import pytest

from fewlabel.data.presets import PRESETS, preset_named, resolve_preset
from fewlabel.errors import UserError


def test_all_six_are_there_and_say_why():
    assert list(PRESETS) == ["natural", "xray", "fundus", "histology", "dermoscopy", "digits"]
    assert all(len(preset.why) > 200 for preset in PRESETS.values())


def test_natural_is_simclr_appendix_a():
    natural = PRESETS["natural"]
    assert (natural.min_area, natural.horizontal_flip, natural.vertical_flip) == (0.08, 0.5, 0.0)
    assert (natural.brightness, natural.contrast, natural.saturation, natural.hue) == (0.8, 0.8, 0.8, 0.2)
    assert (natural.colour_probability, natural.greyscale, natural.blur) == (0.8, 0.2, 0.5)
    assert (natural.rotation, natural.shear, natural.shift, natural.quarter_turns) == (0, 0, 0, False)


@pytest.mark.parametrize("name", ["xray", "digits"])
def test_what_has_a_side_is_never_mirrored_and_grey_has_no_hue(name):
    preset = PRESETS[name]
    assert preset.horizontal_flip == preset.vertical_flip == 0
    assert not preset.quarter_turns
    assert preset.saturation == preset.hue == preset.greyscale == 0


@pytest.mark.parametrize("name", ["fundus", "dermoscopy"])
def test_diagnostic_colour_is_kept(name):
    assert PRESETS[name].hue <= 0.02
    assert PRESETS[name].greyscale == 0


@pytest.mark.parametrize(
    ("name", "hint", "channels", "expected"),
    [
        ("auto", "digits", 1, "digits"),
        ("auto", "histology", 3, "histology"),
        ("auto", None, 1, "xray"),
        ("auto", None, 3, "natural"),
        ("auto", None, 5, "natural"),
        ("fundus", "digits", 1, "fundus"),
    ],
)
def test_resolve(name, hint, channels, expected):
    assert resolve_preset(name, hint, channels) == expected


def test_unknown_name_gives_the_nearest():
    with pytest.raises(UserError, match=r"'histologie'.*Did you mean histology.*natural, xray"):
        resolve_preset("histologie", None, 3)
    with pytest.raises(UserError, match=r"'qqq'.*auto or one of"):
        preset_named("qqq")


def test_presets_import_no_torch():
    code = "import sys, fewlabel.data.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
