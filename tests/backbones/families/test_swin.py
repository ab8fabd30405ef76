"""Swin: its sizes, its windows and their shifts."""

import pytest
import timm
import torch
from timm.models.swin_transformer import window_partition, window_reverse
from torch.nn import functional as F

from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.registry import create
from fewlabel.backbones.scale import Scale
from fewlabel.errors import UserError

TINY = "swin_tiny_patch4_window7_224"
BASE = "swin_base_patch4_window7_224"


@pytest.mark.parametrize(
    ("name", "size", "options", "parameters", "width"),
    [
        ("swin", 32, {}, 2_605_866, 192),
        ("swin_tiny_32", 32, {"width": 96, "depths": (2, 2, 6)}, 12_137_754, 384),
        ("swin", 224, {}, 27_519_354, 768),
        ("swin_small_patch4_window7_224", 224, {}, 48_837_258, 768),
        (BASE, 224, {}, 86_743_224, 1024),
        ("swin_large_patch4_window7_224", 224, {}, 194_995_476, 1536),
    ],
)
def test_members_have_their_published_size(size_of, name, size, options, parameters, width):
    assert size_of(name, size, **options) == (parameters, width)


def test_compound_scaling_has_its_known_sizes(scaled_sizes):
    expected = [(192, 27_517_050), (224, 27_519_354), (256, 31_072_338), (288, 48_510_378), (352, 77_948_388)]
    assert scaled_sizes(TINY, 224) == expected


def test_the_output_is_that_of_timm():
    ours = create(TINY, image_size=64, patch_size=4, window_size=7).eval().body
    theirs = timm.create_model(TINY, num_classes=0, img_size=64).eval()
    # Refuses other names or shapes.
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=0)


def test_no_branch_is_skipped_unless_asked_for():
    with without_weights():
        rates = [
            [m.drop_prob for m in create("swin", image_size=16, **options).modules() if hasattr(m, "drop_prob")]
            for options in ({}, {"drop_path_rate": 0.2})
        ]
    assert not any(rates[0])
    assert max(rates[1]) == pytest.approx(0.2)


def test_scaled_depths_are_even():
    with without_weights():
        layers = create("swin", image_size=32, scale=Scale(depth=1.6)).body.layers
    assert [len(stage.blocks) for stage in layers] == [4, 10, 6]


@pytest.mark.parametrize(
    ("name", "size", "patch", "windows", "shifts"),
    [
        ("swin_tiny_32", 32, 2, [4, 4, 4], [2, 2, 0]),
        ("swin_tiny_32", 48, 2, [6, 6, 6], [3, 3, 0]),
        ("swin_tiny_32", 64, 2, [4, 4, 4], [2, 2, 2]),
        ("swin_tiny_32", 8, 2, [4, 2, 1], [0, 0, 0]),
        (BASE, 32, 2, [4, 4, 4, 2], [2, 2, 0, 0]),
        (TINY, 96, 4, [6, 6, 6, 3], [3, 3, 0, 0]),
        (TINY, 224, 4, [7, 7, 7, 7], [3, 3, 3, 0]),
        (TINY, 256, 4, [8, 8, 8, 8], [4, 4, 4, 0]),
    ],
)
def test_patches_and_windows_follow_the_image(name, size, patch, windows, shifts):
    with without_weights():
        backbone = create(name, image_size=size, depths=(2,) * len(windows))
    second_blocks = [stage.blocks[1] for stage in backbone.body.layers]
    assert backbone.options["patch_size"] == patch
    assert [block.window_size for block in second_blocks] == [(side, side) for side in windows]
    assert [block.shift_size for block in second_blocks] == [(side, side) for side in shifts]
    for block in second_blocks:
        assert block.input_resolution[0] % block.window_size[0] == 0


def test_a_window_given_is_kept_even_if_it_pads():
    with without_weights():
        backbone = create(TINY, image_size=64, window_size=7)
        assert backbone.options["window_size"] == 7
        assert backbone(torch.empty(1, 3, 64, 64)).shape == (1, 768)


def test_partition_is_undone_and_so_is_a_shift():
    maps = torch.randn(2, 8, 12, 3)
    windows = window_partition(maps, (4, 4))
    assert windows.shape == (12, 4, 4, 3)
    assert torch.equal(windows[1], maps[0, :4, 4:8])
    assert torch.equal(window_reverse(windows, (4, 4), 8, 12), maps)
    assert torch.equal(maps.roll((-2, -2), (1, 2)).roll((2, 2), (1, 2)), maps)


@pytest.fixture
def blocks():
    body = create("swin_tiny_32", image_size=16, depths=(2,), width=12).eval().body
    for block in body.layers[0].blocks:
        # Strong enough for attention to differ from a mean.
        for name, parameter in block.attn.named_parameters():
            torch.nn.init.normal_(parameter, std=1 if "table" in name else 0.5)
    return body.layers[0].blocks


def _attended(tokens, attention, shift, window):
    """Liu et al. 2021, eq. 4, for each token alone: it attends to those of its window and of its side of the seam."""
    side, width, heads = len(tokens), tokens.shape[-1], attention.num_heads
    weights, biases = attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3)
    q, k, v = (F.linear(tokens, w, b).reshape(side, side, heads, -1) for w, b in zip(weights, biases, strict=True))

    def place(row):
        return (row - shift) % side // window, row < shift

    out = torch.empty(side, side, width)
    for y in range(side):
        for x in range(side):
            near = [(i, j) for i in range(side) for j in range(side) if (place(i), place(j)) == (place(y), place(x))]
            heads_out = []
            for head in range(heads):
                scores = torch.stack(
                    [
                        q[y, x, head] @ k[i, j, head] / (width // heads) ** 0.5
                        + attention.relative_position_bias_table[
                            (y - i + window - 1) * (2 * window - 1) + x - j + window - 1, head
                        ]
                        for i, j in near
                    ]
                )
                values = torch.stack([v[i, j, head] for i, j in near])
                heads_out.append(scores.softmax(0) @ values)
            out[y, x] = torch.cat(heads_out)
    return F.linear(out, attention.proj.weight, attention.proj.bias)


@pytest.mark.parametrize("shift", [0, 2])
def test_a_block_is_its_equation(blocks, shift):
    block = blocks[shift // 2]
    assert block.shift_size == (shift, shift)
    tokens = torch.randn(1, 8, 8, 12)
    with torch.no_grad():
        attended = _attended(F.layer_norm(tokens[0], (12,)), block.attn, shift, 4)
        mixed = tokens + attended
        hidden = F.gelu(F.linear(F.layer_norm(mixed, (12,)), block.mlp.fc1.weight, block.mlp.fc1.bias))
        expected = mixed + F.linear(hidden, block.mlp.fc2.weight, block.mlp.fc2.bias)
        torch.testing.assert_close(block(tokens), expected, atol=1e-5, rtol=1e-5)
    assert hidden.shape[-1] == 48


def test_a_shifted_corner_reaches_its_own_region_alone(blocks):
    tokens = torch.randn(1, 8, 8, 12)
    changed = tokens.clone()
    # Noise, as the layer norm removes a constant.
    changed[0, 0, 0] += torch.randn(12)
    with torch.no_grad():
        reached = (blocks[1](changed) != blocks[1](tokens)).any(-1)[0]
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:2, :2] = True
    assert torch.equal(reached, expected)


def test_an_unshifted_block_moves_with_whole_windows(blocks):
    tokens = torch.randn(1, 8, 8, 12)

    def swapped(maps):
        return window_reverse(window_partition(maps, (4, 4))[[2, 0, 3, 1]], (4, 4), 8, 8)

    with torch.no_grad():
        torch.testing.assert_close(blocks[0](swapped(tokens)), swapped(blocks[0](tokens)), atol=1e-6, rtol=0)
        assert (blocks[1](swapped(tokens)) - swapped(blocks[1](tokens))).abs().max() > 1e-2


def test_merging_normalises_four_tokens_side_by_side_and_projects_to_twice_the_width():
    merge = create("swin_tiny_32", image_size=16).body.layers[1].downsample
    tokens = torch.randn(1, 8, 8, 48)
    with torch.no_grad():
        merged = merge(tokens)
        for y in range(4):
            for x in range(4):
                four = torch.cat([tokens[0, 2 * y + dy, 2 * x + dx] for dx in (0, 1) for dy in (0, 1)])
                expected = merge.reduction.weight @ F.layer_norm(four, (192,))
                torch.testing.assert_close(merged[0, y, x], expected, atol=1e-5, rtol=1e-5)
    assert merge.reduction.bias is None
    assert merged.shape == (1, 4, 4, 96)


def test_the_bias_tables_are_exempt_from_weight_decay():
    with without_weights():
        exempt = create("swin", image_size=16).no_weight_decay()
    assert len(exempt) == 12
    assert all(name.endswith("relative_position_bias_table") for name in exempt)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 50}, "3 heads don't divide the width 50"),
        ({"heads": 0}, "0 heads"),
        ({"depths": (2, 2, 2, 2, 2)}, "one to four stages"),
        ({"depths": (2, 0)}, "depths is 0"),
        ({"patch_size": 3}, "multiple of 12"),
        ({"patch_size": 0}, "from 1 to 256"),
        ({"window_size": 65}, "from 1 to 64"),
        ({"drop_path_rate": -0.1}, "probability"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        create("swin", image_size=32, **options)


def test_a_side_that_does_not_halve_is_refused():
    with pytest.raises(UserError, match="16 and 32"):
        create(TINY, image_size=28)


def test_shrinking_a_stage_to_nothing_is_refused():
    with pytest.raises(UserError, match="to nothing"):
        create("swin", image_size=32, scale=Scale(depth=0.4))
