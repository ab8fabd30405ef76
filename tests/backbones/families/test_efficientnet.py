"""EfficientNet: published sizes, and the compound scaling that the name stands for."""

import pytest
import timm
import torch

from fewlabel.backbones.families.efficientnet import PUBLISHED as MULTIPLIERS
from fewlabel.backbones.registry import create
from fewlabel.backbones.scale import Scale

PUBLISHED = {
    "efficientnet_b0": (4_007_548, 1280),
    "efficientnet_b1": (6_513_184, 1280),
    "efficientnet_b2": (7_700_994, 1408),
    "efficientnet_b3": (10_696_232, 1536),
    "efficientnet_b4": (17_548_616, 1792),
    "efficientnet_b5": (28_340_784, 2048),
    "efficientnet_b6": (40_735_704, 2304),
    "efficientnet_b7": (63_786_960, 2560),
    "efficientnet_lite0": (3_371_008, 1280),
    "tf_efficientnetv2_s": (20_177_488, 1280),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_members_have_their_published_size(size_of, name):
    assert size_of(name, 224) == PUBLISHED[name]


@pytest.mark.parametrize("name", MULTIPLIERS)
def test_the_published_multipliers_make_the_published_networks_of_b0(size_of, name):
    assert size_of("efficientnet_b0", 224, MULTIPLIERS[name]) == PUBLISHED[name]


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite0", "tf_efficientnetv2_s"])
def test_the_scaled_construction_begins_at_the_published_network(name, random_images):
    scaled = create(name, image_size=64, scale=Scale(1.0, 1.0 + 1e-9), small_stem=False).eval()
    published = timm.create_model(name, num_classes=0).eval()
    assert list(scaled.body.state_dict()) == list(published.state_dict())
    published.load_state_dict(scaled.body.state_dict())
    images = random_images(2, 3, 64)
    with torch.no_grad():
        torch.testing.assert_close(scaled(images), published(images), rtol=0, atol=0)


def test_phi_one_is_exactly_b2(random_images):
    scaled = create("efficientnet_b0", image_size=64, scale=Scale.compound(1), small_stem=False).eval()
    published = timm.create_model("efficientnet_b2", num_classes=0).eval()
    published.load_state_dict(scaled.body.state_dict())
    images = random_images(1, 3, scaled.image_size)
    with torch.no_grad():
        torch.testing.assert_close(scaled(images), published(images), rtol=0, atol=0)


def test_compound_scaling_has_its_known_sizes(scaled_sizes, size_of):
    expected = [(192, 3_387_152), (224, 4_007_548), (256, 7_700_994), (296, 10_702_408), (344, 14_645_296)]
    assert scaled_sizes("efficientnet_b0", 224) == expected
    further = {4: 24_043_448, 5: 31_661_740, 6: 43_199_648, 7: 66_244_810}
    assert {phi: size_of("efficientnet_b0", 224, Scale.compound(phi))[0] for phi in further} == further


def test_it_shrinks_too(size_of):
    assert size_of("efficientnet_b0", 224, Scale(0.5, 0.5))[0] == 657_120


def test_the_small_image_form_has_its_size(size_of):
    assert size_of("efficientnet", 32) == (4_007_548, 1280)
