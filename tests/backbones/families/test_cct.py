"""CCT: published sizes, and its equations against plain forms of them."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fewlabel.backbones.cost import count_parameters
from fewlabel.backbones.families.cct import ConvTokenizer, SeqPool
from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.registry import create
from fewlabel.backbones.scale import Scale
from fewlabel.errors import UserError

SMALL = {"depth": 2, "width": 32, "heads": 2}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _counted(name, size, **arguments):
    with without_weights():
        return create(name, image_size=size, **arguments)


def _perturbed(size, **options):
    """In float64, with no parameter left at a value that would hide it."""
    body = create("cct_2_3x2", image_size=size, **{**SMALL, **options}).double().eval().body
    with torch.no_grad():
        for parameter in body.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return body


# Member, image size, tokens, parameters, feature width.
@pytest.mark.parametrize(
    ("name", "size", "tokens", "parameters", "width"),
    [
        ("cct_2_3x2", 32, 64, 282_433, 128),
        ("cct_4_3x2", 32, 64, 480_833, 128),
        ("cct_6_3x1", 32, 256, 3_231_233, 256),
        ("cct_6_3x2", 32, 64, 3_324_353, 256),
        ("cct_7_3x1", 32, 256, 3_757_569, 256),
        ("cct_7_3x2", 32, 64, 3_850_689, 256),
        ("cct_7_7x2", 224, 196, 4_547_521, 256),
        ("cct_14_7x2", 224, 196, 21_982_273, 384),
        ("cct_14_7x2", 384, 576, 22_128_193, 384),
    ],
)
def test_published_sizes(name, size, tokens, parameters, width):
    backbone = _counted(name, size)
    assert (count_parameters(backbone), backbone.num_features) == (parameters, width)
    assert backbone.body.positions.shape == (1, tokens, width)


@pytest.mark.parametrize(("size", "member"), [(32, "cct_7_3x1"), (64, "cct_7_3x1"), (65, "cct_7_7x2")])
def test_the_familys_name_stands_for_the_member_of_the_image_size(size, member):
    assert _counted("cct", size).name == member


@pytest.mark.parametrize(
    ("phi", "side", "parameters"),
    [(-1, 28, 2_469_825), (0, 32, 3_757_569), (1, 36, 5_428_801), (2, 42, 8_368_321), (3, 48, 12_141_889)],
)
def test_scaled_sizes(phi, side, parameters):
    backbone = _counted("cct_7_3x1", 32, scale=Scale.compound(phi))
    assert (backbone.image_size, count_parameters(backbone)) == (side, parameters)


@pytest.mark.parametrize("convolutions", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 5, 6, 7, 31])
def test_token_counts_are_right_for_any_image_size(kernel_size, convolutions):
    with without_weights():
        tokenizer = ConvTokenizer(3, 4, kernel_size, convolutions)
        for size in [*range(8, 16), 97, 224]:
            assert tokenizer(torch.empty(1, 3, size, size)).shape[1:] == (tokenizer.tokens(size), 4)


@pytest.mark.parametrize(
    ("kernel_size", "convolutions", "size", "tokens"), [(3, 1, 32, 256), (3, 1, 224, 12544), (7, 2, 32, 4)]
)
def test_token_counts_told_in_the_notes(kernel_size, convolutions, size, tokens):
    assert ConvTokenizer(3, 4, kernel_size, convolutions).tokens(size) == tokens


@pytest.mark.parametrize(("kernel_size", "convolutions"), [(3, 2), (5, 1), (7, 2)])
def test_the_whole_network_is_its_equations(kernel_size, convolutions):
    body = _perturbed(13, kernel_size=kernel_size, convolutions=convolutions)
    images = torch.randn(2, 3, 13, 13, dtype=torch.float64)
    weights = body.state_dict()
    stride, padding = {3: (1, 1), 5: (1, 2), 7: (2, 3)}[kernel_size]
    maps = images
    for name in sorted(name for name in weights if name.startswith("tokenizer")):
        side = (maps.shape[-1] + 2 * padding - kernel_size) // stride + 1
        columns = F.unfold(maps, kernel_size, padding=padding, stride=stride)
        maps = (weights[name].flatten(1) @ columns).clamp(min=0).unflatten(-1, (side, side))
        # After ReLU a border of zeros wins no maximum.
        pooled = F.unfold(maps, 3, padding=1, stride=2).unflatten(1, (-1, 9)).amax(2)
        maps = pooled.unflatten(-1, (math.isqrt(pooled.shape[-1]),) * 2)
    with torch.no_grad():
        for pixels, feature in zip(maps, body(images), strict=True):
            tokens = pixels.flatten(1).T + weights["positions"][0]
            for block in ("blocks.0", "blocks.1"):
                tokens = _slow_block(tokens, {k.removeprefix(block + "."): v for k, v in weights.items() if block in k})
            tokens = _slow_norm(tokens, weights["norm.weight"], weights["norm.bias"])
            scores = (tokens @ weights["pool.score.weight"][0] + weights["pool.score.bias"]).exp()
            pooled = sum(score * token for score, token in zip(scores, tokens, strict=True)) / scores.sum()
            torch.testing.assert_close(feature, pooled)


def _slow_norm(tokens, weight, bias):
    centred = tokens - tokens.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt() * weight + bias


def _slow_block(tokens, weights):
    normed = _slow_norm(tokens, weights["norm_attention.weight"], weights["norm_attention.bias"])
    queries, keys, values = (normed @ matrix.T for matrix in weights["attention.qkv.weight"].chunk(3))
    heads = []
    for head in (slice(0, 16), slice(16, 32)):
        similar = (queries[:, head] @ keys[:, head].T / math.sqrt(16)).exp()
        heads.append(similar / similar.sum(1, keepdim=True) @ values[:, head])
    attended = torch.cat(heads, 1) @ weights["attention.proj.weight"].T + weights["attention.proj.bias"]
    skip = _slow_norm(tokens + attended, weights["norm_mlp.weight"], weights["norm_mlp.bias"])
    hidden = skip @ weights["mlp.fc1.weight"].T + weights["mlp.fc1.bias"]
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    return skip + hidden @ weights["mlp.fc2.weight"].T + weights["mlp.fc2.bias"]


def test_pooling_weights_are_positive_and_sum_to_one():
    weights = SeqPool(16).weights(3 * torch.randn(4, 50, 16))
    assert weights.shape == (4, 50, 1)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(4, 1), rtol=0, atol=1e-6)


def test_pooling_with_a_zero_score_is_the_mean():
    pool = SeqPool(16)
    nn.init.zeros_(pool.score.weight)
    tokens = torch.randn(2, 50, 16)
    torch.testing.assert_close(pool(tokens), tokens.mean(1), rtol=0, atol=1e-6)


def test_the_bias_of_the_pooling_score_has_no_gradient():
    pool = SeqPool(16)
    (pool(torch.randn(2, 50, 16)) * torch.randn(16)).sum().backward()
    assert pool.score.bias.grad.abs() < 3e-6
    assert pool.score.weight.grad.abs().max() > 1e-2


def test_pooling_does_not_see_the_order_of_tokens():
    pool, tokens = SeqPool(16), torch.randn(2, 50, 16)
    torch.testing.assert_close(pool(tokens[:, torch.randperm(50)]), pool(tokens), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("positions", "moved"), [("none", False), ("sine", True), ("learned", True)])
def test_the_order_of_tokens_matters_only_with_positions(positions, moved):
    body = _perturbed(16, positions=positions)
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    order = torch.randperm(16)
    with torch.no_grad():
        before = body(images)
        body.tokenizer.register_forward_hook(lambda module, inputs, tokens: tokens[:, order])
        difference = (body(images) - before).abs().max()
    assert difference > 1e-3 if moved else difference < 1e-12


def test_without_positions_images_of_any_size_are_taken():
    body = create("cct_2_3x2", image_size=16, positions="none").eval().body
    assert body.positions is None
    with torch.no_grad():
        assert [len(body.forward_features(torch.randn(1, 3, side, side))[0]) for side in (16, 23, 40)] == [16, 36, 100]


def test_sine_positions_are_a_fixed_table():
    body = create("cct_2_3x2", image_size=32, positions="sine").body
    expected = [
        [math.sin(n / 10000 ** (c / 128)) if c % 2 == 0 else math.cos(n / 10000 ** ((c - 1) / 128)) for c in range(128)]
        for n in range(64)
    ]
    torch.testing.assert_close(body.positions, torch.tensor(expected)[None], rtol=0, atol=1e-5)
    assert "positions" not in {*body.state_dict(), *dict(body.named_parameters())}


@pytest.mark.parametrize("positions", ["sine", "none"])
def test_only_a_learned_table_counts(positions):
    backbone = _counted("cct_7_3x1", 32, positions=positions)
    assert count_parameters(backbone) == 3_757_569 - 256 * 256
    assert backbone.no_weight_decay() == set()
    assert _counted("cct_7_3x1", 32).no_weight_decay() == {"body.positions"}


def test_an_odd_width_has_a_sine_table_too():
    body = create("cct_2_3x2", image_size=8, positions="sine", width=9, heads=1).body
    assert body.positions.shape == (1, 4, 9)


def test_initial_weights_are_those_published():
    body = create("cct_2_3x2", image_size=32).body
    deviations = {name: parameter.std().item() for name, parameter in body.named_parameters() if parameter.ndim > 1}
    assert deviations.pop("positions") == pytest.approx(0.2, rel=0.05)
    # Kaiming: sqrt(2 / fan-in).
    assert deviations.pop("tokenizer.layers.0.weight") == pytest.approx(math.sqrt(2 / 27), rel=0.05)
    assert deviations.pop("tokenizer.layers.3.weight") == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.05)
    assert deviations.pop("pool.score.weight") == pytest.approx(0.02, rel=0.2)
    assert deviations == pytest.approx(dict.fromkeys(deviations, 0.02), rel=0.05)
    assert not any(parameter.any() for name, parameter in body.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("option", ["dropout", "attention_dropout", "drop_path_rate"])
def test_what_is_dropped_is_dropped_in_training_alone(option):
    backbone = create("cct_2_3x2", image_size=8, **{option: 0.5})
    images = torch.randn(8, 3, 8, 8)
    with torch.no_grad():
        assert not torch.equal(backbone(images), backbone(images))
        backbone.eval()
        torch.testing.assert_close(backbone(images), backbone(images), rtol=0, atol=0)


def test_dropout_follows_positions_attention_and_both_layers_of_the_mlp():
    body = _counted("cct_2_3x2", 32, dropout=0.25).body
    called = []
    for name, module in body.named_modules():
        if isinstance(module, nn.Dropout) and module.p == 0.25:
            module.register_forward_hook(lambda module, inputs, out, name=name: called.append(name))
    body(torch.empty(2, 3, 32, 32, device="meta"))
    inside = [
        f"blocks.{block}.{name}" for block in (0, 1) for name in ("attention.proj_drop", "mlp.drop1", "mlp.drop2")
    ]
    assert called == ["dropout", *inside]


@pytest.mark.parametrize(("depth", "rates"), [(1, [0.0]), (5, [0.0, 0.05, 0.1, 0.15, 0.2])])
def test_stochastic_depth_grows_linearly(depth, rates):
    body = _counted("cct_2_3x2", 32, depth=depth, drop_path_rate=0.2).body
    assert [block.drop_path.drop_prob for block in body.blocks] == pytest.approx(rates)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "3 heads don't divide the width 256"),
        ({"heads": 0}, "0 heads don't divide"),
        ({"width": 4}, "width is 4"),
        ({"depth": 257}, "depth is 257"),
        ({"mlp_ratio": 0.0}, "mlp_ratio is 0"),
        ({"kernel_size": 0}, "kernel_size is 0"),
        ({"convolutions": 9}, "convolutions is 9"),
        ({"positions": "fixed"}, "expected learned or sine or none"),
        ({"dropout": 1.0}, "^dropout is 1"),
        ({"attention_dropout": -0.1}, "attention_dropout is -0.1"),
        ({"drop_path_rate": 1.5}, "drop_path_rate is 1.5"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        _counted("cct", 32, **options)
