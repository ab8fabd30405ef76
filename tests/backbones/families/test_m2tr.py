"""M2TR: published and scaled sizes, and each part against a slow form of its equation."""

from itertools import pairwise, product

import pytest
import torch
from torch import Tensor, nn

from fewlabel.backbones.families.m2tr import (
    M2TR,
    CrossModalityFusion,
    FrequencyFilter,
    FusionLayer,
    MultiScaleAttention,
    cut_patches,
    paste_patches,
)
from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.registry import create, fit_image_size
from fewlabel.backbones.scale import Scale
from fewlabel.errors import UserError


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("member", "image_size", "options", "parameters", "width"),
    [
        ("m2tr_b4", 320, {}, 18_604_360, 1792),
        ("m2tr_b4", 224, {}, 18_180_424, 1792),
        ("m2tr_b4", 64, {}, 17_801_544, 1792),
        ("m2tr_b4", 32, {}, 17_774_920, 1792),
        ("m2tr_b4", 320, {"frequency": False}, 17_673_032, 1792),
        ("m2tr_b0", 224, {"fusion_depth": 1}, 4_116_028, 1280),
        ("m2tr_b0", 224, {}, 4_224_508, 1280),
        ("m2tr_b0", 224, {"fusion_depth": 4}, 4_441_468, 1280),
        ("m2tr_b0", 32, {"fusion_depth": 1}, 4_039_996, 1280),
        ("m2tr_b0", 32, {}, 4_072_444, 1280),
        ("m2tr_b0", 32, {"fusion_depth": 4}, 4_137_340, 1280),
        ("m2tr_b0", 224, {"frequency": False, "fusion_depth": 1}, 4_025_116, 1280),
        ("m2tr_b0", 224, {"frequency": False}, 4_042_684, 1280),
        ("m2tr_b0", 32, {"frequency": False, "fusion_depth": 4}, 4_077_820, 1280),
    ],
)
def test_published_sizes(
    member: str, image_size: int, options: dict[str, int | bool], parameters: int, width: int
) -> None:
    with without_weights():
        backbone = create(member, image_size=image_size, **options)
    assert (count(backbone), backbone.num_features) == (parameters, width)


@pytest.mark.parametrize(
    ("phi", "image_size", "multi_scale", "full"),
    [
        (-1, 192, 3_422_288, 3_563_408),
        (0, 224, 4_042_684, 4_224_508),
        (1, 256, 7_736_130, 7_964_802),
        (2, 288, 10_795_720, 11_375_944),
        (3, 352, 14_738_608, 15_567_664),
    ],
)
def test_compound_scaling(phi: int, image_size: int, multi_scale: int, full: int) -> None:
    for frequency, parameters in ((False, multi_scale), (True, full)):
        with without_weights():
            backbone = create("m2tr", image_size=224, scale=Scale.compound(phi), frequency=frequency)
        assert (backbone.image_size, count(backbone)) == (image_size, parameters)


def test_sizes_of_the_parts() -> None:
    with without_weights():
        layer = FusionLayer(32, 80, frequency=True)
    assert count(layer.attention) == 12_480
    assert count(layer.feed_forward) == count(layer.filter_feed_forward) == 18_624
    assert count(layer.filter) == 209_920
    assert count(layer.fusion) == 4_288


def test_patches_are_cut_row_by_row_and_pasted_back() -> None:
    maps = torch.randn(2, 3, 8, 8)
    for side in (8, 4, 2, 1):
        patches = cut_patches(maps, side)
        corners = product(range(0, 8, side), repeat=2)
        slow = torch.stack([maps[:, :, y : y + side, x : x + side].flatten(1) for y, x in corners], 1)
        assert torch.equal(patches, slow)
        assert torch.equal(paste_patches(patches, side), maps)


def slow_heads(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    batch, channels, side, _ = query.shape
    width = channels // 4
    out = torch.zeros_like(value)
    for image, head in product(range(batch), range(4)):
        patch, mine = side // 2**head, slice(head * width, (head + 1) * width)
        places = [(mine, slice(y, y + patch), slice(x, x + patch)) for y, x in product(range(0, side, patch), repeat=2)]
        for place in places:
            scores = torch.stack([(query[image][place] * key[image][other]).sum() for other in places])
            weights = (scores / (width * patch**2) ** 0.5).softmax(0)
            out[image][place] = sum(w * value[image][other] for w, other in zip(weights, places, strict=True))
    return out


def test_heads_follow_the_equation() -> None:
    attention = MultiScaleAttention(8, 8)
    query, key, value = (torch.randn(2, 8, 8, 8) for _ in range(3))
    torch.testing.assert_close(attention.heads(query, key, value), slow_heads(query, key, value), rtol=0, atol=1e-6)


def test_full_map_head_is_its_value_map() -> None:
    query, key, value = (torch.randn(2, 8, 16, 16) for _ in range(3))
    assert torch.equal(MultiScaleAttention(8, 16).heads(query, key, value)[:, :2], value[:, :2])


def test_without_queries_heads_average_their_patches() -> None:
    key, value = torch.randn(2, 8, 8, 8), torch.randn(2, 8, 8, 8)
    heads = MultiScaleAttention(8, 8).heads(torch.zeros(2, 8, 8, 8), key, value)
    quadrants = value[:, 2:4].unfold(2, 4, 4).unfold(3, 4, 4).mean((2, 3)).repeat(1, 1, 2, 2)
    torch.testing.assert_close(heads[:, 2:4], quadrants, rtol=0, atol=4e-7)
    finest = value[:, 6:].mean((2, 3), keepdim=True).expand(2, 2, 8, 8)
    torch.testing.assert_close(heads[:, 6:], finest, rtol=0, atol=4e-7)


def test_attention_projects_each_position_then_joins_the_heads() -> None:
    attention = MultiScaleAttention(8, 8).eval()
    maps = torch.randn(1, 8, 8, 8)
    projected = [
        torch.einsum("oc,bchw->bohw", conv.weight[:, :, 0, 0], maps) + conv.bias[:, None, None]
        for conv in (attention.query, attention.key, attention.value)
    ]
    torch.testing.assert_close(attention(maps), attention.out(slow_heads(*projected)), rtol=0, atol=5e-6)


def with_kernel(kernel: Tensor) -> FrequencyFilter:
    """The filter that convolves circularly with `kernel`, (C, h, h)."""
    layer = FrequencyFilter(kernel.shape[0], kernel.shape[-1])
    layer.weight.data = torch.view_as_real(torch.fft.rfft2(kernel)).movedim(-1, 0)
    return layer


def circular_convolution(maps: Tensor, kernel: Tensor) -> Tensor:
    out = torch.zeros_like(maps)
    for y, x in product(range(kernel.shape[1]), range(kernel.shape[2])):
        out += kernel[:, y, x, None, None] * maps.roll((y, x), (2, 3))
    return out


def test_filter_of_ones_is_the_identity() -> None:
    layer, maps = FrequencyFilter(4, 16), torch.randn(2, 4, 16, 16)
    layer.weight.data = torch.tensor([1.0, 0.0])[:, None, None, None].expand_as(layer.weight)
    torch.testing.assert_close(layer(maps), maps, rtol=0, atol=5e-6)


def test_filter_is_a_circular_convolution() -> None:
    maps, kernel = torch.randn(2, 4, 8, 8), torch.randn(4, 8, 8)
    torch.testing.assert_close(with_kernel(kernel)(maps), circular_convolution(maps, kernel), rtol=0, atol=2e-5)


def test_any_weight_is_a_circular_convolution() -> None:
    # An initial weight is the spectrum of no real kernel: what counts of it is that of its inverse transform.
    maps, layer = torch.randn(2, 4, 8, 8), FrequencyFilter(4, 8)
    kernel = torch.fft.irfft2(torch.complex(*layer.weight.detach()))
    torch.testing.assert_close(layer(maps), circular_convolution(maps, kernel), rtol=0, atol=3e-7)


def test_filter_commutes_with_circular_shifts() -> None:
    maps, layer = torch.randn(2, 4, 8, 8), FrequencyFilter(4, 8)
    torch.testing.assert_close(layer(maps.roll((3, 5), (2, 3))), layer(maps).roll((3, 5), (2, 3)), rtol=0, atol=3e-7)


def test_filter_starts_with_standard_deviation_002() -> None:
    weight = FrequencyFilter(32, 32).weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert weight.mean().item() == pytest.approx(0, abs=5e-4)


def test_filter_runs_channels_last() -> None:
    maps, layer = torch.randn(2, 4, 8, 8), FrequencyFilter(4, 8)
    expected = layer(maps)
    layer.to(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(maps.to(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_filter_transforms_halves_in_float32(dtype: torch.dtype) -> None:
    maps, layer = torch.randn(2, 4, 8, 8).to(dtype), FrequencyFilter(4, 8)
    with torch.autocast("cpu", dtype=dtype):
        out = layer(maps)
    assert torch.equal(out, layer(maps.float()).to(dtype))


def test_fusion_follows_the_equation() -> None:
    fusion = CrossModalityFusion(8).eval()
    maps, frequency = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
    query, key, value = fusion.query(maps), fusion.key(frequency), fusion.value(frequency)
    scores = torch.einsum("bchw,bcyx->bhwyx", query, key) / 8**0.5
    weights = scores.flatten(3).softmax(3).view_as(scores)
    expected = fusion.out(torch.einsum("bhwyx,bcyx->bchw", weights, value))
    torch.testing.assert_close(fusion(maps, frequency), expected, rtol=0, atol=1e-6)


def test_fusion_does_not_see_the_order_of_the_frequency_map() -> None:
    fusion = CrossModalityFusion(8).eval()
    maps, frequency = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
    shuffled = frequency.flatten(2)[:, :, torch.randperm(16)].view_as(frequency)
    torch.testing.assert_close(fusion(maps, shuffled), fusion(maps, frequency), rtol=0, atol=1.2e-6)
    assert not torch.allclose(fusion(shuffled, frequency), fusion(maps, frequency), atol=1e-3)


def randomize_batch_norms(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 1.5)


def test_feed_forward_follows_the_equation() -> None:
    layer = FusionLayer(8, 8, frequency=False).eval()
    randomize_batch_norms(layer)
    maps = torch.randn(2, 8, 8, 8)
    expected = maps
    for (conv, norm, _), dilation in zip(layer.feed_forward, (2, 1), strict=True):
        padded = nn.functional.pad(expected, [dilation] * 4)
        taps = product(range(3), repeat=2)
        expected = conv.bias[:, None, None] + sum(
            torch.einsum(
                "oc,bchw->bohw",
                conv.weight[:, :, y, x],
                padded[:, :, y * dilation : y * dilation + 8, x * dilation : x * dilation + 8],
            )
            for y, x in taps
        )
        moments = (norm.running_mean[:, None, None], norm.running_var[:, None, None])
        expected = (expected - moments[0]) / (moments[1] + 1e-5).sqrt() * norm.weight[:, None, None]
        expected = expected + norm.bias[:, None, None]
        expected = torch.where(expected > 0, expected, 0.2 * expected)
    torch.testing.assert_close(layer.feed_forward(maps), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("frequency", [False, True])
def test_layer_adds_its_parts_in_order(frequency: bool) -> None:
    layer = FusionLayer(8, 8, frequency).eval()
    randomize_batch_norms(layer)
    maps = torch.randn(2, 8, 8, 8)
    attended = maps + layer.attention(maps)
    expected = attended + layer.feed_forward(attended)
    if frequency:
        filtered = expected + layer.filter_feed_forward(layer.filter(expected))
        expected = expected + layer.fusion(expected, filtered)
    out = layer(maps)
    assert out.shape == maps.shape
    torch.testing.assert_close(out, expected)


def silence(branch: nn.Sequential) -> None:
    """Make a branch's last batch norm, and so the branch, zero."""
    norm = [part for part in branch.modules() if isinstance(part, nn.BatchNorm2d)][-1]
    nn.init.zeros_(norm.weight)
    nn.init.zeros_(norm.bias)


def silent_backbone() -> tuple[nn.Module, M2TR]:
    backbone = create("m2tr_b0", image_size=32).eval()
    body = backbone.body
    assert isinstance(body, M2TR)
    for layer in body.fusion:
        for branch in (layer.attention.out, layer.feed_forward, layer.fusion.out):
            silence(branch)
    return backbone, body


def test_silent_branches_leave_efficientnet_itself() -> None:
    backbone, body = silent_backbone()
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(backbone(images), body.network(images))


def test_fusion_layers_stand_at_a_quarter_of_the_resolution_between_stages_two_and_three() -> None:
    _, body = silent_backbone()
    seen: list[Tensor] = []
    for part in (body.network.blocks[1], *body.fusion, body.network.blocks[2]):
        part.register_forward_hook(lambda part, args, out: seen.extend((args[0], out)))
    with torch.inference_mode():
        body(torch.randn(2, 3, 32, 32))
    assert all(torch.equal(after, before) for after, before in pairwise(seen[1:-1]))
    assert [tuple(maps.shape[1:]) for maps in seen[1:-1]] == [(24, 8, 8)] * 6


def test_full_stride_on_small_images() -> None:
    with without_weights():
        body = create("m2tr", image_size=32).body
        assert isinstance(body, M2TR)
        assert body.forward_features(torch.empty(2, 3, 32, 32)).shape == (2, 1280, 1, 1)


def test_scaled_widths_reach_the_fusion_layers() -> None:
    with without_weights():
        body = create("m2tr_b4", image_size=64, scale=Scale(width=1.5, depth=1.5)).body
    assert isinstance(body, M2TR)
    assert len(body.fusion) == 6
    assert body.fusion[0].attention.query.in_channels == 48


def test_drop_path_reaches_efficientnet() -> None:
    with without_weights():
        body = create("m2tr", image_size=32, drop_path_rate=0.5).body
    assert body.network.blocks[-2][-1].drop_path.drop_prob > 0.3


def test_small_digits_are_enlarged_to_one_step() -> None:
    assert fit_image_size("m2tr", 12) == 32


@pytest.mark.parametrize(
    ("image_size", "options", "message"),
    [
        (28, {}, "multiple of 32 px.*32 px"),
        (48, {}, "multiple of 32 px.*32 and 64 px"),
        (32, {"fusion_depth": 0}, "fusion_depth is 0"),
        (32, {"fusion_depth": 257}, "fusion_depth is 257"),
        (32, {"drop_path_rate": 1.0}, "drop_path_rate is 1.0"),
        (32, {"frequency": 1}, "frequency is 1, expected true or false"),
        (32, {"small_stem": True}, "no option 'small_stem'"),
        (32, {"scale": Scale(width=0.1)}, "Width 0.1 rounds"),
        (32, {"scale": Scale(depth=0.2)}, "Depth 0.2 rounds"),
    ],
)
def test_bad_options(image_size: int, options: dict[str, object], message: str) -> None:
    with without_weights(), pytest.raises(UserError, match=message):
        create("m2tr_b0", image_size=image_size, **options)
