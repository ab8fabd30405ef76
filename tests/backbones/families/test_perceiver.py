"""Perceiver: published and scaled sizes, what is shared, and the equation written out."""

import math

import pytest
import torch
from torch.nn import functional as F

from fewlabel.backbones.families.perceiver import CrossAttend, Perceiver, fourier_positions
from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.registry import create, fit_image_size
from fewlabel.backbones.scale import Scale
from fewlabel.errors import UserError

TINY = {
    "in_chans": 3,
    "bands": 3,
    "latents": 5,
    "width": 16,
    "iterations": 3,
    "self_attends": 2,
    "heads": 4,
    "cross_heads": 1,
    "final_norm": False,
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _sized(name, size, **options):
    with without_weights():
        backbone = create(name, image_size=size, **options)
    return sum(parameter.numel() for parameter in backbone.parameters()), backbone.num_features


@pytest.mark.parametrize(
    ("name", "size", "options", "parameters", "width"),
    [
        ("perceiver_32", 32, {}, 1_971_990, 256),
        ("perceiver", 32, {}, 1_971_990, 256),
        ("perceiver_32", 60, {}, 1_971_990, 256),
        ("perceiver_32", 32, {"final_norm": True}, 1_971_990 + 2 * 256, 256),
        ("perceiver_224", 224, {}, 43_887_254, 1024),
        ("perceiver", 224, {}, 43_887_254, 1024),
        # Sharing is what the published 44,912,254 with a classifier for 1000 classes tells of.
        ("perceiver_224", 224, {"iterations": 2}, 44_912_254 - 1000 * 1025, 1024),
        ("perceiver_224", 224, {"iterations": 1}, 43_887_254 - 2_776_395, 1024),
        ("perceiver_224", 224, {"self_attends": 5}, 43_887_254 - 6_301_696, 1024),
    ],
)
def test_parameters_are_as_published(name, size, options, parameters, width):
    assert _sized(name, size, **options) == (parameters, width)


@pytest.mark.parametrize(
    ("phi", "side", "parameters"),
    [(-1, 28, 1_574_166), (0, 32, 1_971_990), (1, 36, 2_371_862), (2, 42, 4_276_374), (3, 48, 4_899_094)],
)
def test_scaled_sizes(phi, side, parameters):
    with without_weights():
        backbone = create("perceiver", image_size=32, scale=Scale.compound(phi))
    assert backbone.image_size == side
    assert sum(parameter.numel() for parameter in backbone.parameters()) == parameters
    assert (backbone.options["bands"], backbone.body.iterations) == (16, 4)


@pytest.mark.parametrize("channels", [1, 5])
def test_a_pixel_is_as_wide_as_its_channels_and_its_position(channels):
    body = create("perceiver", image_size=8, in_chans=channels).body
    assert body.byte_array(torch.zeros(1, channels, 8, 8)).shape == (1, 64, channels + 2 * (2 * 16 + 1))
    assert body.cross_attends[0].query.out_features == channels + 66


def test_positions_are_sines_and_cosines_of_equally_spaced_bands():
    height, width, bands = 4, 6, 3
    expected = []
    for row in range(height):
        for column in range(width):
            y, x = -1 + 2 * row / (height - 1), -1 + 2 * column / (width - 1)
            of_y = [1 + k * (height / 2 - 1) / (bands - 1) for k in range(bands)]
            of_x = [1 + k * (width / 2 - 1) / (bands - 1) for k in range(bands)]
            expected.append(
                [y, x]
                + [math.sin(math.pi * f * y) for f in of_y]
                + [math.sin(math.pi * f * x) for f in of_x]
                + [math.cos(math.pi * f * y) for f in of_y]
                + [math.cos(math.pi * f * x) for f in of_x]
            )
    positions = fourier_positions(height, width, bands, dtype=torch.float64)
    torch.testing.assert_close(positions, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(("height", "width", "bands"), [(32, 32, 16), (20, 28, 64), (9, 8, 1)])
def test_positions_are_bounded_and_tell_every_pixel_apart(height, width, bands):
    positions = fourier_positions(height, width, bands)
    assert positions.shape == (height * width, 2 * (2 * bands + 1))
    assert positions.abs().max() <= 1
    assert len(positions.unique(dim=0)) == height * width


def _attention(q, k, v, heads):
    """Vaswani et al. 2017, eq. 1, one image and one head at a time."""
    width = q.shape[-1] // heads
    images = []
    for image in range(len(q)):
        columns = [slice(head * width, (head + 1) * width) for head in range(heads)]
        weights = [torch.softmax(q[image][:, c] @ k[image][:, c].T / math.sqrt(width), -1) for c in columns]
        images.append(torch.cat([w @ v[image][:, c] for w, c in zip(weights, columns, strict=True)], -1))
    return torch.stack(images)


def _mlp(mlp, x):
    return mlp.fc2(F.gelu(mlp.fc1(x)))


@pytest.mark.parametrize("cross_heads", [1, 17])
def test_the_network_is_its_equation(cross_heads):
    network = Perceiver(**TINY | {"cross_heads": cross_heads, "final_norm": True}).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    images = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    pixels = images.permute(0, 2, 3, 1).reshape(2, 24, 3)
    positions = fourier_positions(4, 6, 3, dtype=torch.float64)
    byte_array = torch.cat([pixels, torch.stack([positions, positions])], -1)
    latents = torch.cat([network.latents, network.latents])
    for iteration in range(3):
        cross = network.cross_attends[0 if iteration == 0 else 1]
        normed = cross.norm_bytes(byte_array)
        weight, bias = cross.key_value.weight, cross.key_value.bias
        keys, values = F.linear(normed, weight[:17], bias[:17]), F.linear(normed, weight[17:], bias[17:])
        read = _attention(cross.query(cross.norm_latents(latents)), keys, values, cross_heads)
        latents = latents + cross.project(read)
        latents = latents + _mlp(cross.mlp, cross.norm_mlp(latents))
        for block in network.self_attends:
            q, k, v = block.attn.qkv(block.norm1(latents)).chunk(3, -1)
            latents = latents + block.attn.proj(_attention(q, k, v, 4))
            latents = latents + _mlp(block.mlp, block.norm2(latents))
    torch.testing.assert_close(network(images), network.norm(latents).mean(1))


def test_each_latent_spreads_a_weight_of_one_over_the_pixels():
    cross = CrossAttend(8, 5, 1)
    with torch.no_grad():
        # Every pixel has the same value, so what is read is that value times the sum of the weights.
        cross.key_value.weight[5:] = 0
        cross.key_value.bias[5:] = torch.arange(5.0)
        cross.project.weight[:] = torch.eye(8, 5)
        cross.project.bias.zero_()
        cross.mlp.fc2.weight.zero_()
        cross.mlp.fc2.bias.zero_()
        latents = torch.randn(2, 4, 8)
        read = cross(latents, cross.keys_values(torch.randn(2, 30, 5))) - latents
    torch.testing.assert_close(read[..., :5], torch.arange(5.0).expand(2, 4, 5), atol=5e-6, rtol=0)


def test_the_order_of_pixels_matters_only_without_their_positions():
    network = Perceiver(**TINY).eval()
    images = torch.randn(2, 3, 6, 6)
    order = torch.randperm(36)
    with torch.no_grad():
        features = network(images)
        byte_array = network.byte_array(images)
        torch.testing.assert_close(network.read(byte_array[:, order]).mean(1), features, atol=5e-6, rtol=0)
        shuffled = images.flatten(2)[..., order].reshape(images.shape)
        assert (network(shuffled) - features).abs().max() > 1e-3


def test_the_order_of_latents_does_not_matter_but_their_difference_does():
    network = Perceiver(**TINY).eval()
    images = torch.randn(2, 3, 6, 6)
    assert len(network.latents[0].unique(dim=0)) == 5
    with torch.no_grad():
        features = network(images)
        network.latents[:] = network.latents[:, torch.randperm(5)]
        torch.testing.assert_close(network(images), features, atol=5e-6, rtol=0)
        network.latents[:] = network.latents[:, :1]
        alike = network.forward_features(images)
    torch.testing.assert_close(alike, alike[:, :1].expand(-1, 5, -1))


def test_iterations_share_the_self_attends_and_all_but_the_first_cross_attend():
    network = Perceiver(**TINY | {"iterations": 4}).eval()
    calls = []
    for name in ("cross_attends.0", "cross_attends.1", "self_attends"):
        network.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
    images = torch.randn(1, 3, 6, 6)
    with torch.no_grad():
        network(images)
        assert calls == [
            *["cross_attends.0", "self_attends"],
            *["cross_attends.1", "self_attends"] * 3,
        ]
        longer = Perceiver(**TINY | {"iterations": 8}).eval()
        longer.load_state_dict(network.state_dict())
        assert (longer(images) - network(images)).abs().max() > 1e-3


def test_weights_fit_any_height_and_width():
    network = create("perceiver", image_size=28, self_attends=1, iterations=2).body.eval()
    with torch.no_grad():
        for height, width in [(20, 28), (8, 9), (12, 12)]:
            assert network(torch.randn(1, 3, height, width)).shape == (1, 256)
    assert fit_image_size("perceiver", 27) == 27


def test_linear_maps_keep_the_variance_of_their_inputs():
    network = create("perceiver", image_size=8).body
    maps = [*network.cross_attends, network.self_attends[0].attn.qkv, network.self_attends[3].mlp.fc1]
    for module in (m for part in maps for m in part.modules() if isinstance(m, torch.nn.Linear)):
        assert float(module.weight.detach().std()) == pytest.approx(module.in_features**-0.5, rel=0.05)
        assert not module.bias.any()
    assert float(network.latents.detach().std()) == pytest.approx(0.02, rel=0.05)


def test_position_features_follow_the_image_size_and_latents_do_not_decay():
    for name in ("perceiver_32", "perceiver_224"):
        with without_weights():
            assert create(name, image_size=64, self_attends=1).options["bands"] == 16
            backbone = create(name, image_size=65, self_attends=1)
        assert backbone.options["bands"] == 64
        assert backbone.no_weight_decay() == {"body.latents"}


@pytest.mark.parametrize(
    ("options", "gist"),
    [
        ({"heads": 7}, "7 heads don't divide the width 256: take 1, 2, 4"),
        ({"cross_heads": 2}, "2 heads don't divide the width of a pixel with its position 69: take 1, 3, 23 heads"),
        ({"cross_heads": 0}, "0 heads don't divide"),
        ({"bands": 0}, "bands is 0"),
        ({"latents": 0}, "latents is 0"),
        ({"width": 4}, "width is 4"),
        ({"iterations": 0}, "iterations is 0"),
        ({"self_attends": 257}, "self_attends is 257"),
        ({"scale": Scale(width=0.1)}, "Width 0.1 rounds a stage of 256 channels to nothing"),
        ({"scale": Scale(depth=0.1)}, "Depth 0.1 rounds a stage of 4 blocks to nothing"),
    ],
)
def test_bad_options_are_refused(options, gist):
    with pytest.raises(UserError, match=gist), without_weights():
        create("perceiver", image_size=32, **options)
