"""The page about views says what the presets say."""

from pathlib import Path

import pytest

from fewlabel.data.presets import PRESETS

PAGE = (Path(__file__).parents[2] / "docs" / "views.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_the_page_gives_each_preset_s_reasons_and_figures(preset):
    assert preset.why in " ".join(PAGE.split())
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{preset.name}` |"))
    assert f"| {preset.min_area:.0%} |" in row
    assert f"| {preset.brightness:g}, {preset.contrast:g} | {preset.saturation:g}, {preset.hue:g} |" in row
    assert f"| {preset.blur:.0%} |" in row
