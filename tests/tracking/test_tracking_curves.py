"""The curves of a run as they are read and drawn."""

import io
import json
import math

import numpy as np
from PIL import Image

from fewlabel.tracking.curves import curve_png, series_of


def test_curves_are_read_while_they_are_written(tmp_path):
    file = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": 1, "loss": 2.5}), "{ damaged", json.dumps({"step": 2, "loss": None, "rank": 3})]
    file.write_text("\n".join(lines) + '\n{"step": 3, "lo')
    before = file.read_bytes()
    series = series_of(file)
    assert series["loss"][0] == [1, 2]
    assert series["loss"][1][0] == 2.5
    assert math.isnan(series["loss"][1][1])
    assert series["rank"] == ([2], [3.0])
    assert file.read_bytes() == before
    assert series_of(tmp_path / "none") == {}


def test_a_curve_is_drawn_without_a_background_and_broken_where_a_value_is_missing():
    def inked(values):
        pixels = np.asarray(Image.open(io.BytesIO(curve_png(range(len(values)), values))).convert("RGBA")).astype(int)
        assert pixels[0, 0, 3] == 0
        return (np.abs(pixels[..., :3] - (0x2F, 0x8F, 0xD0)).sum(axis=2) < 30).sum()

    whole = [0.0, 1.0] * 30
    assert inked(whole) > 2 * inked([*whole[:20], *[math.nan] * 39, 1.0]) > 0
