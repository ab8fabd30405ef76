"""Published sizes of the architectures, without a classifier; counted on the meta device."""

import pytest

from fewlabel.backbones.catalogue import count_parameters, entries
from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.registry import all_families, create

# Member, parameters, feature width, at the size it was designed for.
LARGE = [
    ("resnet10t", 4_922_488, 512),
    ("resnet18", 11_176_512, 512),
    ("resnet26", 13_946_176, 2048),
    ("resnet34", 21_284_672, 512),
    ("resnet50", 23_508_032, 2048),
    ("resnet50d", 23_527_264, 2048),
    ("resnet101", 42_500_160, 2048),
    ("resnet152", 58_143_808, 2048),
    ("resnetv2_18", 11_174_720, 512),
    ("resnetv2_50", 23_500_352, 2048),
    ("wide_resnet50_2", 66_834_240, 2048),
    ("resnext50_32x4d", 22_979_904, 2048),
    ("seresnet18", 11_266_624, 512),
    ("seresnet34", 21_447_416, 512),
    ("seresnet50", 26_039_024, 2048),
    ("seresnet101", 47_277_872, 2048),
    ("seresnet152", 64_772_848, 2048),
    ("seresnext26t_32x4d", 14_757_976, 2048),
    ("seresnext50_32x4d", 25_510_896, 2048),
    ("senet154", 113_039_984, 2048),
    ("mobilenetv1_100", 3_206_976, 1024),
    ("mobilenetv1_125", 4_989_840, 1280),
    ("mobilenetv2_035", 396_128, 1280),
    ("mobilenetv2_050", 687_680, 1280),
    ("mobilenetv2_100", 2_223_872, 1280),
    ("mobilenetv2_140", 4_315_776, 1792),
    ("mobilenetv3_small_050", 568_224, 1024),
    ("mobilenetv3_small_100", 1_517_856, 1024),
    ("mobilenetv3_large_100", 4_202_032, 1280),
    ("mobilenetv4_conv_small", 2_493_024, 1280),
    ("efficientnet_b0", 4_007_548, 1280),
    ("efficientnet_b1", 6_513_184, 1280),
    ("efficientnet_b2", 7_700_994, 1408),
    ("efficientnet_b3", 10_696_232, 1536),
    ("efficientnet_b4", 17_548_616, 1792),
    ("efficientnet_b5", 28_340_784, 2048),
    ("efficientnet_b6", 40_735_704, 2304),
    ("efficientnet_b7", 63_786_960, 2560),
    ("efficientnet_lite0", 3_371_008, 1280),
    ("tf_efficientnetv2_s", 20_177_488, 1280),
    ("vit_tiny_patch16_224", 5_524_416, 192),
    ("vit_small_patch32_224", 22_493_952, 384),
    ("vit_small_patch16_224", 21_665_664, 384),
    ("vit_small_patch8_224", 21_670_272, 384),
    ("vit_base_patch32_224", 87_455_232, 768),
    ("vit_base_patch16_224", 85_798_656, 768),
    ("vit_base_patch8_224", 85_807_872, 768),
    ("vit_large_patch16_224", 303_301_632, 1024),
]

# Name, image size, parameters, feature width.
OTHERS = [
    ("timm/legacy_seresnet18", 224, 11_265_592, 512),
    ("timm/vit_wee_patch16_reg1_gap_256", 256, 13_165_568, 256),
    ("timm/swin_tiny_patch4_window7_224", 224, 27_519_354, 768),
]

# Name, options, member, parameters, feature width, at 32 px.
SMALL = [
    ("resnet", {}, "resnet18", 11_168_832, 512),
    ("resnet34", {}, "resnet34", 21_276_992, 512),
    ("resnet50", {}, "resnet50", 23_500_352, 2048),
    ("resnet50", {"small_stem": False}, "resnet50", 23_508_032, 2048),
    # As ResNet: 3x3 for 7x7 over 3 channels and 64 filters.
    ("resnetv2_18", {}, "resnetv2_18", 11_174_720 - 40 * 3 * 64, 512),
    # A deep stem is 3x3 already.
    ("resnet50d", {}, "resnet50d", 23_527_264, 2048),
    ("senet", {}, "seresnet18", 11_258_944, 512),
    ("mobilenet", {}, "mobilenetv2_100", 2_223_872, 1280),
    ("efficientnet", {}, "efficientnet_b0", 4_007_548, 1280),
    ("vit", {}, "vit_tiny_patch16_224", 5_360_832, 192),
    ("vit", {"pool": "gap"}, "vit_tiny_patch16_224", 5_360_448, 192),
    ("vit", {"patch_size": 8}, "vit_tiny_patch16_224", 5_379_264, 192),
    ("vit", {"patch_size": 2}, "vit_tiny_patch16_224", 5_390_784, 192),
]


@pytest.fixture(scope="module")
def rows():
    return {entry.name: entry for entry in entries()}


@pytest.mark.parametrize(("name", "parameters", "width"), LARGE)
def test_members_have_their_published_size(rows, name, parameters, width):
    assert (rows[name].parameters, rows[name].num_features) == (parameters, width)


@pytest.mark.parametrize(("name", "size", "parameters", "width"), OTHERS)
def test_other_networks_of_timm_have_their_published_size(name, size, parameters, width):
    with without_weights():
        backbone = create(name, image_size=size)
    assert (count_parameters(backbone), backbone.num_features) == (parameters, width)


@pytest.mark.parametrize(("name", "options", "member", "parameters", "width"), SMALL)
def test_small_image_forms_have_their_size(name, options, member, parameters, width):
    with without_weights():
        backbone = create(name, image_size=32, **options)
    assert (backbone.name, count_parameters(backbone), backbone.num_features) == (member, parameters, width)


def test_the_catalogue_holds_every_name(rows):
    members = {name for family in all_families() for name in family.members}
    assert {name for name, _, _ in LARGE} == members
    assert set(rows) == members | {family.name for family in all_families()}
    assert {entry.source for entry in rows.values()} == {"timm"}


def test_a_family_has_the_figures_of_its_large_member(rows):
    family, member = rows["resnet"], rows["resnet50"]
    assert (family.parameters, family.num_features) == (member.parameters, member.num_features)
    assert "resnet18 up to 64 px, resnet50 above" in family.summary
    assert rows["efficientnet_b3"].image_size == 300
