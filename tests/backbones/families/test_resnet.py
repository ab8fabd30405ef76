"""ResNet: published sizes, its scaled ones, and its small-image stem."""

import pytest
import timm
import torch
from torch.nn import functional as F

from fewlabel.backbones.registry import create
from fewlabel.backbones.scale import Scale
from fewlabel.backbones.stem import use_small_stem
from fewlabel.errors import UserError

# At the size it was designed for: parameters without a classifier, feature width.
PUBLISHED = {
    "resnet10t": (4_922_488, 512),
    "resnet18": (11_176_512, 512),
    "resnet26": (13_946_176, 2048),
    "resnet34": (21_284_672, 512),
    "resnet50": (23_508_032, 2048),
    "resnet50d": (23_527_264, 2048),
    "resnet101": (42_500_160, 2048),
    "resnet152": (58_143_808, 2048),
    "resnetv2_18": (11_174_720, 512),
    "resnetv2_50": (23_500_352, 2048),
    "wide_resnet50_2": (66_834_240, 2048),
    "resnext50_32x4d": (22_979_904, 2048),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_members_have_their_published_size(size_of, name):
    assert size_of(name, 224) == PUBLISHED[name]


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("resnet", {}, 11_168_832),
        ("resnet34", {}, 21_276_992),
        ("resnet50", {}, 23_500_352),
        ("resnet50", {"small_stem": False}, 23_508_032),
        # 3x3 for 7x7 over 3 channels and 64 filters.
        ("resnetv2_18", {}, 11_174_720 - 40 * 3 * 64),
        # A deep stem is 3x3 already.
        ("resnet50d", {}, 23_527_264),
    ],
)
def test_small_image_forms_have_their_size(size_of, name, options, parameters):
    assert size_of(name, 32, **options)[0] == parameters


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "resnet18",
            [(192, 9_215_888), (224, 11_176_512), (256, 13_424_896), (296, 25_378_416), (344, 30_900_416)],
        ),
        (
            "resnet50",
            [(192, 18_218_400), (224, 23_508_032), (256, 35_351_072), (296, 46_621_216), (344, 67_250_528)],
        ),
    ],
)
def test_compound_scaling_has_its_known_sizes(scaled_sizes, name, expected):
    assert scaled_sizes(name, 224) == expected


def test_stages_can_be_given(size_of):
    assert size_of("resnet50", 224, layers=(4, 5, 8, 4)) == (30_555_456, 2048)
    assert size_of("resnet50", 224, channels=(80, 160, 312, 624)) == (35_027_776, 2496)
    # A scale multiplies what is given.
    assert size_of("resnet50", 224, Scale(depth=2), layers=(1, 1, 1, 1)) == size_of("resnet50", 224, layers=(2,) * 4)


def test_a_preactivated_network_scales_as_a_plain_one(size_of):
    """Its blocks have the same convolutions; only the norms differ."""
    for scale in (Scale(1.0, 1.25), Scale(2.0, 0.5)):
        plain, preactivated = size_of("resnet50", 224, scale), size_of("resnetv2_50", 224, scale)
        assert preactivated[1] == plain[1]
        assert preactivated[0] == pytest.approx(plain[0], rel=0.002)


def test_pooling_side_by_side_doubles_the_feature(random_images):
    images = random_images(2, 3, 32)
    torch.manual_seed(0)
    both = create("resnet18", image_size=32, pool="catavgmax").eval()
    torch.manual_seed(0)
    mean = create("resnet18", image_size=32).eval()
    with torch.no_grad():
        features = both(images)
        assert features.shape == (2, both.num_features) == (2, 1024)
        last = mean.body.forward_features(images)
        torch.testing.assert_close(features, torch.cat([last.mean((2, 3)), last.amax((2, 3))], 1))


def test_dilation_keeps_parameters_and_resolution(size_of, random_images):
    assert size_of("resnet50", 32, output_stride=8, small_stem=False) == (23_508_032, 2048)
    dilated = create("resnet18", image_size=32, output_stride=8, small_stem=False).eval()
    with torch.no_grad():
        assert dilated.body.forward_features(random_images(1, 3, 32)).shape[-1] == 4


def test_residual_branches_start_at_zero(random_images):
    """Each block is then relu of its shortcut."""
    block = create("resnet18", image_size=16).eval().body.layer1[0]
    features = random_images(2, 64, 5)
    with torch.no_grad():
        assert torch.equal(block(features), F.relu(features))
        open_block = create("resnet18", image_size=16, zero_init_last=False).eval().body.layer1[0]
        assert not torch.equal(open_block(features), F.relu(features))
    assert create("resnetv2_18", image_size=16).options["zero_init_last"] is False


def test_the_small_stem_is_never_applied_twice():
    model = timm.create_model("resnet18", num_classes=0)
    use_small_stem(model)
    with pytest.raises(ValueError, match="already has"):
        use_small_stem(model)


@pytest.mark.parametrize(
    ("options", "scale", "hint"),
    [
        ({"layers": (2, 2, 2)}, Scale(), "4 numbers, not 3"),
        ({"layers": (2, 2, 2, 0)}, Scale(), "layers is 0"),
        ({"channels": (64, 128, 256, 10**9)}, Scale(), "channels is 1000000000"),
        ({"channels": (8, 8, 8, 8)}, Scale(width=0.2), "rounds a stage of 8 channels to nothing"),
        ({"layers": (1, 2, 2, 2)}, Scale(depth=0.4), "rounds a stage of 1 blocks to nothing: take at least 0.5"),
        ({"output_stride": 4}, Scale(), "expected 8 or 16 or 32"),
    ],
)
def test_bad_options_and_scales_are_refused(size_of, options, scale, hint):
    with pytest.raises(UserError, match=hint):
        size_of("resnet18", 32, scale, **options)
