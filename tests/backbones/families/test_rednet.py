"""RedNet: published sizes, its scaled ones, and its shape. Involution itself: test_involution.py."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fewlabel.backbones.families.rednet import RedNetBlock
from fewlabel.backbones.involution import Involution
from fewlabel.backbones.registry import create
from fewlabel.backbones.scale import Scale
from fewlabel.errors import UserError

PUBLISHED = {
    "rednet26": 7_184_166,
    "rednet38": 10_337_986,
    "rednet50": 13_491_806,
    "rednet101": 23_603_950,
    "rednet152": 31_935_582,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_members_have_their_published_size(size_of, name):
    assert size_of(name, 224) == (PUBLISHED[name], 2048)


def test_the_family_has_a_small_and_a_large_form(size_of):
    # The stem differs in its strides alone.
    assert size_of("rednet", 32) == (PUBLISHED["rednet26"], 2048)
    assert size_of("rednet", 224) == (PUBLISHED["rednet50"], 2048)


def test_compound_scaling_has_its_known_sizes(scaled_sizes):
    expected = [(192, 6_589_334), (224, 7_184_166), (256, 7_778_998), (296, 13_322_758), (344, 18_012_643)]
    assert scaled_sizes("rednet26", 224) == expected


def test_the_stem_has_its_published_size():
    stem = create("rednet26", image_size=32).body.stem
    assert sum(parameter.numel() for parameter in stem.parameters()) == 19_986


def test_each_block_has_one_involution_and_strides_start_stages():
    body = create("rednet38", image_size=32, kernel_size=5).body
    found = [(m.kernel_shape, m.stride) for m in body.modules() if isinstance(m, Involution)]
    assert found == [
        ((2, 3, 3), 1),
        *[((4, 5, 5), 1)] * 2,
        *[((8, 5, 5), 2), *[((8, 5, 5), 1)] * 2],
        *[((16, 5, 5), 2), *[((16, 5, 5), 1)] * 4],
        *[((32, 5, 5), 2), ((32, 5, 5), 1)],
    ]


@pytest.mark.parametrize(("small_stem", "side"), [(None, 4), (True, 4), (False, 1)])
def test_a_32_px_image_ends_in_a_4x4_map_only_with_the_small_stem(random_images, small_stem, side):
    backbone = create("rednet26", image_size=32, small_stem=small_stem).eval()
    assert backbone.options["small_stem"] is (small_stem is not False)
    with torch.no_grad():
        features = backbone.body.forward_features(random_images(1, 3, 32))
    assert features.shape == (1, 2048, side, side)
    # The whole network stays in the format that it is trained in.
    assert features.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("size", "small_stem", "sides"), [(12, True, (12, 2)), (29, False, (8, 1)), (45, True, (45, 6))]
)
def test_any_size_works(random_images, size, small_stem, sides):
    body = create("rednet26", image_size=size, in_chans=1, small_stem=small_stem).eval().body
    with torch.no_grad():
        stem = body.stem(random_images(1, 1, size))
        last = body.blocks(stem)
    assert (stem.shape[-1], last.shape[-1]) == sides
    assert last.isfinite().all()


def test_a_block_adds_its_branch_to_its_shortcut(random_images):
    block = RedNetBlock(64, 32, kernel_size=7, stride=2, drop_path=0.0).eval()
    features = random_images(2, 64, 9)
    reduce, norm1, _, involution, norm2, _, expand, norm3 = block.branch
    with torch.no_grad():
        branch = F.relu(norm1(F.conv2d(features, reduce.weight)))
        branch = norm3(F.conv2d(F.relu(norm2(involution(branch))), expand.weight))
        shortcut = block.shortcut[1](F.conv2d(features, block.shortcut[0].weight, stride=2))
        torch.testing.assert_close(block(features), F.relu(branch + shortcut))
    assert isinstance(RedNetBlock(128, 32, 7, 1, 0.0).shortcut, nn.Identity)


def test_residual_branches_start_at_zero(random_images):
    features = random_images(2, 256, 5)
    with torch.no_grad():
        block = create("rednet38", image_size=16).eval().body.blocks[1]
        assert torch.equal(block(features), F.relu(features))
        open_block = create("rednet38", image_size=16, zero_init_last=False).eval().body.blocks[1]
        assert not torch.equal(open_block(features), F.relu(features))


def test_later_branches_are_skipped_more_often():
    body = create("rednet26", image_size=32, drop_path_rate=0.7).body
    assert [block.drop_path.drop_prob for block in body.blocks] == pytest.approx([0.1 * i for i in range(8)])


def test_shapes_can_be_given(size_of):
    assert size_of("rednet26", 32, width=16)[1] == 512
    assert size_of("rednet26", 32, layers=(3, 4, 6, 3)) == size_of("rednet50", 32)
    # A scale multiplies what is given.
    assert size_of("rednet26", 32, Scale(2.0, 1.0), layers=(1, 1, 1, 1)) == size_of("rednet26", 32, layers=(2,) * 4)


@pytest.mark.parametrize(
    ("options", "scale", "hint"),
    [
        ({"layers": (1, 2, 4)}, Scale(), "4 numbers, not 3"),
        ({"layers": (1, 2, 4, 257)}, Scale(), "layers is 257"),
        ({"width": 8}, Scale(), "width is 8: give a whole number from 16"),
        ({"width": 72}, Scale(), "width is 72: give a multiple of 16"),
        ({"kernel_size": 4}, Scale(), "expected 3 or 5 or 7 or 9"),
        ({"drop_path_rate": 1.0}, Scale(), "drop_path_rate is 1.0"),
        ({}, Scale(depth=0.4), "rounds a stage of 1 blocks to nothing"),
        ({}, Scale(width=0.1), "rounds a stage of 64 channels to nothing"),
    ],
)
def test_bad_options_and_scales_are_refused(size_of, options, scale, hint):
    with pytest.raises(UserError, match=hint):
        size_of("rednet26", 32, scale, **options)
