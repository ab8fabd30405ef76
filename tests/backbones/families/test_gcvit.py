"""GCViT: its sizes, its windows, and the queries that come from the whole image."""

import pytest
import timm
import torch
from timm.models.gcvit import window_partition, window_reverse
from torch import nn
from torch.nn import functional as F

from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.registry import create
from fewlabel.backbones.scale import Scale
from fewlabel.errors import UserError


@pytest.mark.parametrize(
    ("name", "size", "parameters", "width"),
    [
        ("gcvit", 32, 4_729_212, 256),
        ("gcvit_xxtiny", 64, 11_410_780, 512),
        ("gcvit_xxtiny", 224, 11_482_428, 512),
        ("gcvit", 224, 11_482_428, 512),
        ("gcvit_xtiny", 224, 19_468_294, 512),
        ("gcvit_tiny", 224, 27_708_974, 512),
        ("gcvit_small", 224, 50_323_173, 768),
        ("gcvit_base", 224, 89_295_836, 1024),
    ],
)
def test_members_have_their_published_size(size_of, name, size, parameters, width):
    assert size_of(name, size) == (parameters, width)


def test_compound_scaling_has_its_known_sizes(scaled_sizes):
    expected = [(192, 10_873_844), (224, 11_482_428), (256, 12_162_148), (288, 25_375_594), (352, 26_370_466)]
    assert scaled_sizes("gcvit_xxtiny", 224) == expected


@pytest.mark.parametrize("name", ["gcvit_xxtiny", "gcvit_small"])
def test_members_are_those_of_timm(name):
    with without_weights():
        ours, theirs = create(name, image_size=224).body, timm.create_model(name, num_classes=0)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


def test_the_output_is_that_of_timm():
    ours = create("gcvit_xxtiny", image_size=64, window_ratio=(32, 32, 16, 32)).eval().body
    theirs = timm.create_model("gcvit_xxtiny", num_classes=0, img_size=64).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["gcvit_small", "gcvit_base"])
def test_the_larger_members_start_with_small_branches(name):
    body = create(name, image_size=32, width=24, heads=1, depths=(2, 2)).body
    scales = [parameter for key, parameter in body.named_parameters() if key.endswith("ls1.gamma")]
    assert len(scales) == 4
    assert all(torch.equal(parameter, torch.full_like(parameter, 1e-5)) for parameter in scales)


@pytest.mark.parametrize(
    ("name", "size", "windows"),
    [
        ("gcvit_tiny_32", 32, [4, 4, 2]),
        ("gcvit_tiny_32", 16, [4, 2, 1]),
        ("gcvit_tiny_32", 48, [3, 3, 3]),
        ("gcvit_tiny_32", 64, [4, 4, 4]),
        ("gcvit_tiny_32", 96, [3, 3, 6]),
        ("gcvit_xxtiny", 32, [4, 4, 2, 1]),
        ("gcvit_xxtiny", 64, [4, 4, 4, 2]),
        ("gcvit_xxtiny", 96, [3, 3, 6, 3]),
        ("gcvit_xxtiny", 224, [7, 7, 14, 7]),
    ],
)
def test_the_global_queries_fill_one_window(name, size, windows):
    with without_weights():
        backbone = create(name, image_size=size, depths=(2,) * len(windows))
        maps = backbone.body.stem(torch.empty(1, 3, size, size))
        for stage, side in zip(backbone.body.stages, windows, strict=True):
            maps = stage.downsample(maps)
            assert {block.window_size for block in stage.blocks} == {(side, side)}
            assert maps.shape[2:] == stage.feat_size
            assert stage.global_block(maps).shape[2:] == (side, side)


def test_partition_is_undone():
    maps = torch.randn(2, 8, 12, 3)
    windows = window_partition(maps, (4, 4))
    assert torch.equal(windows[1], maps[0, :4, 4:8])
    assert torch.equal(window_reverse(windows, (4, 4), (8, 12)), maps)


@pytest.fixture
def stage():
    stage = create("gcvit_tiny_32", image_size=32, width=16, depths=(2, 2)).eval().body.stages[0]
    for block in stage.blocks:
        nn.init.normal_(block.attn.rel_pos.relative_position_bias_table)
    return stage


def _residual(maps, block):
    """x + W_1x1 (SE (GELU (depthwise 3x3 (x)))), without biases."""
    hidden = F.gelu(F.conv2d(maps, block.conv_dw.weight, padding=1, groups=maps.shape[1]))
    squeezed = F.gelu(F.conv2d(hidden.mean((2, 3), keepdim=True), block.se.fc1.weight))
    gated = hidden * F.conv2d(squeezed, block.se.fc2.weight).sigmoid()
    return maps + F.conv2d(gated, block.conv_pw.weight)


def test_the_query_generator_is_residuals_and_pooling(stage):
    maps = torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        expected = F.max_pool2d(_residual(maps, stage.global_block.blocks.conv1), 3, 2, 1)
        torch.testing.assert_close(stage.global_block(maps), expected, atol=1e-6, rtol=1e-5)


def test_stages_are_joined_by_a_strided_convolution_between_layer_norms():
    down = create("gcvit_tiny_32", image_size=32, width=16, depths=(2, 2)).body.stages[1].downsample
    maps = torch.randn(2, 16, 8, 8)

    def layer_norm(x):
        return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2)

    with torch.no_grad():
        narrow = _residual(layer_norm(maps), down.conv_block)
        expected = layer_norm(F.conv2d(narrow, down.reduction.weight, stride=2, padding=1))
        torch.testing.assert_close(down(maps), expected, atol=1e-5, rtol=1e-5)
    assert expected.shape == (2, 32, 4, 4)
    assert down.reduction.bias is None


def _attended(tokens, queries, attention):
    """softmax(q k / sqrt(d) + B) v within one window, for each token and each head alone; tokens: (w, w, C)."""
    side, _, width = tokens.shape
    heads = attention.num_heads
    parts = F.linear(tokens, attention.qkv.weight, attention.qkv.bias).split(width, -1)
    query = parts[0] if queries is None else queries
    q, k, v = (part.reshape(side, side, heads, -1) for part in (query, *parts[-2:]))
    table = attention.rel_pos.relative_position_bias_table
    places = [(y, x) for y in range(side) for x in range(side)]
    out = torch.empty(side, side, heads, width // heads)
    for y, x in places:
        for head in range(heads):
            scores = torch.stack(
                [
                    q[y, x, head] @ k[i, j, head] / (width // heads) ** 0.5
                    + table[(y - i + side - 1) * (2 * side - 1) + x - j + side - 1, head]
                    for i, j in places
                ]
            )
            out[y, x, head] = scores.softmax(0) @ torch.stack([v[i, j, head] for i, j in places])
    return F.linear(out.flatten(2), attention.proj.weight, attention.proj.bias)


@pytest.mark.parametrize("index", [0, 1])
def test_every_second_block_asks_each_window_its_images_own_question(stage, index):
    """Hatamizadeh et al. 2022, eq. 3 and 4: the pooled features are the queries, with no linear map of their own."""
    block = stage.blocks[index]
    tokens, queries = torch.randn(2, 8, 8, 16), torch.randn(2, 4, 4, 16)
    assert block.attn.qkv.out_features == (48, 32)[index]
    with torch.no_grad():
        attended = torch.empty_like(tokens)
        normalized = F.layer_norm(tokens, (16,))
        for image in range(2):
            for y in (0, 4):
                for x in (0, 4):
                    window = normalized[image, y : y + 4, x : x + 4]
                    asked = queries[image] if index else None
                    attended[image, y : y + 4, x : x + 4] = _attended(window, asked, block.attn)
        mixed = tokens + attended
        hidden = F.gelu(F.linear(F.layer_norm(mixed, (16,)), block.mlp.fc1.weight, block.mlp.fc1.bias))
        expected = mixed + F.linear(hidden, block.mlp.fc2.weight, block.mlp.fc2.bias)
        torch.testing.assert_close(block(tokens, queries), expected, atol=1e-5, rtol=1e-5)
    assert hidden.shape[-1] == 48


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 63}, "2 heads don't divide"),
        ({"depths": (2, 1, 2)}, "two or more"),
        ({"depths": (2, 2, 2, 2, 2)}, "one to four stages"),
        ({"window_ratio": (8, 8)}, "as many numbers"),
        ({"window_ratio": (8, 8, 8)}, "stage of stride 16"),
        ({"window_ratio": (12, 8, 16)}, "stage of stride 4"),
        ({"window_ratio": (64, 8, 16)}, "multiple of 64 px"),
        ({"drop_path_rate": 1.0}, "probability"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        create("gcvit", image_size=32, **options)


def test_a_side_that_does_not_halve_is_refused():
    with pytest.raises(UserError, match="224 and 256"):
        create("gcvit_xxtiny", image_size=250)


def test_a_stage_shrunk_to_one_block_is_refused():
    with pytest.raises(UserError, match="two or more"):
        create("gcvit", image_size=32, scale=Scale(depth=0.5))
