"""What every network must do, and what makes each family what it is."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from fewlabel.backbones.registry import create
from fewlabel.backbones.stem import use_small_stem

FAMILIES = ["resnet", "senet", "mobilenet", "efficientnet", "vit"]
SMALLEST = ["resnet10t", "resnetv2_18", "mobilenetv1_100", "mobilenetv3_small_050", "mobilenetv4_conv_small"]


def _images(batch, channels, size, seed=0):
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", [*FAMILIES, *SMALLEST, "timm/deit_tiny_patch16_224"])
def test_no_image_sees_another_in_eval_mode(name):
    backbone = create(name, image_size=32).eval()
    images = _images(3, 3, 32)
    with torch.no_grad():
        together = backbone(images)
        alone = torch.cat([backbone(image[None]) for image in images])
    assert together.shape == (3, backbone.num_features)
    assert together.dtype == torch.float32
    assert (together - alone).abs().max() < 2e-5 * together.abs().max()


@pytest.mark.parametrize(("size", "bf16"), [(32, False), (16, False), (16, True)])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_gets_a_finite_gradient(name, size, bf16):
    backbone = create(name, image_size=size)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        features = backbone(_images(2, 3, size))
    assert features.isfinite().all()
    # A sum would have no gradient through a normalisation.
    (features.float() * _images(1, 1, backbone.num_features)[0, 0, 0]).sum().backward()
    for parameter_name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("size", [8, 12, 28, 96])
@pytest.mark.parametrize("name", FAMILIES)
def test_other_sizes_work(name, size):
    options = {"patch_size": 16} if (name, size) == ("vit", 96) else {}
    member = {"resnet": "resnet18", "senet": "seresnet18", "vit": "vit_tiny_patch16_224"}.get(name, name)
    backbone = create(member, image_size=size, in_chans=1, **options).eval()
    with torch.no_grad():
        assert backbone(_images(2, 1, size)).isfinite().all()


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_first_layer_takes_any_number_of_channels(name, channels):
    backbone = create(name, image_size=16, in_chans=channels).eval()
    images = _images(2, channels, 16).requires_grad_()
    backbone(images).square().sum().backward()
    # Each channel reaches the features.
    assert (images.grad.abs().sum((0, 2, 3)) > 0).all()


@pytest.mark.parametrize("name", [*FAMILIES[:4], "resnet50d", "resnetv2_18", "mobilenetv3_small_100"])
def test_a_32_px_image_ends_in_a_4x4_map_only_with_the_small_stem(name):
    for small_stem, side in [(None, 4), (True, 4), (False, 1)]:
        backbone = create(name, image_size=32, small_stem=small_stem)
        assert backbone.options["small_stem"] is (small_stem is not False)
        with torch.no_grad():
            assert backbone.eval().body.forward_features(_images(1, 3, 32)).shape[-1] == side
    assert create(name, image_size=65).options["small_stem"] is False


def test_the_small_stem_is_never_applied_twice():
    model = timm.create_model("resnet18", num_classes=0)
    use_small_stem(model)
    with pytest.raises(ValueError, match="already has"):
        use_small_stem(model)


@pytest.mark.parametrize("name", [*FAMILIES, "timm/deit_tiny_patch16_224"])
def test_options_rebuild_the_same_network(name):
    first = create(name, image_size=32, in_chans=1)
    again = create(first.name, image_size=first.image_size, in_chans=first.in_chans, **first.options)
    assert again.timm_call == first.timm_call
    assert [v.shape for v in again.state_dict().values()] == [v.shape for v in first.state_dict().values()]


@pytest.mark.parametrize("name", [*FAMILIES, "timm/deit_tiny_patch16_224"])
def test_nothing_is_random_in_training_unless_asked_for(name):
    backbone = create(name, image_size=32)
    # Batch statistics don't depend on the call, so two passes agree but for dropping.
    images = _images(4, 3, 32)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), backbone(images), rtol=0, atol=0)


def test_stochastic_depth_is_random_when_asked_for():
    backbone = create("vit", image_size=16, drop_path_rate=0.5)
    images = _images(4, 3, 16)
    with torch.no_grad():
        assert not torch.equal(backbone(images), backbone(images))


def test_convolutional_networks_want_channels_last():
    wanted = {name: create(name, image_size=32).channels_last for name in [*FAMILIES, "timm/deit_tiny_patch16_224"]}
    assert [name for name, value in wanted.items() if value] == FAMILIES[:4]


def test_positions_and_tokens_are_exempt_from_weight_decay():
    backbone = create("vit", image_size=16)
    exempt = backbone.no_weight_decay()
    assert exempt == {"body.cls_token", "body.pos_embed"}
    assert exempt <= {name for name, _ in backbone.named_parameters()}
    assert create("resnet", image_size=16).no_weight_decay() == set()


def test_the_se_gate_is_a_half_without_weights_and_open_with_a_large_bias():
    gate = create("senet", image_size=16).body.layer1[0].se
    features = _images(2, 64, 5)
    nn.init.zeros_(gate.fc2.weight)
    nn.init.zeros_(gate.fc2.bias)
    with torch.no_grad():
        torch.testing.assert_close(gate(features), features / 2, rtol=0, atol=0)
        nn.init.constant_(gate.fc2.bias, 30.0)
        torch.testing.assert_close(gate(features), features)


def test_the_se_gate_sees_the_channel_means_alone():
    """Hu et al. 2017, eq. 2-4: s = sigmoid(W2 relu(W1 mean(u) + b1) + b2), out = s u."""
    gate = create("senet", image_size=16).body.layer1[0].se
    features = _images(2, 64, 5)
    first, second = gate.fc1, gate.fc2
    with torch.no_grad():
        squeezed = F.relu(F.linear(features.mean((2, 3)), first.weight.flatten(1), first.bias))
        s = torch.sigmoid(F.linear(squeezed, second.weight.flatten(1), second.bias))
        torch.testing.assert_close(gate(features), s[:, :, None, None] * features)


def test_depthwise_separable_convolutions_cost_one_over_n_plus_one_over_k_squared():
    """Howard et al. 2017, section 3.1: weights relative to a full convolution are 1/N + 1/K^2."""
    body = create("mobilenetv1_100", image_size=32).body
    seen = 0
    for block in [block for stage in body.blocks for block in stage]:
        depthwise, pointwise = block.conv_dw.weight, block.conv_pw.weight
        n, m, k = pointwise.shape[0], pointwise.shape[1], depthwise.shape[-1]
        split = depthwise.numel() + pointwise.numel()
        assert split / (n * m * k * k) == pytest.approx(1 / n + 1 / k**2, abs=1e-12)
        seen += 1
    assert seen == 13


def test_the_convolutional_patch_embedding_is_unfold_and_linear():
    embedding = create("vit", image_size=32).body.patch_embed
    images = _images(2, 3, 32)
    with torch.no_grad():
        patches = F.unfold(images, kernel_size=4, stride=4).transpose(1, 2)
        linear = F.linear(patches, embedding.proj.weight.flatten(1), embedding.proj.bias)
        torch.testing.assert_close(embedding(images), linear, atol=2.6e-5, rtol=0)


@pytest.mark.parametrize(("pool", "tokens"), [("cls", 65), ("gap", 64)])
def test_a_32_px_image_makes_64_patch_tokens_and_perhaps_a_class_token(pool, tokens):
    backbone = create("vit", image_size=32, pool=pool).eval()
    images = _images(1, 3, 32)
    with torch.no_grad():
        sequence = backbone.body.forward_features(images)
        assert sequence.shape == (1, tokens, 192)
        expected = sequence[:, 0] if pool == "cls" else backbone.body.fc_norm(sequence.mean(1))
        torch.testing.assert_close(backbone(images), expected)


def test_without_positions_the_pooled_feature_ignores_the_order_of_patches():
    body = create("vit", image_size=16, pool="gap").eval().body
    images = _images(2, 3, 16)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    shuffled = F.fold(F.unfold(images, 4, stride=4)[:, :, order], (16, 16), 4, stride=4)
    with torch.no_grad():
        assert (body(images) - body(shuffled)).abs().max() > 1e-3
        body.pos_embed.zero_()
        torch.testing.assert_close(body(images), body(shuffled), atol=6e-6, rtol=0)
