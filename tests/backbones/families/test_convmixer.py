"""ConvMixer: its sizes, its layer, its reach."""

import pytest
import timm
import torch
from torch.nn import functional as F

from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.registry import create
from fewlabel.errors import UserError

PUBLISHED = ["convmixer_768_32", "convmixer_1024_20_ks9_p14", "convmixer_1536_20"]


@pytest.mark.parametrize(
    ("name", "size", "options", "parameters", "width"),
    [
        ("convmixer", 32, {}, 591_616, 256),
        ("convmixer_256_8", 32, {"kernel_size": 9, "patch_size": 1}, 704_000, 256),
        ("convmixer_768_32", 224, {}, 20_341_248, 768),
        ("convmixer_1024_20_ks9_p14", 224, {}, 23_358_464, 1024),
        ("convmixer", 224, {}, 23_358_464, 1024),
        ("convmixer_1536_20", 224, {}, 50_088_960, 1536),
    ],
)
def test_members_have_their_published_size(size_of, name, size, options, parameters, width):
    assert size_of(name, size, **options) == (parameters, width)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        (
            "convmixer_256_8",
            32,
            [(28, 430_592), (32, 591_616), (36, 875_000), (42, 1_288_872), (48, 1_811_160)],
        ),
        (
            "convmixer_768_32",
            224,
            [(196, 14_217_192), (224, 20_341_248), (259, 29_225_472), (294, 42_101_504), (343, 60_922_880)],
        ),
    ],
)
def test_compound_scaling_has_its_known_sizes(scaled_sizes, name, size, expected):
    assert scaled_sizes(name, size) == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_members_are_those_of_timm(name):
    with without_weights():
        ours, theirs = create(name, image_size=224).body, timm.create_model(name, num_classes=0)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


def test_the_output_is_that_of_timm():
    ours = create("convmixer_768_32", image_size=14, patch_size=7).eval().body
    theirs = timm.create_model("convmixer_768_32", num_classes=0).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 14, 14)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=0)


@pytest.mark.parametrize(("size", "patch"), [(12, 2), (64, 2), (70, 14)])
def test_the_map_has_the_images_side_over_the_patchs(size, patch):
    with without_weights():
        backbone = create("convmixer_1024_20_ks9_p14", image_size=size)
        features = backbone.body.forward_features(torch.empty(1, 3, size, size))
    assert backbone.options["patch_size"] == patch
    assert features.shape == (1, 1024, size // patch, size // patch)


def _layer(activation="gelu"):
    backbone = create("convmixer_256_8", image_size=32, width=16, depth=1, activation=activation).eval()
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return backbone.body.blocks[0]


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_a_layer_is_its_equation(activation):
    """Trockman and Kolter 2022, eq. 2 and 3: the activation comes first, the skip path is around the depthwise part."""

    def act(x):
        return x.clamp(min=0) if activation == "relu" else x * 0.5 * (1 + torch.erf(x / 2**0.5))

    def batch_norm(x, norm):
        mean, variance, weight, bias = (
            v[:, None, None] for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        return (x - mean) / (variance + norm.eps).sqrt() * weight + bias

    layer = _layer(activation)
    (residual, pointwise, _, second) = layer
    depthwise, _, first = residual.fn
    maps = torch.randn(2, 16, 7, 7)
    with torch.no_grad():
        channels = [
            F.conv2d(maps[:, c : c + 1], depthwise.weight[c : c + 1], depthwise.bias[c : c + 1], padding=2)
            for c in range(16)
        ]
        mixed = maps + batch_norm(act(torch.cat(channels, 1)), first)
        projected = torch.einsum("oc,bchw->bohw", pointwise.weight[:, :, 0, 0], mixed)
        expected = batch_norm(act(projected + pointwise.bias[:, None, None]), second)
        torch.testing.assert_close(layer(maps), expected, atol=1e-5, rtol=1e-5)


def test_a_layer_reaches_half_a_kernel():
    layer = _layer()
    maps = torch.randn(1, 16, 11, 11)
    changed = maps.clone()
    changed[:, :, 5, 5] += torch.randn(16)
    with torch.no_grad():
        reached = (layer(changed) != layer(maps)).any(1)[0]
    expected = torch.zeros(11, 11, dtype=torch.bool)
    expected[3:8, 3:8] = True
    assert torch.equal(reached, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 4}, "odd number"),
        ({"kernel_size": 65}, "from 1 to 63"),
        ({"patch_size": 0}, "from 1 to 256"),
        ({"patch_size": 5}, "multiple of 5"),
        ({"width": 7}, "from 8"),
        ({"depth": 257}, "to 256"),
        ({"activation": "tanh"}, "gelu or relu"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        create("convmixer", image_size=32, **options)


def test_a_side_that_patches_do_not_fill_is_refused():
    with pytest.raises(UserError, match="84 and 98"):
        create("convmixer_1024_20_ks9_p14", image_size=96)
