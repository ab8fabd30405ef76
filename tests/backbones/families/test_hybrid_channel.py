"""Channel-token hybrid: published and scaled sizes, one token a feature map, and the equation written out."""

import math

import pytest
import torch
from torch import nn

from fewlabel.backbones.families.hybrid_channel import HybridChannel
from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.registry import create, fit_image_size
from fewlabel.backbones.scale import Scale
from fewlabel.errors import UserError


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _tiny(**options):
    arguments = {"grid": 3, "project": True, "squeeze_excite": False, "in_chans": 3, "channels": (4, 6)}
    arguments |= {"strides": (1, 2), "width": 16, "depth": 2, "heads": 4, "mlp_ratio": 2.0}
    network = HybridChannel(**arguments | options).eval()
    for name, parameter in network.named_parameters():
        if name == "embedding" or name.startswith(("project", "cnn")):
            nn.init.normal_(parameter, std=0.5)
    return network


@pytest.mark.parametrize(
    ("name", "size", "options", "parameters", "width"),
    [
        ("hybrid_channel_32", 32, {}, 603_168, 128),
        ("hybrid_channel", 32, {}, 603_168, 128),
        ("hybrid_channel_32", 12, {}, 603_168, 128),
        ("hybrid_channel_224", 224, {}, 2_887_008, 192),
        ("hybrid_channel", 224, {}, 2_887_008, 192),
        ("hybrid_channel_224_n256", 224, {}, 3_145_440, 192),
        # Two 1x1 convolutions with biases, 64 -> 8 -> 64.
        ("hybrid_channel_32", 32, {"squeeze_excite": True}, 603_168 + 2 * 64 * 8 + 64 + 8, 128),
        ("hybrid_channel_32", 32, {"grid": 1}, 603_168 - 63 * 128, 128),
    ],
)
def test_parameters_are_as_published(name, size, options, parameters, width):
    with without_weights():
        backbone = create(name, image_size=size, **options)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == parameters
    assert backbone.num_features == width


@pytest.mark.parametrize(
    ("phi", "side", "parameters"),
    [(-1, 28, 458_688), (0, 32, 603_168), (1, 36, 748_800), (2, 44, 1_350_760), (3, 48, 1_573_608)],
)
def test_scaled_sizes(phi, side, parameters):
    with without_weights():
        backbone = create("hybrid_channel", image_size=32, scale=Scale.compound(phi))
    assert backbone.image_size == side
    assert sum(parameter.numel() for parameter in backbone.parameters()) == parameters


@pytest.mark.parametrize(("heads", "legal"), [(7, True), (14, True), (8, False), (6, False)])
def test_a_14x14_map_without_a_projection_has_width_196_and_heads_that_divide_it(heads, legal):
    options = {"image_size": 224, "project": False, "heads": heads}
    with without_weights():
        if not legal:
            with pytest.raises(UserError, match=f"{heads} heads don't divide the width 196: take 1, 2, 4, 7, 14, 28"):
                create("hybrid_channel", **options)
            return
        # The width is the grid's and not the scale's.
        backbone = create("hybrid_channel", scale=Scale(width=2), **options)
        assert create("hybrid_channel_224", image_size=224, **backbone.options).num_features == 196
        assert backbone.num_features == 196
        assert isinstance(backbone.body.project, nn.Identity)
        assert backbone.body.embedding.shape == (1, 128, 196)


def _bounds(index, inputs, outputs):
    return slice(index * inputs // outputs, math.ceil((index + 1) * inputs / outputs))


@pytest.mark.parametrize("side", [7, 2])
def test_each_token_is_one_map_averaged_to_a_grid_projected_and_told_apart(side):
    network = _tiny()
    maps = torch.randn(2, 6, side, side)
    with torch.no_grad():
        tokens = network.tokens(maps)
        assert tokens.shape == (2, 6, 16)
        for image in range(2):
            for channel in range(6):
                cells = [
                    maps[image, channel, _bounds(row, side, 3), _bounds(column, side, 3)].mean()
                    for row in range(3)
                    for column in range(3)
                ]
                expected = network.project.weight @ torch.stack(cells) + network.project.bias
                torch.testing.assert_close(tokens[image, channel], expected + network.embedding[0, channel])


def _as_torchs(block):
    """The block as torch's own pre-norm layer of the same weights."""
    width = block.norm1.normalized_shape[0]
    layer = nn.TransformerEncoderLayer(
        *(width, block.attn.num_heads, block.mlp.fc1.out_features),
        **{"dropout": 0.0, "activation": "gelu", "layer_norm_eps": 1e-6, "batch_first": True, "norm_first": True},
    ).eval()
    ours = block.state_dict()
    names = {"attn.qkv.": "self_attn.in_proj_", "attn.proj.": "self_attn.out_proj."}
    names |= {"mlp.fc1.": "linear1.", "mlp.fc2.": "linear2.", "norm1.": "norm1.", "norm2.": "norm2."}
    layer.load_state_dict({new + kind: ours[old + kind] for old, new in names.items() for kind in ("weight", "bias")})
    return layer


def test_the_encoder_is_pre_norm_with_a_last_norm_and_the_feature_its_mean():
    network = _tiny()
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        tokens = network.tokens(network.cnn(images))
        for block in network.blocks:
            tokens = _as_torchs(block)(tokens)
        torch.testing.assert_close(network(images), network.norm(tokens).mean(1), atol=1e-5, rtol=1e-4)


def test_the_cnn_is_convolution_batch_norm_and_relu():
    network = create("hybrid_channel", image_size=32).body
    kinds = [type(layer).__name__ for layer in network.cnn]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 3
    assert [layer.stride for layer in network.cnn[::3]] == [(1, 1), (2, 2), (2, 2)]
    for layer in network.cnn[::3]:
        assert layer.bias is None
        assert float(layer.weight.detach().std()) == pytest.approx((2 / (9 * layer.out_channels)) ** 0.5, rel=0.05)
    for linear in (network.project, network.blocks[0].attn.qkv):
        assert float(linear.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
        assert not linear.bias.any()
    assert float(network.embedding.detach().std()) == pytest.approx(0.02, rel=0.05)


def test_the_order_of_channels_matters_only_without_their_embedding():
    network = _tiny()
    images = torch.randn(2, 3, 8, 8)
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    with torch.no_grad():
        features = network(images)
        convolution, norm, _ = network.cnn[-3:]
        for tensor in (convolution.weight, norm.weight, norm.bias):
            tensor[:] = tensor[order]
        assert (network(images) - features).abs().max() > 1e-3
        network.embedding[:] = network.embedding[:, order]
        torch.testing.assert_close(network(images), features, atol=4e-6, rtol=0)


def test_a_channel_is_one_token_and_reaches_the_others_by_attention():
    network = _tiny()
    maps = torch.rand(1, 6, 5, 5)
    silenced = maps.clone()
    silenced[:, 2] = 0
    with torch.no_grad():
        before, after = network.tokens(maps), network.tokens(silenced)
        assert (before != after).any(-1).nonzero().tolist() == [[0, 2]]
        mixed = (network.blocks[0](before) - network.blocks[0](after)).abs().amax(-1)
    assert (mixed > 1e-6).all()


def test_the_gate_weighs_whole_maps_before_they_are_tokens():
    network = _tiny(squeeze_excite=True)
    with torch.no_grad():
        maps = torch.rand(2, 6, 5, 5)
        means = maps.mean((2, 3))
        first, second = network.gate.fc1, network.gate.fc2
        weights = (means @ first.weight.flatten(1).T + first.bias).relu() @ second.weight.flatten(1).T + second.bias
        gated = weights.sigmoid()[:, :, None, None] * maps
        open_gate = _tiny()
        open_gate.load_state_dict(network.state_dict(), strict=False)
        torch.testing.assert_close(network.tokens(maps), open_gate.tokens(gated))
        assert (network.tokens(maps) - open_gate.tokens(maps)).abs().max() > 1e-2


@pytest.mark.parametrize("grid", [1, 3])
def test_only_a_grid_of_one_forgets_where(grid):
    network = _tiny(grid=grid)
    maps = torch.randn(1, 6, 6, 6)
    shuffled = maps.flatten(2)[..., torch.randperm(36)].reshape(maps.shape)
    with torch.no_grad():
        change = (network.tokens(maps) - network.tokens(shuffled)).abs().max()
    assert change < 5e-6 if grid == 1 else change > 1e-2


def test_any_image_size_gives_the_same_feature_width():
    backbone = create("hybrid_channel", image_size=12).eval()
    with torch.no_grad():
        for side in (12, 8, 33, 48):
            assert backbone(torch.randn(2, 3, side, side)).shape == (2, 128)
    assert fit_image_size("hybrid_channel", 33) == 33
    assert backbone.no_weight_decay() == {"body.embedding"}


@pytest.mark.parametrize(
    ("name", "size", "strides", "grid"),
    [
        ("hybrid_channel_32", 64, (1, 2, 2), 8),
        ("hybrid_channel_32", 65, (2, 2, 2), 14),
        ("hybrid_channel_224", 64, (1, 1, 2, 2), 8),
        ("hybrid_channel_224", 65, (2, 2, 2, 2), 14),
    ],
)
def test_small_images_are_halved_twice(name, size, strides, grid):
    with without_weights():
        options = create(name, image_size=size).options
    assert (options["strides"], options["grid"]) == (strides, grid)


@pytest.mark.parametrize(
    ("options", "gist"),
    [
        ({"heads": 3}, "3 heads don't divide the width 128"),
        ({"grid": 0}, "grid is 0"),
        ({"grid": 65}, "grid is 65"),
        ({"project": False, "width": 128}, "8 x 8 = 64 values of its map, not 128: leave width out"),
        ({"project": False, "grid": 2}, "grid without a projection is 2"),
        ({"channels": (32, 64), "strides": (2,)}, "2 channels and 1 strides"),
        ({"channels": (32, 0)}, "channels is 0"),
        ({"channels": (8,) * 17}, "The number of channels is 17"),
        ({"strides": (1, 2, 4)}, "strides is 4"),
        ({"width": 4}, "width is 4"),
        ({"depth": 257}, "depth is 257"),
        ({"mlp_ratio": 0.0}, "mlp_ratio is 0.0"),
        ({"scale": Scale(width=0.1)}, "Width 0.1 rounds a stage of 32 channels to nothing"),
    ],
)
def test_bad_options_are_refused(options, gist):
    with pytest.raises(UserError, match=gist), without_weights():
        create("hybrid_channel", image_size=32, **options)
