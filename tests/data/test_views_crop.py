"""Crops: drawn as torchvision draws them, and placed where the parameters say."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import kstest
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from fewlabel.data.crop import CropParameters, affine_maps, draw_crops, resample
from fewlabel.data.presets import PRESETS


def plain(count, **changes):
    """Parameters that show the whole image, except for the `changes`."""
    fields = {
        "box": torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(count, 1),
        "shift": torch.zeros(count, 2),
        "angle": torch.zeros(count),
        "shear": torch.zeros(count),
        "quarter_turns": torch.zeros(count, dtype=torch.long),
        "flip": torch.zeros(count, 2, dtype=torch.bool),
    }
    return CropParameters(**(fields | changes))


def smooth(count, side, channels=3):
    """Random images without detail finer than a sixteenth of their side."""
    coarse = torch.rand(count, channels, 16, 16, generator=torch.Generator().manual_seed(5))
    return torch.nn.functional.interpolate(coarse, size=side, mode="bicubic").clamp(0, 1)


def test_box_on_whole_pixels_equals_torchvision_resized_crop():
    images = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    boxes = [(4, 8, 20, 24), (0, 0, 40, 40), (12, 2, 28, 36)]  # left, top, width, height
    box = torch.tensor(boxes, dtype=torch.float32) / 40
    views = resample(images, affine_maps(plain(3, box=box), torch.ones(3)), 30, "border")
    for image, view, (left, top, width, height) in zip(images, views, boxes, strict=True):
        expected = reference.resized_crop(image, top, left, height, width, [30, 30], antialias=False)
        # The outermost pixels see the image beyond the box, where torchvision repeats the box's own edge.
        torch.testing.assert_close(view[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=1e-5, rtol=0)
        assert (view - expected).abs().max() < 0.6


def test_shrinking_by_the_stores_largest_factor_is_close_to_antialiased():
    images = smooth(4, 96)
    views = resample(images, affine_maps(plain(4), torch.ones(4)), 64, "border")
    expected = reference.resize(images, [64, 64], antialias=True)
    assert (views - expected).abs().mean() < 0.005


def test_quarter_turns_and_flips_move_whole_pixels():
    images = torch.rand(8, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    turns = torch.arange(8) % 4
    flip = torch.tensor([[False, False], [True, False], [False, True], [True, True]]).repeat_interleave(2, dim=0)
    views = resample(images, affine_maps(plain(8, quarter_turns=turns, flip=flip), torch.ones(8)), 12, "border")
    for image, view, turn, (across, down) in zip(images, views, turns.tolist(), flip.tolist(), strict=True):
        expected = reference.horizontal_flip(image) if across else image
        expected = reference.vertical_flip(expected) if down else expected
        torch.testing.assert_close(view, torch.rot90(expected, turn, (1, 2)), atol=1e-5, rtol=0)


def test_rotation_equals_torchvision_affine():
    images = smooth(2, 48)
    degrees = (10.0, -30.0)
    angle = torch.tensor([math.radians(value) for value in degrees])
    views = resample(images, affine_maps(plain(2, angle=angle), torch.ones(2)), 48, "border")
    for image, view, value in zip(images, views, degrees, strict=True):
        # Turning the box clockwise turns what it shows anticlockwise, as torchvision's rotate counts.
        expected = reference.rotate(image, value, interpolation=v2.InterpolationMode.BILINEAR)
        inside = (slice(None), slice(14, 34), slice(14, 34))
        torch.testing.assert_close(view[inside], expected[inside], atol=1e-4, rtol=0)


def test_shear_and_shift_equal_torchvisions():
    images = smooth(2, 48)
    parameters = plain(
        2, shear=torch.tensor([math.radians(8.0), 0.0]), shift=torch.tensor([[0.0, 0.0], [1 / 12, -1 / 24]])
    )
    views = resample(images, affine_maps(parameters, torch.ones(2)), 48, "border")
    bilinear = v2.InterpolationMode.BILINEAR
    slanted = reference.affine(images[0], 0.0, [0, 0], 1.0, [8.0, 0.0], interpolation=bilinear)
    # The box moves right and up, so that what is seen moves left and down.
    moved = reference.affine(images[1], 0.0, [-4, 2], 1.0, [0.0, 0.0], interpolation=bilinear)
    for view, expected in zip(views, (slanted, moved), strict=True):
        torch.testing.assert_close(view[:, 12:36, 12:36], expected[:, 12:36, 12:36], atol=1e-4, rtol=0)


def test_rotation_keeps_circles_round_in_the_original_shape():
    """A disc on a picture twice as wide as high, stored as a square: a turned square crop shows a disc."""
    side, aspect = 200, 2.0
    down, across = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    disc = ((across / side * aspect - 1) ** 2 + (down / side - 0.5) ** 2 < 0.3**2).float()
    box = torch.tensor([[0.25, 0.0, 0.5, 1.0]])
    parameters = plain(1, box=box, angle=torch.tensor([math.radians(30.0)]))
    view = resample(disc[None, None], affine_maps(parameters, torch.tensor([aspect])), 100, "border")[0, 0]
    places = torch.arange(100) + 0.5 - 50
    radius = (places[:, None] ** 2 + places[None] ** 2).sqrt()
    assert view[radius < 28].min() > 0.99
    assert view[radius > 32].max() < 0.01


@pytest.mark.parametrize(("width", "height"), [(1000, 1000), (1600, 1000), (500, 1500)])
def test_boxes_are_distributed_as_torchvisions(width, height):
    torch.manual_seed(0)
    transform = v2.RandomResizedCrop(8)
    image = torch.empty(3, height, width)
    expected = [transform.make_params([image]) for _ in range(1500)]
    aspect = torch.full((3000,), width / height)
    box = draw_crops(PRESETS["natural"], aspect, torch.Generator().manual_seed(1)).box.double()
    # On whole pixels, as torchvision's are.
    box[:, 2:] = (box[:, 2:] * torch.tensor([width, height])).round()
    ours = {
        "area": box[:, 2] * box[:, 3] / (width * height),
        "ratio": box[:, 2] / box[:, 3],
        "left": (box[:, 0] * width).floor() / width,
        "top": (box[:, 1] * height).floor() / height,
    }
    theirs = {
        "area": [p["width"] * p["height"] / (width * height) for p in expected],
        "ratio": [p["width"] / p["height"] for p in expected],
        "left": [p["left"] / width for p in expected],
        "top": [p["top"] / height for p in expected],
    }
    for name in ours:
        assert kstest(ours[name].numpy(), theirs[name]).statistic < 0.05, name


def test_boxes_stay_inside_and_respect_the_smallest_area():
    aspect = torch.tensor([0.2, 0.75, 1.0, 1.5, 6.0]).repeat_interleave(500)
    box = draw_crops(replace(PRESETS["natural"], min_area=0.4), aspect, torch.Generator().manual_seed(0)).box
    assert box.min() >= 0
    assert (box[:, :2] + box[:, 2:]).max() <= 1 + 1e-6
    ratio = box[:, 2] * aspect / box[:, 3]
    assert ratio.min() > 0.7499
    assert ratio.max() < 1.3334
    normal = (aspect >= 0.75) & (aspect <= 1.5)
    assert (box[:, 2] * box[:, 3])[normal].min() >= 0.4 - 1e-6


def test_nothing_is_cropped_where_all_of_the_area_is_to_show():
    aspect = torch.tensor([0.2, 0.75, 1.0, 1.5, 6.0])
    box = draw_crops(replace(PRESETS["natural"], min_area=1.0), aspect, torch.Generator().manual_seed(0)).box
    torch.testing.assert_close(box, torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(5, 4))


def test_no_box_fits_a_very_wide_image_so_the_centre_is_taken():
    preset = replace(PRESETS["natural"], min_area=0.9)
    box = draw_crops(preset, torch.tensor([6.0, 0.1]), torch.Generator().manual_seed(0)).box
    wide = torch.tensor([(1 - 4 / 3 / 6) / 2, 0.0, 4 / 3 / 6, 1.0])
    tall = torch.tensor([0.0, (1 - 0.1 * 4 / 3) / 2, 1.0, 0.1 * 4 / 3])
    torch.testing.assert_close(box, torch.stack((wide, tall)))


def test_other_draws_follow_the_preset():
    preset = replace(PRESETS["digits"], horizontal_flip=0.3, vertical_flip=0.7, quarter_turns=True)
    drawn = draw_crops(preset, torch.ones(4000), torch.Generator().manual_seed(0))
    assert drawn.flip.float().mean(0).tolist() == pytest.approx([0.3, 0.7], abs=0.03)
    assert (drawn.quarter_turns.bincount() / 4000).tolist() == pytest.approx([0.25] * 4, abs=0.03)
    for values, limit in (
        (drawn.angle, math.radians(15)),
        (drawn.shear, math.radians(10)),
        (drawn.shift, 0.05),
    ):
        assert kstest(values.flatten().numpy(), "uniform", args=(-limit, 2 * limit)).statistic < 0.03
