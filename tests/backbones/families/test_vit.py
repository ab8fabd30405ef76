"""ViT: published sizes, its options, and what its tokens are."""

import pytest
import torch
from torch.nn import functional as F

from fewlabel.backbones.registry import create
from fewlabel.errors import UserError

PUBLISHED = {
    "vit_tiny_patch16_224": (5_524_416, 192),
    "vit_small_patch32_224": (22_493_952, 384),
    "vit_small_patch16_224": (21_665_664, 384),
    "vit_small_patch8_224": (21_670_272, 384),
    "vit_base_patch32_224": (87_455_232, 768),
    "vit_base_patch16_224": (85_798_656, 768),
    "vit_base_patch8_224": (85_807_872, 768),
    "vit_large_patch16_224": (303_301_632, 1024),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_members_have_their_published_size(size_of, name):
    assert size_of(name, 224) == PUBLISHED[name]


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 5_360_832),
        ({"pool": "gap"}, 5_360_448),
        ({"patch_size": 8}, 5_379_264),
        ({"patch_size": 2}, 5_390_784),
        # No position table of 65 tokens.
        ({"positions": "none"}, 5_360_832 - 65 * 192),
        # An attention that pools, less the class token and its place.
        ({"pool": "map"}, 5_360_448 + 444_672),
    ],
)
def test_options_change_the_size_as_they_should(size_of, options, parameters):
    assert size_of("vit", 32, **options) == (parameters, 192)


def test_compound_scaling_has_its_known_sizes(scaled_sizes):
    expected = [(192, 3_562_776), (224, 5_524_416), (256, 8_099_784), (304, 12_075_600), (336, 17_955_960)]
    assert scaled_sizes("vit_tiny_patch16_224", 224) == expected


def test_the_convolutional_patch_embedding_is_unfold_and_linear(random_images):
    embedding = create("vit", image_size=32).body.patch_embed
    images = random_images(2, 3, 32)
    with torch.no_grad():
        patches = F.unfold(images, kernel_size=4, stride=4).transpose(1, 2)
        linear = F.linear(patches, embedding.proj.weight.flatten(1), embedding.proj.bias)
        torch.testing.assert_close(embedding(images), linear, atol=2.6e-5, rtol=0)


@pytest.mark.parametrize(("pool", "tokens"), [("cls", 65), ("gap", 64), ("max", 64), ("avgmax", 64), ("map", 64)])
def test_a_32_px_image_makes_64_patch_tokens_and_perhaps_a_class_token(random_images, pool, tokens):
    backbone = create("vit", image_size=32, pool=pool).eval()
    images = random_images(1, 3, 32)
    with torch.no_grad():
        sequence = backbone.body.forward_features(images)
        assert sequence.shape == (1, tokens, 192)
        expected = {
            "cls": lambda: sequence[:, 0],
            "gap": lambda: backbone.body.fc_norm(sequence.mean(1)),
            "max": lambda: backbone.body.fc_norm(sequence.amax(1)),
            "avgmax": lambda: backbone.body.fc_norm((sequence.amax(1) + sequence.mean(1)) / 2),
            "map": lambda: backbone.body.fc_norm(backbone.body.attn_pool(sequence)),
        }[pool]()
        torch.testing.assert_close(backbone(images), expected)


def test_without_positions_the_pooled_feature_ignores_the_order_of_patches(random_images):
    images = random_images(2, 3, 16)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    shuffled = F.fold(F.unfold(images, 4, stride=4)[:, :, order], (16, 16), 4, stride=4)
    for positions, same in (("learned", False), ("none", True)):
        backbone = create("vit", image_size=16, pool="gap", positions=positions).eval()
        with torch.no_grad():
            difference = (backbone(images) - backbone(shuffled)).abs().max()
        assert difference < 6e-6 if same else difference > 1e-3


def test_positions_and_tokens_are_exempt_from_weight_decay():
    backbone = create("vit", image_size=16)
    exempt = backbone.no_weight_decay()
    assert exempt == {"body.cls_token", "body.pos_embed"}
    assert exempt <= {name for name, _ in backbone.named_parameters()}


def test_the_class_token_sees_every_patch(random_images):
    backbone = create("vit", image_size=16)
    images = random_images(1, 3, 16).requires_grad_()
    (backbone(images) * random_images(1, 1, 192)[0, 0, 0]).sum().backward()
    patches = F.unfold(images.grad, 4, stride=4).abs().sum(1)
    assert (patches > 0).all()


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"heads": 5}, "5 heads don't divide the width 192: take 1, 2, 3, 4"),
        ({"depth": 0}, "depth is 0"),
        ({"patch_size": 0}, "patch_size is 0"),
        ({"patch_size": 64}, "a multiple of 64 px, not 32 px. The nearest that work: 64 px"),
        ({"depth": 10**6}, "from 1 to 256"),
    ],
)
def test_bad_options_are_refused(size_of, options, hint):
    with pytest.raises(UserError, match=hint):
        size_of("vit", 32, **options)
