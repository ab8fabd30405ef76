"""MobileNet: published sizes, its scaled ones, and what a depthwise-separable convolution costs."""

import pytest
import timm
import torch

from fewlabel.backbones.registry import create
from fewlabel.backbones.scale import Scale
from fewlabel.errors import UserError

PUBLISHED = {
    "mobilenetv1_100": (3_206_976, 1024),
    "mobilenetv1_125": (4_989_840, 1280),
    "mobilenetv2_035": (396_128, 1280),
    "mobilenetv2_050": (687_680, 1280),
    "mobilenetv2_100": (2_223_872, 1280),
    "mobilenetv2_140": (4_315_776, 1792),
    "mobilenetv3_small_050": (568_224, 1024),
    "mobilenetv3_small_100": (1_517_856, 1024),
    "mobilenetv3_large_100": (4_202_032, 1280),
    "mobilenetv4_conv_small": (2_493_024, 1280),
}
PHI_TWO = Scale(1.2**2, 1.1**2)
NEARLY_ONE = Scale(1.0, 1.0 + 1e-9)
"""Scaled by nothing to speak of: made by the class's own constructor, and of the published size."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_members_have_their_published_size(size_of, name):
    assert size_of(name, 224) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_scaled_construction_begins_at_the_published_network(name, random_images):
    scaled = create(name, image_size=64, scale=NEARLY_ONE, small_stem=False).eval()
    published = timm.create_model(name, num_classes=0).eval()
    assert list(scaled.body.state_dict()) == list(published.state_dict())
    published.load_state_dict(scaled.body.state_dict())
    images = random_images(2, 3, 64)
    with torch.no_grad():
        torch.testing.assert_close(scaled(images), published(images), rtol=0, atol=0)


def test_the_small_image_form_has_its_size(size_of):
    assert size_of("mobilenet", 32) == (2_223_872, 1280)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "mobilenetv1_100",
            [(192, 2_420_424), (224, 3_206_976), (256, 5_894_408), (296, 7_505_528), (344, 12_038_552)],
        ),
        (
            "mobilenetv2_100",
            [(192, 1_860_800), (224, 2_223_872), (256, 4_796_304), (296, 6_573_208), (344, 8_900_312)],
        ),
    ],
)
def test_compound_scaling_has_its_known_sizes(scaled_sizes, name, expected):
    assert scaled_sizes(name, 224) == expected


@pytest.mark.parametrize(
    ("name", "parameters"), [("mobilenetv3_large_100", 10_151_536), ("mobilenetv3_small_100", 3_686_784)]
)
def test_v3_scales_all_but_its_head(size_of, name, parameters):
    assert size_of(name, 224, PHI_TWO) == (parameters, PUBLISHED[name][1])


def test_depthwise_separable_convolutions_cost_one_over_n_plus_one_over_k_squared():
    """Howard et al. 2017, section 3.1: weights relative to a full convolution are 1/N + 1/K^2."""
    body = create("mobilenetv1_100", image_size=32).body
    seen = 0
    for block in [block for stage in body.blocks for block in stage]:
        depthwise, pointwise = block.conv_dw.weight, block.conv_pw.weight
        n, m, k = pointwise.shape[0], pointwise.shape[1], depthwise.shape[-1]
        split = depthwise.numel() + pointwise.numel()
        assert split / (n * m * k * k) == pytest.approx(1 / n + 1 / k**2, abs=1e-12)
        seen += 1
    assert seen == 13


def test_options_and_scales_that_a_member_lacks_are_refused(size_of):
    with pytest.raises(UserError, match="fixed output_stride of 32"):
        size_of("mobilenetv3_small_100", 32, output_stride=8)
    with pytest.raises(UserError, match="rounds a stage of 16 channels to nothing"):
        size_of("mobilenetv2_100", 32, Scale(width=0.2))
