"""Involution: the operator against the form that unfolds the map, what it keeps, and the module around it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from fewlabel.backbones.involution import Involution, involution

# Channels, groups, kernel size, stride, height, width. The last is summed up in two unequal parts of the batch.
CASES = [
    (32, 2, 7, 1, 8, 8),
    (32, 2, 7, 2, 8, 8),
    (32, 2, 7, 1, 9, 5),
    (32, 2, 7, 2, 9, 5),
    (12, 3, 3, 3, 7, 11),
    (16, 1, 7, 1, 2, 1),
    (16, 1, 7, 2, 1, 1),
    (64, 4, 1, 1, 45, 45),
]


def _unfolded(features, kernels, stride):
    """The usual form: every pixel's surroundings side by side, K^2 times the map, then a weighted sum."""
    batch, groups, size, _, height, width = kernels.shape
    surroundings = F.unfold(features, size, padding=size // 2, stride=stride)
    surroundings = surroundings.view(batch, groups, -1, size * size, height, width)
    return (kernels.reshape(batch, groups, 1, size * size, height, width) * surroundings).sum(3).flatten(1, 2)


def _arguments(channels, groups, size, stride, height, width, dtype=torch.float64, batch=3):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(batch, channels, height, width, dtype=dtype, generator=generator)
    map_size = (-(-height // stride), -(-width // stride))
    kernels = torch.randn(batch, groups, size, size, *map_size, dtype=dtype, generator=generator)
    return features.requires_grad_(), kernels.requires_grad_(), stride


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_unfolded_form(case, channels_last):
    features, kernels, stride = _arguments(*case)
    expected = _unfolded(features, kernels, stride)
    error = torch.randn(expected.shape, dtype=torch.float64)
    gradients = torch.autograd.grad(expected, (features, kernels), error)
    if channels_last:
        features = features.detach().to(memory_format=torch.channels_last).requires_grad_()
        flat = kernels.detach().flatten(1, 3).to(memory_format=torch.channels_last)
        kernels = flat.unflatten(1, kernels.shape[1:4]).requires_grad_()
    out = involution(features, kernels, stride)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, expected, atol=1e-13, rtol=0)
    for found, wanted in zip(torch.autograd.grad(out, (features, kernels), error), gradients, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-13, rtol=0)


def test_gradients_are_those_of_finite_differences():
    torch.autograd.gradcheck(involution, _arguments(4, 2, 3, 2, 3, 4, batch=2))


def test_the_operator_is_registered_properly():
    """Schema, shapes and strides without data, and autograd, also as torch.compile traces it."""
    torch.library.opcheck(involution, _arguments(8, 2, 3, 2, 5, 4, dtype=torch.float32))


def test_it_accepts_an_empty_batch():
    features, kernels, stride = _arguments(16, 1, 3, 2, 5, 4, batch=0)
    out = involution(features, kernels, stride)
    out.sum().backward()
    assert out.shape == (0, 16, 3, 2)
    assert features.grad.shape == features.shape


def test_half_precision_is_summed_up_in_float32():
    features, kernels = (tensor.detach().bfloat16() for tensor in _arguments(32, 2, 7, 1, 6, 6)[:2])
    full = [features.float().requires_grad_(), kernels.float().requires_grad_()]
    half = [features.requires_grad_(), kernels.requires_grad_()]
    with torch.autocast("cpu", torch.bfloat16):
        out = involution(*half, 1)
    expected = involution(*full, 1)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, expected.bfloat16())
    error = torch.randn(out.shape).bfloat16()
    for found, wanted in zip(
        torch.autograd.grad(out, half, error), torch.autograd.grad(expected, full, error.float()), strict=True
    ):
        assert torch.equal(found, wanted.bfloat16())


def test_features_and_kernels_may_differ_in_precision():
    """As under autocast, where the kernels come from a convolution and the features need not."""
    features, kernels, stride = _arguments(16, 1, 3, 1, 4, 4, dtype=torch.float32)
    half = kernels.detach().bfloat16().requires_grad_()
    out = involution(features, half, stride)
    assert out.dtype == torch.float32
    assert torch.equal(out, involution(features, half.float(), stride))
    out.sum().backward()
    assert (features.grad.dtype, half.grad.dtype) == (torch.float32, torch.bfloat16)


def test_only_the_arguments_are_kept_for_the_backward_pass():
    features, kernels, stride = _arguments(32, 2, 7, 1, 8, 8)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        involution(features, kernels, stride)
    assert {tensor.data_ptr() for tensor in kept} == {features.data_ptr(), kernels.data_ptr()}


def _largest_allocation(function):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    return max(event.self_cpu_memory_usage for event in profiler.events())


@pytest.mark.parametrize("stride", [1, 2])
def test_nothing_larger_than_its_arguments_is_ever_allocated(stride):
    features, kernels, _ = _arguments(32, 2, 7, stride, 16, 16)
    limit = max(features.nbytes, kernels.nbytes)

    def run(form):
        form(features, kernels, stride).sum().backward()

    # Warmed up, as the first call of an operator allocates for itself.
    run(involution)
    assert 0 < _largest_allocation(lambda: run(involution)) <= limit
    assert _largest_allocation(lambda: run(_unfolded)) >= 12 * limit


@pytest.mark.parametrize("stride", [1, 2])
def test_operations_are_counted(stride):
    """A product and a sum for each element of a kernel and output, and as much for either gradient."""
    features, kernels, _ = _arguments(32, 2, 7, stride, 8, 8)
    outputs = 3 * 32 * (8 // stride) ** 2
    with FlopCounterMode(display=False) as counter:
        out = involution(features, kernels, stride)
        assert counter.get_total_flops() == 2 * 49 * outputs
        out.sum().backward()
    assert counter.get_total_flops() == 6 * 49 * outputs


def _module(channels, size, stride=1):
    """In eval mode, with batch norms that do something."""
    module = Involution(channels, size, stride).double().eval()
    for tensor in (module.norm.running_mean, module.norm.bias):
        nn.init.normal_(tensor)
    for tensor in (module.norm.running_var, module.norm.weight):
        nn.init.uniform_(tensor, 0.5, 2)
    return module


def _images(channels, height, width):
    return torch.randn(2, channels, height, width, dtype=torch.float64)


@pytest.mark.parametrize(
    ("channels", "size", "expected"),
    [(32, 3, 434), (64, 7, 4_388), (128, 7, 17_096), (256, 7, 67_472), (512, 7, 268_064)],
)
def test_the_module_has_its_published_size(channels, size, expected):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in Involution(channels, size).parameters()) == expected


@pytest.mark.parametrize(("stride", "height", "width"), [(1, 6, 5), (2, 6, 8), (2, 7, 5)])
def test_kernels_are_generated_from_the_mean_of_the_pixels_they_are_for(stride, height, width):
    """Li et al. 2021, eq. 6: W1 relu(BN(W0 x)), here pixel by pixel."""
    module, images = _module(32, 3, stride), _images(32, height, width)
    norm, kernels = module.norm, torch.empty(2, 2, 3, 3, -(-height // stride), -(-width // stride)).double()
    with torch.no_grad():
        for i in range(kernels.shape[4]):
            for j in range(kernels.shape[5]):
                # A slice ends at the border, so that the mean is over real pixels.
                pixel = images[:, :, stride * i : stride * (i + 1), stride * j : stride * (j + 1)].mean((2, 3))
                hidden = (pixel @ module.reduce.weight.flatten(1).T - norm.running_mean) * norm.weight
                hidden = F.relu(hidden / (norm.running_var + norm.eps).sqrt() + norm.bias)
                row = hidden @ module.span.weight.flatten(1).T + module.span.bias
                # A group's elements lie together, row by row.
                kernels[..., i, j] = row.view(2, 2, 3, 3)
        torch.testing.assert_close(module(images), _unfolded(images, kernels, stride))


@pytest.mark.parametrize("stride", [1, 2])
def test_kernels_of_ones_are_a_box_filter(stride):
    module, images = _module(32, 7, stride).float(), _images(32, 9, 8).float()
    nn.init.zeros_(module.span.weight)
    nn.init.ones_(module.span.bias)
    with torch.no_grad():
        expected = 49 * F.avg_pool2d(images, 7, stride, padding=3)
        torch.testing.assert_close(module(images), expected, atol=8e-5, rtol=0)


@pytest.mark.parametrize("stride", [1, 2])
def test_constant_kernels_are_a_depthwise_convolution_shared_in_groups(stride):
    module, images = _module(32, 7, stride), _images(32, 9, 8)
    nn.init.zeros_(module.span.weight)
    nn.init.normal_(module.span.bias)
    with torch.no_grad():
        weight = module.span.bias.view(2, 1, 7, 7).repeat_interleave(16, 0)
        expected = F.conv2d(images, weight, stride=stride, padding=3, groups=32)
        torch.testing.assert_close(module(images), expected, atol=1e-12, rtol=0)


def test_channels_of_a_group_share_their_kernel():
    module, images = _module(32, 7), _images(32, 8, 8)
    images[:, 3] = images[:, 5] = images[:, 20]
    with torch.no_grad():
        out = module(images)
    assert torch.equal(out[:, 3], out[:, 5])
    assert (out[:, 3] - out[:, 20]).abs().min() > 0


def test_a_pixel_sees_three_pixels_around_it():
    module, images = _module(32, 7), _images(32, 12, 12)
    changed = images.clone()
    changed[:, :, 5, 6] += torch.randn(2, 32, dtype=torch.float64)
    with torch.no_grad():
        differs = (module(changed) != module(images)).any(1)
    expected = torch.zeros(12, 12, dtype=torch.bool)
    expected[2:9, 3:10] = True
    assert torch.equal(differs, expected.expand(2, 12, 12))
