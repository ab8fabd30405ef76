"""Spatial-token hybrid: published and scaled sizes, agreement with timm's ViT, and attention among places."""

import pytest
import torch
from timm.models import VisionTransformer
from torch import nn
from torch.nn import functional as F

from fewlabel.backbones.families.hybrid_spatial import HybridSpatial
from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.registry import create, fit_image_size
from fewlabel.backbones.scale import Scale
from fewlabel.errors import UserError


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _tiny(pool="mean"):
    encoder = {"width": 16, "depth": 2, "heads": 4, "mlp_ratio": 2.0}
    network = HybridSpatial(16, pool, in_chans=3, channels=(4, 6, 6), strides=(1, 2, 2), **encoder).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    return network


@pytest.mark.parametrize(
    ("name", "size", "options", "parameters", "width"),
    [
        ("hybrid_spatial_32", 32, {}, 603_168, 128),
        ("hybrid_spatial", 32, {}, 603_168, 128),
        ("hybrid_spatial_32", 32, {"pool": "cls"}, 603_168 + 128, 128),
        ("hybrid_spatial_224", 224, {}, 3_059_296, 192),
        ("hybrid_spatial", 224, {}, 3_059_296, 192),
    ],
)
def test_parameters_are_as_published(name, size, options, parameters, width):
    with without_weights():
        backbone = create(name, image_size=size, **options)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == parameters
    assert backbone.num_features == width


@pytest.mark.parametrize(
    ("phi", "side", "parameters"),
    [(-1, 28, 456_768), (0, 32, 603_168), (1, 36, 750_976), (2, 44, 1_359_880), (3, 48, 1_586_408)],
)
def test_scaled_sizes(phi, side, parameters):
    with without_weights():
        backbone = create("hybrid_spatial", image_size=32, scale=Scale.compound(phi))
    assert backbone.image_size == side
    assert sum(parameter.numel() for parameter in backbone.parameters()) == parameters


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_with_a_patch_embedding_for_its_cnn_it_is_timms_vit(pool):
    """timm's class token has a row in the position table; the sum of both is what ours has."""
    shape = {"img_size": 16, "patch_size": 4, "embed_dim": 64, "depth": 3, "num_heads": 4, "mlp_ratio": 2.0}
    # Norm before the mean, as in the hybrid; timm's own way with `avg` is after.
    pooled = {"class_token": pool == "cls", "global_pool": "token" if pool == "cls" else "avg", "fc_norm": False}
    vit = VisionTransformer(**shape, num_classes=0, **pooled).eval()
    ours = {"channels": (8, 64), "width": 64, "depth": 3, "heads": 4, "mlp_ratio": 2.0}
    hybrid = create("hybrid_spatial", image_size=16, pool=pool, **ours).body.eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            nn.init.normal_(parameter, std=0.2)
        hybrid.cnn = vit.patch_embed.proj
        hybrid.project = nn.Identity()
        hybrid.positions[:] = vit.pos_embed[:, -16:]
        if pool == "cls":
            hybrid.class_token[:] = vit.cls_token + vit.pos_embed[:, :1]
        hybrid.blocks.load_state_dict(vit.blocks.state_dict())
        hybrid.norm.load_state_dict(vit.norm.state_dict())
        images = torch.randn(2, 3, 16, 16)
        torch.testing.assert_close(hybrid(images), vit(images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_each_place_of_the_map_is_a_token_row_by_row(pool):
    network = _tiny(pool)
    maps = torch.randn(2, 6, 4, 4)
    with torch.no_grad():
        tokens = network.tokens(maps)
        if pool == "cls":
            torch.testing.assert_close(tokens[:, 0], network.class_token[0].expand(2, -1))
            tokens = tokens[:, 1:]
        assert tokens.shape == (2, 16, 16)
        for row in range(4):
            for column in range(4):
                convolved = maps[:, :, row, column] @ network.project.weight.T + network.project.bias
                place = 4 * row + column
                torch.testing.assert_close(tokens[:, place], convolved + network.positions[0, place])
        as_convolution = F.conv2d(maps, network.project.weight[..., None, None], network.project.bias)
        torch.testing.assert_close(tokens - network.positions, as_convolution.flatten(2).transpose(1, 2))


def test_the_order_of_places_matters_only_without_their_positions():
    network = _tiny()
    maps = torch.randn(2, 6, 4, 4)
    order = torch.randperm(16)
    shuffled = maps.flatten(2)[..., order].reshape(maps.shape)

    def feature(maps):
        return network.norm(network.blocks(network.tokens(maps))).mean(1)

    with torch.no_grad():
        before = feature(maps)
        assert (feature(shuffled) - before).abs().max() > 1e-2
        network.positions[:] = network.positions[:, order]
        torch.testing.assert_close(feature(shuffled), before, atol=1e-5, rtol=1e-4)


def test_swapping_two_quadrants_changes_the_feature():
    network = create("hybrid_spatial", image_size=16).body.eval()
    images = torch.randn(1, 3, 16, 16)
    swapped = images.clone()
    swapped[..., :8, :8], swapped[..., 8:, 8:] = images[..., 8:, 8:], images[..., :8, :8]
    with torch.no_grad():
        assert (network(images) - network(swapped)).abs().max() > 1e-4


def _leaks(layer, tokens):
    """Whether a change of one image's first token reaches that image's other tokens, and whether other images."""
    changed = tokens.clone()
    changed[0, 0] = torch.randn_like(changed[0, 0])
    with torch.no_grad():
        difference = (layer(tokens) - layer(changed)).abs().amax(-1)
    return bool((difference[0, 1:] > 1e-4).all()), bool((difference[1:] > 1e-4).any())


def test_attention_is_among_places_and_never_among_images():
    tokens = torch.randn(3, 16, 16)
    assert _leaks(_tiny().blocks[0], tokens) == (True, False)
    # What the same layer of torch does with tokens of this layout unless told that the batch comes first.
    wrong = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, norm_first=True).eval()
    assert _leaks(wrong, tokens) == (False, True)


def test_a_pixel_changes_tokens_far_from_it_after_one_layer():
    network = _tiny()
    images = torch.randn(1, 3, 16, 16)
    changed = images.clone()
    changed[..., 0, 0] += 5
    with torch.no_grad():
        before, after = (network.tokens(network.cnn(x)) for x in (images, changed))
        near = (before != after).any(-1)[0].reshape(4, 4)
        assert near[0, 0]
        assert not near[2:].any()
        assert not near[:, 2:].any()
        mixed = (network.blocks[0](before) - network.blocks[0](after)).abs().amax(-1)
    assert (mixed > 1e-6).all()


@pytest.mark.parametrize(("size", "side"), [(8, 2), (12, 3), (28, 7), (33, 9), (64, 16), (65, 9), (224, 28)])
def test_positions_are_built_for_the_image_size(size, side):
    with without_weights():
        backbone = create("hybrid_spatial_32", image_size=size).eval()
        maps = backbone.body.cnn(torch.empty(1, 3, size, size))
    assert maps.shape[-2:] == (side, side)
    assert backbone.body.positions.shape == (1, side * side, 128)
    assert fit_image_size("hybrid_spatial", size) == size


@pytest.mark.parametrize(("height", "width"), [(6, 6), (3, 5), (2, 8)])
def test_positions_are_interpolated_for_another_size(height, width):
    network = _tiny()
    with torch.no_grad():
        added = network.tokens(torch.zeros(1, 6, height, width)) - network.project.bias
        table = network.positions.reshape(1, 4, 4, 16).permute(0, 3, 1, 2)
        expected = F.interpolate(table, (height, width), mode="bicubic", antialias=True)
        torch.testing.assert_close(added, expected.flatten(2).transpose(1, 2))
        assert network(torch.randn(1, 3, 4 * height, 4 * width)).shape == (1, 16)


def test_the_class_token_is_the_feature_if_asked_for():
    network = _tiny("cls")
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert network.forward_features(images).shape == (2, 17, 16)
        torch.testing.assert_close(network(images), network.forward_features(images)[:, 0])


def test_positions_and_the_class_token_do_not_decay_and_start_small():
    for pool, exempt in [("mean", {"body.positions"}), ("cls", {"body.positions", "body.class_token"})]:
        backbone = create("hybrid_spatial", image_size=32, pool=pool)
        assert backbone.no_weight_decay() == exempt
        assert float(backbone.body.positions.detach().std()) == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    ("options", "gist"),
    [
        ({"heads": 5}, "5 heads don't divide the width 128: take 1, 2, 4"),
        ({"pool": "max"}, "option pool is 'max', expected mean or cls"),
        ({"grid": 8}, "no option 'grid'"),
        ({"strides": (2, 2)}, "3 channels and 2 strides"),
        ({"depth": 0}, "depth is 0"),
    ],
)
def test_bad_options_are_refused(options, gist):
    with pytest.raises(UserError, match=gist), without_weights():
        create("hybrid_spatial", image_size=32, **options)
