"""FNet: sizes, and its mixing against the transform's own sums."""

import math

import pytest
import torch
from torch import Tensor

from fewlabel.backbones.families.fnet import FNetBlock, FourierMixing
from fewlabel.backbones.registry import create
from fewlabel.errors import UserError


@pytest.mark.parametrize(
    ("name", "image_size", "options", "expected"),
    [
        ("fnet_tiny_32", 64, {"patch_size": 8, "width": 256, "depth": 4, "mlp_ratio": 1.0}, (596_224, 256)),
        ("fnet", 32, {}, (2_394_816, 192)),
        ("fnet_tiny", 224, {}, (3_744_960, 192)),
        ("fnet", 224, {}, (14_567_808, 384)),
        ("fnet_base", 224, {}, (57_447_168, 768)),
    ],
)
def test_members_have_their_published_size(size_of, name, image_size, options, expected):
    assert size_of(name, image_size, **options) == expected


def test_compound_scaling_has_its_known_sizes(scaled_sizes):
    expected = [(192, 2_654_608), (224, 3_744_960), (256, 5_084_976), (304, 7_617_720), (336, 11_368_192)]
    assert scaled_sizes("fnet_tiny", 224) == expected


def _cosines_and_sines(tokens: Tensor) -> Tensor:
    """C_S X C_D - S_S X S_D, each matrix written out."""

    def matrix(n, function):
        return torch.tensor(
            [[function(2 * math.pi * k * m / n) for m in range(n)] for k in range(n)], dtype=torch.float64
        )

    s, d = tokens.shape[-2:]
    return matrix(s, math.cos) @ tokens @ matrix(d, math.cos) - matrix(s, math.sin) @ tokens @ matrix(d, math.sin)


def _tokens(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def test_mixing_is_the_real_part_of_the_transform_in_sines_and_cosines():
    mixing, tokens = FourierMixing(), _tokens(2, 16, 24)
    assert not list(mixing.parameters())
    torch.testing.assert_close(mixing(tokens), _cosines_and_sines(tokens), atol=3e-12, rtol=0)
    ortho = _cosines_and_sines(tokens) / math.sqrt(16 * 24)
    torch.testing.assert_close(FourierMixing("ortho")(tokens), ortho, atol=3e-12, rtol=0)


def test_mixing_twice_adds_the_tokens_to_their_mirror_image():
    """M(M(X)) = S D / 2 (X + RX) with RX[n, m] = X[-n, -m]; M(X) is its own mirror image."""
    mixing, tokens = FourierMixing(), _tokens(2, 16, 24)

    def mirrored(x):
        return x.flip(-1, -2).roll((1, 1), (-1, -2))

    torch.testing.assert_close(mixing(mixing(tokens)), 16 * 24 / 2 * (tokens + mirrored(tokens)), atol=3e-11, rtol=0)
    torch.testing.assert_close(mixing(tokens), mirrored(mixing(tokens)), atol=3e-12, rtol=0)
    torch.testing.assert_close(mixing(tokens)[:, 0, 0], tokens.sum((1, 2)))


@pytest.mark.parametrize("norm", ["none", "ortho"])
def test_the_gradient_of_mixing_is_exact(norm):
    tokens = _tokens(2, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(FourierMixing(norm), tokens)
    assert torch.autograd.gradgradcheck(FourierMixing(norm), tokens)


def test_mixing_is_computed_in_full_precision_under_autocast():
    tokens = _tokens(2, 16, 24, dtype=torch.float32)
    rounded = tokens.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = FourierMixing()(rounded)
    assert mixed.dtype == torch.bfloat16
    assert torch.equal(mixed, FourierMixing()(rounded.float()).to(torch.bfloat16))


def test_a_block_is_post_norm():
    block = FNetBlock(24, 48, "ortho", 0.0).double()
    tokens = _tokens(2, 16, 24)
    with torch.no_grad():
        y = block.norm_mix(tokens + _cosines_and_sines(tokens) / math.sqrt(16 * 24))
        expected = block.norm_mlp(y + block.mlp.fc2(torch.nn.functional.gelu(block.mlp.fc1(y))))
        torch.testing.assert_close(block(tokens), expected)
        assert block(tokens).mean(-1).abs().max() < 1e-12


def test_the_order_of_patches_counts(random_images):
    backbone = create("fnet", image_size=16, depth=2).eval()
    images = random_images(1, 3, 16)
    with torch.no_grad():
        backbone.body.tokens.positions.zero_()
        swapped = torch.cat([images[..., 4:8], images[..., :4], images[..., 8:]], -1)
        assert (backbone(images) - backbone(swapped)).abs().max() > 1e-3
    assert backbone.no_weight_decay() == {"body.tokens.positions"}


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"mlp_ratio": 0.0}, "mlp_ratio is 0.0: give a number from 0.1"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"fft_norm": "forward"}, "expected none or ortho"),
        ({"patch_size": 5}, "multiple of 5 px"),
    ],
)
def test_bad_options_are_refused(size_of, options, hint):
    with pytest.raises(UserError, match=hint):
        size_of("fnet", 32, **options)
