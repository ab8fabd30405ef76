"""EANet: published sizes, and its equations against plain forms of them."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fewlabel.backbones.cost import count_parameters
from fewlabel.backbones.families.eanet import ExternalAttention, MultiHeadExternalAttention, double_normalization
from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.registry import create
from fewlabel.backbones.scale import Scale
from fewlabel.errors import UserError


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _counted(name, size, **arguments):
    with without_weights():
        return create(name, image_size=size, **arguments)


def _perturb(module):
    """In float64, with no parameter left at a value that would hide it."""
    module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return module


def _plain_normalization(logits):
    """Exponentials divided by their sum over tokens, then by the sum over slots of that."""
    attention = logits.exp()
    attention = attention / attention.sum(-2, keepdim=True)
    return attention / attention.sum(-1, keepdim=True)


@pytest.mark.parametrize(
    ("name", "size", "parameters", "width"),
    [
        ("eanet_keras", 32, 354_880, 64),
        ("eanet_tiny_32", 32, 4_828_736, 192),
        ("eanet_tiny", 224, 7_395_648, 192),
        ("eanet_small", 224, 28_847_232, 384),
    ],
)
def test_published_sizes(name, size, parameters, width):
    backbone = _counted(name, size)
    assert (count_parameters(backbone), backbone.num_features) == (parameters, width)


def test_a_final_norm_adds_a_scale_and_a_shift():
    assert count_parameters(_counted("eanet_keras", 32, final_norm=True)) == 355_008


@pytest.mark.parametrize(("width", "slots", "parameters"), [(256, 64, 533_888), (64, 16, 33_632)])
def test_published_sizes_of_the_multi_head_block(width, slots, parameters):
    with without_weights():
        block = MultiHeadExternalAttention(width, 4, slots, 4, False, 0.0, 0.0)
    assert sum(parameter.numel() for parameter in block.parameters()) == parameters


@pytest.mark.parametrize(("size", "member"), [(32, "eanet_keras"), (64, "eanet_keras"), (80, "eanet_small")])
def test_the_familys_name_stands_for_the_member_of_the_image_size(size, member):
    assert _counted("eanet", size).name == member


@pytest.mark.parametrize(
    ("name", "size", "patch"),
    [("eanet_keras", 64, 2), ("eanet_keras", 80, 16), ("eanet_small", 64, 4), ("eanet_tiny_32", 96, 16)],
)
def test_patches_are_small_up_to_64_px(name, size, patch):
    assert _counted(name, size).options["patch_size"] == patch


@pytest.mark.parametrize(
    ("phi", "side", "parameters"),
    [(-1, 192, 4_765_960), (0, 224, 7_395_648), (1, 256, 10_846_040), (2, 304, 16_172_528), (3, 336, 24_055_176)],
)
def test_scaled_sizes(phi, side, parameters):
    backbone = _counted("eanet_tiny", 224, scale=Scale.compound(phi))
    assert (backbone.image_size, count_parameters(backbone)) == (side, parameters)


def test_the_number_of_tokens_adds_positions_alone():
    few, many = (_counted("eanet_tiny_32", size, depth=1) for size in (16, 64))
    assert count_parameters(many) - count_parameters(few) == (256 - 16) * 192


def test_patch_tokens_are_a_linear_map_of_each_patch():
    body = create("eanet_tiny_32", image_size=16, depth=1).body
    images = torch.randn(2, 3, 16, 16)
    project = body.tokens.project
    patches = F.unfold(images, 4, stride=4).transpose(1, 2)
    expected = F.linear(patches, project.weight.flatten(1), project.bias) + body.tokens.positions
    torch.testing.assert_close(body.tokens(images), expected, rtol=0, atol=3e-5)


@pytest.mark.parametrize(("kept", "moved"), [(False, False), (True, True)])
def test_the_order_of_patches_matters_only_with_positions(kept, moved):
    body = _perturb(create("eanet_keras", image_size=8).body)
    if not kept:
        nn.init.zeros_(body.tokens.positions)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    patches = F.unfold(images, 2, stride=2)
    shuffled = F.fold(patches[:, :, torch.randperm(16)], (8, 8), 2, stride=2)
    with torch.no_grad():
        difference = (body(shuffled) - body(images)).abs().max()
    assert difference > 1e-3 if moved else difference < 1e-12


def test_weights_of_a_token_sum_to_one_and_those_of_a_slot_do_not():
    weights = ExternalAttention(8, 16).eval().weights(torch.randn(3, 50, 8))
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 50), rtol=0, atol=2e-6)
    assert (weights > 0).all()
    # About tokens over slots, 50 / 16.
    assert ((weights.sum(-2) > 2.9) & (weights.sum(-2) < 3.4)).all()


def test_tokens_all_the_same_attend_to_all_slots_alike():
    weights = ExternalAttention(8, 16).weights(torch.randn(8).expand(1, 50, 8))
    torch.testing.assert_close(weights, torch.full((1, 50, 16), 1 / 16), rtol=0, atol=7e-8)


def test_shuffled_tokens_get_shuffled_answers():
    attention, tokens, order = ExternalAttention(8, 16), torch.randn(3, 50, 8), torch.randperm(50)
    torch.testing.assert_close(attention(tokens[:, order]), attention(tokens)[:, order], rtol=0, atol=6e-7)


def test_tokens_hear_of_each_other():
    attention, tokens = _perturb(ExternalAttention(8, 16)), torch.randn(1, 50, 8, dtype=torch.float64)
    changed = tokens.clone()
    changed[0, 0] += 1
    with torch.no_grad():
        assert (attention(changed) - attention(tokens))[0, 1:].abs().amin(0).max() > 1e-5


@pytest.mark.parametrize("tied", [False, True])
def test_a_single_head_is_the_formula(tied):
    attention = _perturb(ExternalAttention(8, 16, tied=tied))
    tokens = torch.randn(3, 50, 8, dtype=torch.float64)
    values = attention.keys if tied else attention.own_values
    expected = _plain_normalization(tokens @ attention.keys.T) @ values
    torch.testing.assert_close(attention(tokens), expected)
    assert {name for name, _ in attention.named_parameters()} == ({"keys"} if tied else {"keys", "own_values"})


def test_the_bias_of_the_logits_is_used_yet_has_no_gradient():
    attention = _perturb(ExternalAttention(8, 16, bias=True))
    tokens = torch.randn(2, 50, 8, dtype=torch.float64)
    (attention(tokens) * torch.randn(2, 50, 8)).sum().backward()
    assert attention.key_bias.grad.abs().max() < 1e-12
    assert attention.keys.grad.abs().max() > 1e-2


def test_answers_lie_in_the_row_space_of_the_values():
    attention = _perturb(ExternalAttention(12, 5))
    with torch.no_grad():
        answers = attention(torch.randn(40, 12, dtype=torch.float64))
        shares = torch.linalg.lstsq(attention.values.T, answers.T).solution
    torch.testing.assert_close(attention.values.T @ shares, answers.T)
    assert torch.linalg.matrix_rank(answers) == 5


@pytest.mark.parametrize("scale", [1, 20])
def test_normalization_is_the_plain_one_with_float64_to_spare(scale):
    logits = scale * torch.randn(1024, 64)
    expected = _plain_normalization(logits.double())
    torch.testing.assert_close(double_normalization(logits).double(), expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sharp_logits_in_half_precision_are_normalised_in_float32(dtype):
    logits = (20 * torch.randn(1024, 64)).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        weights = double_normalization(logits)
    assert weights.dtype == dtype
    expected = _plain_normalization(logits.double())
    # Rounded once, at the end.
    torch.testing.assert_close(weights.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-6)
    torch.testing.assert_close(weights.double().sum(-1), torch.ones(1024).double(), rtol=0, atol=1e-2)


@pytest.mark.parametrize("tied", [False, True])
def test_the_whole_network_is_its_equations(tied):
    options = {"width": 16, "heads": 2, "depth": 2, "slots": 5, "expansion": 3, "mlp_ratio": 2.0, "final_norm": True}
    body = _perturb(create("eanet_keras", image_size=8, tied_memories=tied, **options).body)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    weights = body.state_dict()
    with torch.no_grad():
        for tokens, feature in zip(body.tokens(images), body(images), strict=True):
            for block in ("blocks.0", "blocks.1"):
                tokens = _slow_block(tokens, {k.removeprefix(block + "."): v for k, v in weights.items() if block in k})
            tokens = _slow_norm(tokens, weights["norm.weight"], weights["norm.bias"])
            torch.testing.assert_close(feature, tokens.sum(0) / 16)


def _slow_norm(tokens, weight, bias):
    centred = tokens - tokens.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt() * weight + bias


def _slow_block(tokens, weights):
    normed = _slow_norm(tokens, weights["norm_attention.weight"], weights["norm_attention.bias"])
    wide = normed @ weights["attention.expand.weight"].T + weights["attention.expand.bias"]
    keys = weights["attention.memory.keys"]
    values = weights.get("attention.memory.own_values", keys)
    heads = []
    for head in range(6):
        logits = wide[:, 8 * head : 8 * head + 8] @ keys.T + weights["attention.memory.key_bias"]
        heads.append(_plain_normalization(logits) @ values + weights["attention.memory.value_bias"])
    tokens = tokens + torch.cat(heads, 1) @ weights["attention.merge.weight"].T + weights["attention.merge.bias"]
    normed = _slow_norm(tokens, weights["norm_mlp.weight"], weights["norm_mlp.bias"])
    hidden = normed @ weights["mlp.fc1.weight"].T + weights["mlp.fc1.bias"]
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    return tokens + hidden @ weights["mlp.fc2.weight"].T + weights["mlp.fc2.bias"]


def test_tied_memories_are_one_parameter_and_stay_so():
    free, tied = _counted("eanet_keras", 32), _counted("eanet_keras", 32, tied_memories=True)
    assert count_parameters(free) - count_parameters(tied) == 8 * 16 * 16
    attention = ExternalAttention(8, 16, tied=True).to(torch.float64)
    with torch.no_grad():
        attention.keys += 1
    assert torch.equal(attention.values, attention.keys)


def test_initial_weights_are_those_published():
    body = create("eanet_tiny_32", image_size=32, depth=2).body
    deviations = {name: parameter.std().item() for name, parameter in body.named_parameters() if parameter.ndim > 1}
    # A convolution, left as torch fills it.
    del deviations["tokens.project.weight"]
    assert deviations == pytest.approx(dict.fromkeys(deviations, 0.02), rel=0.05)
    zero = [name for name, _ in body.named_parameters() if name.startswith("blocks") and name.endswith("bias")]
    assert not any(body.get_parameter(name).any() for name in zero)


@pytest.mark.parametrize("option", ["dropout", "attention_dropout"])
def test_what_is_dropped_is_dropped_in_training_alone(option):
    backbone = create("eanet_keras", image_size=8, depth=1, **{option: 0.5})
    images = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        assert not torch.equal(backbone(images), backbone(images))
        backbone.eval()
        torch.testing.assert_close(backbone(images), backbone(images), rtol=0, atol=0)


def test_dropout_follows_attention_and_both_layers_of_the_mlp():
    body = _counted("eanet_keras", 32, depth=1, dropout=0.25, attention_dropout=0.5).body
    called = []
    for name, module in body.named_modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda module, inputs, out, name=name: called.append((name, module.p)))
    body(torch.empty(2, 3, 32, 32, device="meta"))
    rates = {"attention.memory.dropout": 0.5, "attention.dropout": 0.25, "mlp.drop1": 0.25, "mlp.drop2": 0.25}
    assert called == [(f"blocks.0.{name}", rate) for name, rate in rates.items()]


def test_only_positions_ask_for_no_weight_decay():
    assert _counted("eanet", 32).no_weight_decay() == {"body.tokens.positions"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "3 heads don't divide the width 64"),
        ({"width": 4}, "width is 4"),
        ({"depth": 0}, "depth is 0"),
        ({"slots": 0}, "slots is 0"),
        ({"expansion": 17}, "expansion is 17"),
        ({"mlp_ratio": 17.0}, "mlp_ratio is 17"),
        ({"patch_size": 0}, "patch_size is 0"),
        ({"patch_size": 5}, "multiple of 5 px"),
        ({"dropout": 1.0}, "^dropout is 1"),
        ({"attention_dropout": -0.1}, "attention_dropout is -0.1"),
        ({"tied_memories": 1}, "expected true or false"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        _counted("eanet", 32, **options)
