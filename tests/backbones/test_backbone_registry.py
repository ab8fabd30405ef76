"""Names, options and sizes: what is found, what is refused, and what the message says."""

import dataclasses
import subprocess
import sys

import pytest
import torch
from torch import nn

from fewlabel.backbones import registry
from fewlabel.backbones.families.resnet import RESNET
from fewlabel.backbones.families.vit import ViTOptions
from fewlabel.backbones.family import Member, read_options
from fewlabel.backbones.registry import all_families, check_image_size, check_name, create, find, register
from fewlabel.errors import UserError


def test_families_are_found_by_themselves():
    names = [family.name for family in all_families()]
    assert names == ["efficientnet", "mobilenet", "resnet", "senet", "vit"]


@pytest.mark.parametrize(("size", "member"), [(8, "resnet18"), (64, "resnet18"), (65, "resnet50")])
def test_a_family_chooses_its_member_by_image_size(size, member):
    assert find("resnet", size)[1] == member
    assert find("resnet101", size)[1] == "resnet101"


@pytest.mark.parametrize("changes", [{}, {"name": "other"}, {"name": "vit", "members": {}}])
def test_registering_a_name_twice_is_refused(changes):
    with pytest.raises(ValueError, match="taken by"):
        register(dataclasses.replace(RESNET, **changes))


def test_a_family_must_offer_what_it_chooses():
    with pytest.raises(ValueError, match="must be members"):
        register(dataclasses.replace(RESNET, name="new", members={"new18": Member(224, "")}))


class _Mean(nn.Module):
    """A network written here: the channel means."""

    head_hidden_size = 3

    def forward(self, images):
        return images.mean((2, 3))


def test_one_more_family_is_one_registration(monkeypatch):
    monkeypatch.setattr(registry, "_families", dict(registry._families))
    all_families()
    register(
        dataclasses.replace(
            RESNET,
            name="mean",
            members={"mean1": Member(32, "the only one")},
            small="mean1",
            large="mean1",
            build=lambda *_: _Mean(),
        )
    )
    backbone = create("mean", image_size=16)
    assert (backbone.name, backbone.source, backbone.num_features) == ("mean1", "own", 3)
    assert backbone.no_weight_decay() == set()
    torch.testing.assert_close(backbone(torch.ones(2, 3, 16, 16)), torch.ones(2, 3))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnt50", "resnet50"),
        ("efficientnet_b9", "efficientnet_b7"),
        ("convnext_tiny", "write timm/convnext_tiny"),
        ("timm/convnxt_tiny", "timm/convnext_tiny"),
        ("timm/resnet50.a1_in1k", "timm/resnet50"),
        ("timm/hf-hub:someone/model", "no architecture"),
        ("timm/", "no architecture"),
        ("zzzz", "The families: efficientnet, mobilenet"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name, hint):
    with pytest.raises(UserError, match=hint):
        check_name(name)
    with pytest.raises(UserError, match=hint):
        create(name, image_size=32)


@pytest.mark.parametrize("name", ["vit", "resnet18", "timm/resnet50"])
def test_known_names_pass(name):
    check_name(name)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"stem": True}, "no option 'stem'. Its options: small_stem, drop_path_rate"),
        ({"small_stem": 1}, "expected true or false or nothing"),
        ({"drop_path_rate": 1.0}, "probability from 0"),
        ({"drop_path_rate": float("nan")}, "probability from 0"),
        ({"drop_path_rate": "0.1"}, "expected a number"),
        ({"patch_size": 4}, "no option 'patch_size'"),
    ],
)
def test_bad_options_are_refused(options, hint):
    with pytest.raises(UserError, match=hint):
        create("resnet18", image_size=32, **options)


def test_literal_options_name_their_choices():
    with pytest.raises(UserError, match="pool is 'max', expected cls or gap"):
        read_options(ViTOptions, {"pool": "max"}, "vit")
    assert read_options(ViTOptions, {"pool": "gap", "patch_size": None}, "vit") == ViTOptions(pool="gap")


@pytest.mark.parametrize(
    ("name", "size", "options", "hint"),
    [
        ("vit", 30, {}, "28 and 32"),
        ("vit", 225, {}, "224 and 240"),
        ("vit", 32, {"patch_size": 64}, "1 to 32"),
        ("resnet", 7, {}, "from 8 to 4096"),
        ("resnet", 5000, {}, "from 8 to 4096"),
        ("resnet", 32.0, {}, "whole number"),
        ("timm/inception_v3", 32, {}, "sizes that work: 299 px"),
        ("timm/vgg11", 32, {"drop_path_rate": 0.1}, "has no drop_path_rate"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_those_that_do(name, size, options, hint):
    with pytest.raises(UserError, match=hint):
        check_image_size(name, size, **options)


def test_channels_out_of_range_are_refused():
    with pytest.raises(UserError, match="channels is 0"):
        create("resnet18", image_size=32, in_chans=0)


def test_the_configuration_imports_no_torch():
    code = (
        "import sys; import fewlabel.backbones.config; from fewlabel import backbones; "
        "assert not {'torch', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_resolves():
    from fewlabel import backbones

    for name in backbones.__all__:
        assert getattr(backbones, name).__name__ == name
    with pytest.raises(AttributeError):
        backbones.nothing  # noqa: B018
