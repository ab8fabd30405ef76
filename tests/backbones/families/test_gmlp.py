"""gMLP: its sizes, its gate, and how the gate starts."""

import pytest
import timm
import torch
from torch.nn import functional as F

from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.registry import create
from fewlabel.errors import UserError


@pytest.mark.parametrize(
    ("name", "size", "options", "parameters", "width"),
    [
        ("gmlp", 32, {}, 1_848_960, 128),
        ("gmlp_tiny_32", 32, {"depth": 30}, 4_612_608, 128),
        ("gmlp_ti16_224", 224, {}, 5_738_328, 128),
        ("gmlp", 224, {}, 5_738_328, 128),
        ("gmlp_s16_224", 224, {}, 19_165_656, 256),
        ("gmlp_b16_224", 224, {}, 72_562_392, 512),
    ],
)
def test_members_have_their_published_size(size_of, name, size, options, parameters, width):
    assert size_of(name, size, **options) == (parameters, width)


def test_compound_scaling_has_its_known_sizes(scaled_sizes):
    expected = [(192, 3_899_520), (224, 5_738_328), (256, 9_275_760), (304, 14_775_806), (336, 23_605_344)]
    assert scaled_sizes("gmlp_ti16_224", 224) == expected


@pytest.mark.parametrize("name", ["gmlp_ti16_224", "gmlp_s16_224", "gmlp_b16_224"])
def test_members_are_those_of_timm(name):
    with without_weights():
        ours, theirs = create(name, image_size=224).body, timm.create_model(name, num_classes=0)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


def test_the_output_is_that_of_timm():
    ours = create("gmlp_ti16_224", image_size=64, patch_size=16).eval().body
    theirs = timm.create_model("gmlp_ti16_224", num_classes=0, img_size=64).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=0)


def test_every_gate_starts_as_the_identity_on_the_first_half():
    """Liu et al. 2021, section 2.1: W near zero and b one, so that s(z) is about z_1."""
    body = create("gmlp", image_size=16).body
    z = torch.randn(2, 16, 768)
    assert len(body.blocks) == 12
    for block in body.blocks:
        gate = block.mlp_channels.gate
        assert gate.proj.weight.std().item() == pytest.approx(1e-6, rel=0.3)
        assert torch.equal(gate.proj.bias, torch.ones(16))
        with torch.no_grad():
            torch.testing.assert_close(gate(z), z[..., :384], atol=1e-3, rtol=0)


def test_a_block_is_its_equation():
    """Liu et al. 2021, eq. 1 to 4: the second half is normalised, mixed over tokens, and gates the first."""
    (block,) = create("gmlp", image_size=16, width=16, depth=1).eval().body.blocks
    mlp = block.mlp_channels
    gate = mlp.gate
    torch.nn.init.normal_(gate.proj.weight)
    torch.nn.init.normal_(gate.proj.bias)
    tokens = torch.randn(2, 16, 16)
    with torch.no_grad():
        z = F.gelu(F.linear(F.layer_norm(tokens, (16,), eps=1e-6), mlp.fc1.weight, mlp.fc1.bias))
        first, second = z[..., :48], F.layer_norm(z[..., 48:], (48,))
        gates = torch.stack(
            [sum(gate.proj.weight[n, m] * second[:, m] for m in range(16)) + gate.proj.bias[n] for n in range(16)],
            dim=1,
        )
        expected = tokens + F.linear(first * gates, mlp.fc2.weight, mlp.fc2.bias)
        torch.testing.assert_close(block(tokens), expected, atol=1e-5, rtol=1e-5)


def test_the_patch_embedding_is_unfold_and_linear():
    stem = create("gmlp", image_size=16, depth=1).body.stem
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        patches = F.unfold(images, kernel_size=4, stride=4).transpose(1, 2)
        linear = F.linear(patches, stem.proj.weight.flatten(1), stem.proj.bias)
        torch.testing.assert_close(stem(images), linear, atol=2.6e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mlp_ratio": 3}, "even number"),
        ({"mlp_ratio": 18}, "from 2 to 16"),
        ({"patch_size": 5}, "multiple of 5"),
        ({"width": 4}, "from 8"),
        ({"depth": 0}, "from 1 to 256"),
        ({"token_mlp_ratio": 0.5}, "no option 'token_mlp_ratio'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        create("gmlp", image_size=32, **options)
