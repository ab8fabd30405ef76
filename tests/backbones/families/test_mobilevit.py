"""MobileViT: its sizes, its stem, and which pixels attend to which."""

import pytest
import timm
import torch
from torch import nn

from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.registry import create
from fewlabel.backbones.scale import Scale
from fewlabel.errors import UserError

SIZES = {
    "mobilevit_xxs": (951_024, 320),
    "mobilevit_xs": (1_932_848, 384),
    "mobilevit_s": (4_937_632, 640),
    "mobilevitv2_050": (1_113_593, 256),
    "mobilevitv2_100": (4_388_841, 512),
    "mobilevitv2_200": (17_424_329, 1024),
}


@pytest.mark.parametrize(("name", "size"), [("mobilevit_xxs", 32), *((name, 256) for name in SIZES)])
def test_members_have_their_published_size(size_of, name, size):
    assert size_of(name, size) == SIZES[name]


def test_the_family_is_xxs_for_small_images_and_s_for_large():
    with without_weights():
        assert [create("mobilevit", image_size=size).name for size in (64, 65)] == ["mobilevit_xxs", "mobilevit_s"]


def test_compound_scaling_has_its_known_sizes(scaled_sizes):
    expected = [(192, 720_944), (256, 951_024), (320, 1_314_296), (320, 1_740_184), (384, 2_274_568)]
    assert scaled_sizes("mobilevit_xxs", 256) == expected


@pytest.mark.parametrize(("options", "side"), [({}, 32), ({"output_stride": 16}, 40), ({"small_stem": False}, 64)])
def test_a_scaled_side_keeps_the_last_map_even(options, side):
    with without_weights():
        backbone = create("mobilevit", image_size=32, scale=Scale(resolution=1.2), **options)
        features = backbone.body.forward_features(torch.empty(1, 3, side, side))
    assert backbone.image_size == side
    assert features.shape[-1] % 2 == 0


@pytest.mark.parametrize("name", SIZES)
def test_a_network_built_as_a_scaled_one_is_that_of_timm(name):
    # So close to 1 that all rounds to what is published.
    with without_weights():
        ours = create(name, image_size=256, scale=Scale(depth=1.0001, width=1.0001)).body
        theirs = timm.create_model(name, num_classes=0)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


@pytest.mark.parametrize("name", ["mobilevit_xxs", "mobilevitv2_050"])
def test_the_output_is_that_of_timm(name):
    ours = create(name, image_size=64, small_stem=False, scale=Scale(depth=1.0001)).eval().body
    theirs = timm.create_model(name, num_classes=0).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["mobilevit_xxs", "mobilevitv2_050"])
def test_a_32_px_image_ends_in_a_4x4_map_only_with_the_small_stem(name):
    for small_stem, sides in [(None, [32, 32, 16, 8, 4]), (False, [16, 8, 4, 2, 1])]:
        with without_weights():
            backbone = create(name, image_size=32, small_stem=small_stem).eval()
            maps = backbone.body.stem(torch.empty(1, 3, 32, 32))
            reached = []
            for stage in backbone.body.stages:
                maps = stage(maps)
                reached.append(maps.shape[-1])
        assert backbone.options["small_stem"] is (small_stem is None)
        # V2 stretches an odd map and leaves it so.
        assert reached == (sides if sides[-1] > 1 or "v2" not in name else [*sides[:-1], 2])


@pytest.mark.parametrize("size", [8, 12, 28])
def test_small_images_of_any_side_work(size):
    backbone = create("mobilevit", image_size=size, in_chans=1).eval()
    with torch.no_grad():
        assert backbone(torch.randn(1, 1, size, size)).isfinite().all()


class _Recorder(nn.Module):
    def forward(self, tokens):
        self.tokens = tokens
        return tokens


def _bare_block():
    """A MobileViT block of which unfolding and folding alone are left."""
    block = create("mobilevit_xxs", image_size=32).body.stages[2][1]
    block.conv_kxk = block.conv_1x1 = block.norm = block.conv_proj = nn.Identity()
    block.conv_fusion = None
    block.transformer = _Recorder()
    return block


def test_pixels_at_the_same_place_of_all_patches_form_a_sequence():
    block = _bare_block()
    block(torch.arange(16.0).reshape(1, 1, 4, 4))
    expected = [[0, 2, 8, 10], [1, 3, 9, 11], [4, 6, 12, 14], [5, 7, 13, 15]]
    assert block.transformer.tokens[:, :, 0].tolist() == expected


def test_folding_undoes_unfolding_on_even_maps_alone():
    block = _bare_block()
    even, odd = torch.randn(2, 3, 6, 6), torch.randn(2, 3, 7, 7)
    assert torch.equal(block(even), even)
    assert block.transformer.tokens.shape == (8, 9, 3)
    assert (block(odd) - odd).abs().max() > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_stride": 4}, "8 or 16 or 32"),
        ({"pool": "mean"}, "avg"),
        ({"drop_path_rate": 1.0}, "probability"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        create("mobilevit", image_size=32, **options)


def test_a_width_that_leaves_no_channels_is_refused():
    with pytest.raises(UserError, match="to nothing"):
        create("mobilevit_xxs", image_size=32, scale=Scale(width=0.2))
