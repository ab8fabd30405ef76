"""Blur: equal to torchvision's for the same sigma and kernel."""

import pytest
import torch
from scipy.stats import kstest
from torchvision.transforms.v2 import functional as reference

from fewlabel.data.blur import blur, draw_sigmas, kernel_radius
from fewlabel.data.presets import PRESETS


@pytest.mark.parametrize(("size", "radius", "channels"), [(224, 11, 3), (96, 4, 1), (130, 6, 5), (33, 9, 3)])
def test_equals_torchvisions(size, radius, channels):
    images = torch.rand(4, channels, size, size, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 0.7, 1.3, 2.0])
    together = blur(images, sigma, radius)
    for image, blurred, value in zip(images, together, sigma.tolist(), strict=True):
        alone = blur(image[None], torch.tensor([value]), radius)[0]
        expected = reference.gaussian_blur(image, [2 * radius + 1] * 2, [value, value])
        torch.testing.assert_close(blurred, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(alone, expected, atol=1e-5, rtol=0)


def test_kernel_is_a_tenth_of_the_view():
    assert [kernel_radius(size) for size in (224, 96, 128, 16)] == [11, 4, 6, 0]


def test_half_the_views_draw_a_sigma_uniformly():
    sigma = draw_sigmas(PRESETS["natural"], 6000, torch.Generator().manual_seed(0))
    drawn = sigma[sigma > 0]
    assert len(drawn) / 6000 == pytest.approx(0.5, abs=0.02)
    assert kstest(drawn.numpy(), "uniform", args=(0.1, 1.9)).statistic < 0.03
    assert not draw_sigmas(PRESETS["digits"], 100, torch.Generator().manual_seed(0)).any()
