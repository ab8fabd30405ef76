"""SENet: published sizes, and the gate against its equation."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fewlabel.backbones.registry import create

PUBLISHED = {
    "seresnet18": (11_266_624, 512),
    "seresnet34": (21_447_416, 512),
    "seresnet50": (26_039_024, 2048),
    "seresnet101": (47_277_872, 2048),
    "seresnet152": (64_772_848, 2048),
    "seresnext26t_32x4d": (14_757_976, 2048),
    "seresnext50_32x4d": (25_510_896, 2048),
    "timm/legacy_seresnet18": (11_265_592, 512),
    "timm/senet154": (113_039_984, 2048),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_members_have_their_published_size(size_of, name):
    assert size_of(name, 224) == PUBLISHED[name]


def test_the_small_image_form_has_its_size(size_of):
    assert size_of("senet", 32) == (11_258_944, 512)


def test_compound_scaling_has_its_known_sizes(scaled_sizes):
    expected = [(192, 9_297_632), (224, 11_266_624), (256, 13_523_648), (296, 25_571_040), (344, 31_129_520)]
    assert scaled_sizes("seresnet18", 224) == expected


def test_the_gate_is_a_half_without_weights_and_open_with_a_large_bias(random_images):
    gate = create("senet", image_size=16).body.layer1[0].se
    features = random_images(2, 64, 5)
    nn.init.zeros_(gate.fc2.weight)
    nn.init.zeros_(gate.fc2.bias)
    with torch.no_grad():
        torch.testing.assert_close(gate(features), features / 2, rtol=0, atol=0)
        nn.init.constant_(gate.fc2.bias, 30.0)
        torch.testing.assert_close(gate(features), features)


def test_the_gate_sees_the_channel_means_alone(random_images):
    """Hu et al. 2017, eq. 2-4: s = sigmoid(W2 relu(W1 mean(u) + b1) + b2), out = s u."""
    gate = create("senet", image_size=16).body.layer1[0].se
    features = random_images(2, 64, 5)
    first, second = gate.fc1, gate.fc2
    with torch.no_grad():
        squeezed = F.relu(F.linear(features.mean((2, 3)), first.weight.flatten(1), first.bias))
        s = torch.sigmoid(F.linear(squeezed, second.weight.flatten(1), second.bias))
        torch.testing.assert_close(gate(features), s[:, :, None, None] * features)
