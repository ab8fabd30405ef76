"""MLP-Mixer: its sizes, and what each of its two MLPs sees."""

import pytest
import timm
import torch
from torch.nn import functional as F

from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.registry import create
from fewlabel.errors import UserError

PUBLISHED = ["mixer_s32_224", "mixer_s16_224", "mixer_b32_224", "mixer_b16_224", "mixer_l16_224"]


@pytest.mark.parametrize(
    ("name", "size", "options", "parameters", "width"),
    [
        ("mixer", 32, {}, 4_358_400, 256),
        ("mixer_tiny_32", 32, {}, 4_358_400, 256),
        ("mixer_s32_224", 224, {}, 18_591_624, 512),
        ("mixer_s16_224", 224, {}, 18_015_264, 512),
        ("mixer", 224, {}, 18_015_264, 512),
        ("mixer_s16_224", 64, {"patch_size": 16}, 17_276_544, 512),
        ("mixer_s16_224", 32, {"patch_size": 16}, 17_227_296, 512),
        ("mixer_b32_224", 224, {}, 59_524_428, 768),
        ("mixer_b16_224", 224, {}, 59_111_472, 768),
        ("mixer_l16_224", 224, {}, 207_171_168, 1024),
    ],
)
def test_members_have_their_published_size(size_of, name, size, options, parameters, width):
    assert size_of(name, size, **options) == (parameters, width)


def test_compound_scaling_has_its_known_sizes(scaled_sizes):
    expected = [(192, 12_913_896), (224, 18_015_264), (256, 27_009_120), (304, 39_645_780), (336, 56_608_014)]
    assert scaled_sizes("mixer_s16_224", 224) == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_members_are_those_of_timm(name):
    with without_weights():
        ours, theirs = create(name, image_size=224).body, timm.create_model(name, num_classes=0)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


def test_the_output_is_that_of_timm():
    ours = create("mixer_s16_224", image_size=32, patch_size=16).eval().body
    theirs = timm.create_model("mixer_s16_224", num_classes=0, img_size=32).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["mixer_tiny_32", "mixer_l16_224"])
def test_patches_are_small_for_small_images(name):
    with without_weights():
        assert [create(name, image_size=size).options["patch_size"] for size in (12, 64, 96)] == [4, 4, 16]


@pytest.fixture
def body():
    return create("mixer", image_size=16, width=24, depth=1).eval().body


def _mlp(x, mlp):
    return F.gelu(x @ mlp.fc1.weight.T + mlp.fc1.bias) @ mlp.fc2.weight.T + mlp.fc2.bias


def test_a_block_mixes_each_channel_over_tokens_then_each_token_over_channels(body):
    """Tolstikhin et al. 2021, eq. 1, written for each channel and each token alone."""
    (block,) = body.blocks
    tokens = torch.randn(2, 16, 24)
    with torch.no_grad():
        normalized = F.layer_norm(tokens, (24,), eps=1e-6)
        mixed = tokens.clone()
        for channel in range(24):
            mixed[:, :, channel] += _mlp(normalized[:, :, channel], block.mlp_tokens)
        expected = mixed.clone()
        for token in range(16):
            expected[:, token] += _mlp(F.layer_norm(mixed[:, token], (24,), eps=1e-6), block.mlp_channels)
        torch.testing.assert_close(block(tokens), expected, atol=1e-5, rtol=1e-5)
    assert block.mlp_tokens.fc1.weight.shape == (12, 16)
    assert block.mlp_channels.fc1.weight.shape == (96, 24)


def test_the_mlp_ratios_are_options():
    with without_weights():
        backbone = create("mixer", image_size=16, width=24, depth=1, token_mlp_ratio=2, channel_mlp_ratio=0.5)
    (block,) = backbone.body.blocks
    assert (block.mlp_tokens.fc1.out_features, block.mlp_channels.fc1.out_features) == (48, 12)


def test_the_patch_embedding_is_unfold_and_linear(body):
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        patches = F.unfold(images, kernel_size=4, stride=4).transpose(1, 2)
        linear = F.linear(patches, body.stem.proj.weight.flatten(1), body.stem.proj.bias)
        torch.testing.assert_close(body.stem(images), linear, atol=2.6e-5, rtol=0)


def test_the_order_of_patches_matters_without_a_position_table(body):
    assert not [name for name, _ in body.named_parameters() if "pos" in name]
    images = torch.randn(1, 3, 16, 16)
    shuffled = images.roll(4, 3)
    with torch.no_grad():
        assert (body(images) - body(shuffled)).abs().max() > 1e-3
        for parameter in body.blocks[0].mlp_tokens.parameters():
            parameter.zero_()
        # The other parts see each token alone, and the feature is the mean over tokens.
        torch.testing.assert_close(body(images), body(shuffled), atol=6e-6, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 5}, "multiple of 5"),
        ({"patch_size": 0}, "from 1 to 256"),
        ({"width": 4}, "from 8"),
        ({"depth": 0}, "from 1 to 256"),
        ({"token_mlp_ratio": 0.0}, "from 0.125"),
        ({"channel_mlp_ratio": 17.0}, "to 16"),
        ({"drop_path_rate": 1.0}, "probability"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        create("mixer", image_size=32, **options)
