"""Colour distortion: each change equals torchvision's, in the drawn order, drawn as torchvision draws."""

from itertools import permutations

import pytest
import torch
from scipy.stats import kstest
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from fewlabel.data.colour import ColourParameters, distort_colours, draw_colours
from fewlabel.data.presets import PRESETS

CHANGES = (
    reference.adjust_brightness,
    reference.adjust_contrast,
    reference.adjust_saturation,
    reference.adjust_hue,
)


def images_with_ties(count, channels=3, side=9):
    """Random values, with pixels that are black, white, grey, or have two equal channels."""
    images = torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(3))
    images[:, :, 0, 0], images[:, :, 0, 1], images[:, :, 0, 2] = 0, 1, 0.5
    if channels == 3:
        images[:, 0, 1] = images[:, 1, 1]
        images[:, 1, 2] = images[:, 2, 2]
        images[:, 0, 3] = images[:, 2, 3]
    return images


def torchvision_distorted(image, order, factors, greyscale):
    for change in order:
        if change >= 0:
            image = CHANGES[change](image, factors[change])
    return reference.rgb_to_grayscale(image, num_output_channels=3) if greyscale else image


@pytest.mark.parametrize("change", range(4))
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_one_change_equals_torchvisions(change, strength):
    images = images_with_ties(16)
    spread = torch.tensor([0.8, 0.8, 0.8, 0.2]) * strength
    factors = torch.linspace(-1, 1, 16)[:, None] * spread + torch.tensor([1.0, 1.0, 1.0, 0.0])
    order = torch.tensor([change, -1, -1, -1]).repeat(16, 1)
    ours = images.clone()
    distort_colours(ours, ColourParameters(order, factors, torch.zeros(16, dtype=torch.bool)))
    for before, after, factor in zip(images, ours, factors.tolist(), strict=True):
        torch.testing.assert_close(after, CHANGES[change](before, factor[change]), atol=1e-5, rtol=0)


def test_hue_by_up_to_half_a_circle():
    images = images_with_ties(11)
    turns = torch.linspace(-0.5, 0.5, 11)
    factors = torch.stack((turns,) * 4, dim=1)
    ours = images.clone()
    distort_colours(ours, ColourParameters(torch.full((11, 1), 3), factors, torch.zeros(11, dtype=torch.bool)))
    for before, after, turn in zip(images, ours, turns.tolist(), strict=True):
        torch.testing.assert_close(after, reference.adjust_hue(before, turn), atol=1e-5, rtol=0)


def test_every_order_equals_torchvisions_image_by_image():
    orders = [*permutations(range(4)), (-1, -1, -1, -1), (1, -1, 0, -1)]
    count = len(orders)
    images = images_with_ties(count)
    factors = draw_colours(PRESETS["natural"], 1.0, 3, count, torch.Generator().manual_seed(0)).factors
    greyscale = torch.arange(count) % 3 == 0
    ours = images.clone()
    distort_colours(ours, ColourParameters(torch.tensor(orders), factors, greyscale))
    for i in range(count):
        expected = torchvision_distorted(images[i], orders[i], factors[i].tolist(), bool(greyscale[i]))
        torch.testing.assert_close(ours[i], expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 5])
def test_other_channels_know_only_brightness_and_contrast(channels):
    drawn = draw_colours(PRESETS["natural"], 1.0, channels, 200, torch.Generator().manual_seed(0))
    assert set(drawn.order.unique().tolist()) == {-1, 0, 1}
    assert not drawn.greyscale.any()
    images = images_with_ties(200, channels)
    ours = images.clone()
    distort_colours(ours, drawn)
    for i in range(200):
        expected = images[i]
        for change in drawn.order[i].tolist():
            factor = float(drawn.factors[i, change])
            if change == 0:
                expected = (expected * factor).clamp(0, 1)
            elif change == 1:
                expected = (expected * factor + expected.mean() * (1 - factor)).clamp(0, 1)
        torch.testing.assert_close(ours[i], expected, atol=1e-5, rtol=0)


def test_draws_are_distributed_as_torchvisions():
    torch.manual_seed(0)
    transform = v2.ColorJitter(0.8, 0.8, 0.8, 0.2)
    theirs = [transform.make_params([]) for _ in range(1500)]
    drawn = draw_colours(PRESETS["natural"], 1.0, 3, 6000, torch.Generator().manual_seed(1))
    for column, name in enumerate(("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")):
        statistic = kstest(drawn.factors[:, column].numpy(), [values[name] for values in theirs]).statistic
        assert statistic < 0.05, name
    applied = drawn.order[:, 0] >= 0
    assert applied.float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert drawn.greyscale.float().mean().item() == pytest.approx(0.2, abs=0.02)
    codes = (drawn.order[applied] * torch.tensor([64, 16, 4, 1])).sum(1)
    values, counts = codes.unique(return_counts=True)
    assert len(values) == 24
    assert (counts / counts.sum() - 1 / 24).abs().max() < 0.012


def test_strength_multiplies_the_spread_and_zero_strength_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    drawn = draw_colours(PRESETS["natural"], 0.5, 3, 4000, generator)
    low, high = drawn.factors.min(0).values, drawn.factors.max(0).values
    torch.testing.assert_close(low, torch.tensor([0.6, 0.6, 0.6, -0.1]), atol=0.005, rtol=0)
    torch.testing.assert_close(high, torch.tensor([1.4, 1.4, 1.4, 0.1]), atol=0.005, rtol=0)
    assert (draw_colours(PRESETS["natural"], 0.0, 3, 100, generator).order == -1).all()
    strong = draw_colours(PRESETS["natural"], 2.0, 3, 4000, generator).factors
    assert 0 <= strong[:, :3].min() < 0.01
