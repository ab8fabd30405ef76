"""What is measured of an image means what it says, at either depth and any size."""

import numpy as np
import pytest
import torch
from made_collections import textures
from PIL import Image, ImageFilter

from fewlabel.cleaning.measures import MEASURES, measure


def checked(pixels):
    measured = measure(np.asarray(pixels))
    assert set(measured.values) < set(MEASURES)
    return measured.values


def test_a_sharp_edge_is_as_sharp_as_the_step_is_high():
    step = np.zeros((64, 64, 1), np.uint8)
    step[:, 32:] = 200
    values = checked(step)
    # The Laplacian of a step is its height on either side, and its contrast is the height too.
    assert values["sharpness"] == pytest.approx(1)
    assert values["contrast"] == pytest.approx(200 / 255)
    assert values["range"] == 200
    assert values["brightness"] == pytest.approx(100 / 255)
    assert (values["dark_level"], values["bright_level"]) == (0, pytest.approx(200 / 255))
    assert values["laplacian"] == pytest.approx(200**2 * 2 / 62)


def test_blur_takes_the_sharpness_and_contrast_does_not():
    image = Image.fromarray(textures(1, side=200)[0])
    sharp = checked(image)["sharpness"]
    blurred = [checked(image.filter(ImageFilter.GaussianBlur(sigma)))["sharpness"] for sigma in (1, 2, 4)]
    assert sharp > 2 * blurred[0] > 4 * blurred[1] > 6 * blurred[2]
    faint = np.rint(np.asarray(image) * 0.5 + 60).astype(np.uint8)
    assert checked(faint)["sharpness"] == pytest.approx(sharp, rel=0.1)


def test_sixteen_bits_are_measured_like_eight():
    eight = textures(1, side=80)[0]
    deep = eight.astype(np.uint16) * 257
    for name, value in checked(eight).items():
        assert checked(deep)[name] == pytest.approx(value * (257 if name == "range" else 1), rel=1e-3)
    # A dark image in the low bits of 16 is not flat: its levels are many.
    assert checked(eight.astype(np.uint16))["range"] == checked(eight)["range"]


def test_size_hardly_changes_the_measures():
    image = textures(1, side=256)[0]
    small, large = checked(image), checked(image.repeat(4, axis=0).repeat(4, axis=1))
    assert large["brightness"] == pytest.approx(small["brightness"], abs=0.01)
    assert large["contrast"] == pytest.approx(small["contrast"], rel=0.2)
    edge = np.zeros((1024, 1024, 1), np.uint8)
    edge[:, 512:] = 200
    assert 0.6 < checked(edge)["sharpness"] <= 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 300), (1, 5000)])
def test_slivers_have_no_sharpness_and_all_the_rest(height, width):
    values = checked(np.full((height, width, 3), 9, np.uint8))
    assert np.isnan(values["sharpness"])
    assert values["range"] == 0
    assert values["brightness"] == pytest.approx(9 / 255)


def test_colour_is_what_channels_differ_by():
    grey = np.repeat(textures(1)[0][:, :, :1], 3, axis=2)
    assert checked(grey)["colour"] == 0
    grey[0, 0] = (10, 60, 10)
    assert checked(grey)["colour"] == pytest.approx(50 / 255)


def test_the_picture_is_the_image_in_grey_at_32_pixels():
    pixels = textures(1, side=200)[0][:, :150]
    grey = torch.from_numpy(np.asarray(Image.fromarray(pixels).convert("L"), np.float32) / 255)
    shrunk = torch.nn.functional.interpolate(grey[None, None], (32, 32), mode="bilinear", antialias=True)[0, 0]
    assert np.abs(measure(pixels).picture - shrunk.numpy()).max() < 0.005
