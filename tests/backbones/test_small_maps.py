"""Convolutions over small maps as matrix products: the same numbers as torch's own convolution."""

import copy

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fewlabel.backbones.registry import create
from fewlabel.backbones.small_maps import SmallMapConv2d, multiply_small_maps

pair = st.tuples(st.integers(1, 5), st.integers(1, 5))


def _both(convolution: nn.Conv2d, images: Tensor) -> list[list[Tensor]]:
    """Output and gradients of images, weight and bias, of the convolution as it is and as `SmallMapConv2d`."""
    found = []
    for kind in (nn.Conv2d, SmallMapConv2d):
        layer = copy.deepcopy(convolution)
        if kind is SmallMapConv2d:
            multiply_small_maps(layer)
        assert type(layer) is kind
        given = images.clone().requires_grad_()
        out = layer(given)
        out.backward(torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape))
        found.append([out.detach(), given.grad, *(parameter.grad for parameter in layer.parameters())])
    return found


@given(
    sides=pair,
    kernel=pair,
    stride=pair,
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    channels=st.sampled_from([(1, 1, 1), (2, 3, 1), (4, 6, 2)]),
    bias=st.booleans(),
    channels_last=st.booleans(),
    seed=st.integers(0, 9),
)
@example((2, 2), (3, 3), (1, 1), (1, 1), (1, 1), (2, 3, 1), True, True, 0)
@example((2, 1), (3, 3), (2, 2), (1, 1), (1, 1), (2, 3, 1), False, False, 0)
@example((2, 3), (5, 5), (1, 2), (3, 2), (1, 1), (2, 3, 1), True, True, 0)
@example((2, 2), (3, 5), (1, 1), (1, 2), (1, 1), (2, 3, 1), False, True, 0)
def test_values_and_gradients_are_those_of_a_convolution(
    sides, kernel, stride, padding, dilation, channels, bias, channels_last, seed
) -> None:
    # Torch refuses a kernel larger than the padded map.
    assume(all(s + 2 * p > d * (k - 1) for s, p, d, k in zip(sides, padding, dilation, kernel, strict=True)))
    torch.manual_seed(seed)
    inputs, outputs, groups = channels
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=bias, dtype=torch.float64)
    images = torch.randn(3, inputs, *sides, dtype=torch.float64)
    if channels_last:
        convolution.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    for expected, found in zip(*_both(convolution, images), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "multiplied"), [(1, 3, 1, True), (2, 3, 1, True), (2, 3, 2, True), (3, 3, 1, False)]
)
def test_only_maps_whose_pixels_the_kernel_joins_are_multiplied(side, kernel, stride, multiplied) -> None:
    layer = nn.Conv2d(2, 3, kernel, stride, padding=kernel // 2)
    multiply_small_maps(layer)
    with FlopCounterMode(display=False) as counter:
        layer(torch.randn(2, 2, side, side))
    counted = {str(name) for name in counter.get_flop_counts()["Global"]}
    assert counted == ({"aten.addmm"} if multiplied else {"aten.convolution"})


def test_it_trains_after_it_was_used_in_inference_mode() -> None:
    # Of a shape that no other test takes, which nothing has been kept for.
    layer = nn.Conv2d(1, 2, (3, 5), padding=(1, 2))
    multiply_small_maps(layer)
    images = torch.randn(2, 1, 2, 3)
    with torch.inference_mode():
        layer(images)
    layer(images).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.any()


def test_subclasses_of_a_convolution_stay_what_they_are() -> None:
    class Doubled(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    network = nn.Sequential(Doubled(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1))
    multiply_small_maps(network)
    assert [type(layer) for layer in network] == [Doubled, SmallMapConv2d]


def test_padding_of_other_kinds_takes_the_ordinary_way() -> None:
    images = torch.randn(2, 1, 2, 2)
    for options in ({"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}):
        for expected, found in zip(*_both(nn.Conv2d(1, 2, 3, **options), images), strict=True):
            torch.testing.assert_close(found, expected)


def test_an_arranged_backbone_has_the_same_features_and_weights() -> None:
    torch.manual_seed(0)
    plain = create("resnet18", image_size=28, channels=[4, 8, 12, 16], small_stem=False).eval()
    arranged = copy.deepcopy(plain)
    arranged.arrange()
    assert any(type(module) is SmallMapConv2d for module in arranged.modules())
    assert {name: value.shape for name, value in arranged.state_dict().items()} == {
        name: value.shape for name, value in plain.state_dict().items()
    }
    images = torch.randn(3, 3, 28, 28)
    torch.testing.assert_close(arranged(images), plain(images))
    assert copy.deepcopy(arranged)(images).equal(arranged(images))


def test_a_network_of_tokens_is_not_rearranged() -> None:
    backbone = create("mixer", image_size=32)
    before = [type(module) for module in backbone.modules()]
    backbone.arrange()
    assert [type(module) for module in backbone.modules()] == before
