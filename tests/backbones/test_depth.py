"""Depths of parameters, for layer-wise rates, on every family."""

import pytest
import torch

from fewlabel.backbones.depth import DEPTHS, depths_of
from fewlabel.backbones.registry import all_families, create
from fewlabel.training.config import TrainingConfig
from fewlabel.training.optimizers import build_optimizer


@pytest.fixture(scope="module", params=[family.name for family in all_families()])
def backbone(request):
    return create(request.param, image_size=32)


def test_every_parameter_has_a_depth_and_is_in_one_group(backbone):
    modes = [module.training for module in backbone.modules()]
    statistics = [buffer.clone() for buffer in backbone.buffers()]
    depths = depths_of(backbone)
    assert [module.training for module in backbone.modules()] == modes
    assert all(torch.equal(old, new) for old, new in zip(statistics, backbone.buffers(), strict=True))
    assert depths.keys() == dict(backbone.named_parameters()).keys()
    assert set(depths.values()) <= set(range(DEPTHS))
    assert {min(depths.values()), max(depths.values())} == {0, DEPTHS - 1}

    config = TrainingConfig(optimizer="adamw", lr=1.0, weight_decay=0.1)
    rates = {name: 0.5 ** (DEPTHS - depth) for name, depth in depths.items()}
    groups = build_optimizer(backbone, config, backbone.no_weight_decay(), rates).param_groups
    peak = {id(parameter): group["peak_lr"] for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(peak) == len(depths)
    for name, parameter in backbone.named_parameters():
        assert peak[id(parameter)] == rates[name]


def test_what_sees_the_images_learns_slowest(backbone):
    """The first layer with weights is found by what it takes: an image's channels."""
    seen = []
    hooks = [
        module.register_forward_hook(lambda module, given, result: seen.append(module))
        for module in backbone.modules()
        if getattr(module, "weight", None) is not None and not list(module.children())
    ]
    with torch.no_grad():
        backbone.eval()(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    depths = depths_of(backbone)
    owner = {id(parameter): name for name, parameter in backbone.named_parameters()}
    places = [depths[owner[id(module.weight)]] for module in dict.fromkeys(seen)]
    assert places == sorted(places)
    assert places[0] == 0


@pytest.mark.parametrize(
    ("name", "rising"),
    [
        ("resnet18", ["conv1.weight", "layer1.1.conv2.weight", "layer2.0.conv1.weight", "layer4.1.conv2.weight"]),
        ("vit", ["patch_embed.proj.weight", "blocks.2.mlp.fc1.weight", "blocks.11.mlp.fc1.weight"]),
    ],
)
def test_depth_rises_from_block_to_block(name, rising):
    depths = depths_of(create(name, image_size=32))
    found = [depths[f"body.{parameter}"] for parameter in rising]
    assert found == sorted(set(found))
