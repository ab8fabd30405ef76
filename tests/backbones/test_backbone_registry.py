"""Names, options and sizes: what is found, what is refused, and what the message says."""

import dataclasses
import subprocess
import sys

import pytest
import torch
from torch import nn

from fewlabel.backbones import registry
from fewlabel.backbones.convolutional import ConvolutionalOptions
from fewlabel.backbones.families.resnet import RESNET, ResNetOptions
from fewlabel.backbones.families.vit import ViTOptions
from fewlabel.backbones.family import Member
from fewlabel.backbones.options import as_texts, option_docs, parse_options, read_options
from fewlabel.backbones.registry import (
    all_families,
    check,
    check_name,
    create,
    find,
    fit_image_size,
    options_from,
    register,
)
from fewlabel.backbones.scale import Scale
from fewlabel.errors import UserError


def test_families_are_found_by_themselves():
    names = {family.name for family in all_families()}
    assert names == {
        *(
            "resnet",
            "senet",
            "mobilenet",
            "efficientnet",
            "vit",
            "mixer",
            "fnet",
            "gmlp",
            "mobilevit",
            "cct",
            "convmixer",
        ),
        *("eanet", "rednet", "perceiver", "swin", "gcvit", "hybrid_channel", "hybrid_spatial", "m2tr"),
    }


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
            options=ConvolutionalOptions,
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
        ("zzzz", "The families: cct, convmixer, eanet, efficientnet"),
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
        ({"stem": True}, "no option 'stem'. Its options: small_stem, output_stride, pool, drop_path_rate, layers"),
        ({"small_stem": 1}, "expected true or false or none"),
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
    with pytest.raises(UserError, match="pool is 'mean', expected cls or gap"):
        read_options(ViTOptions, {"pool": "mean"}, "vit")
    assert read_options(ViTOptions, {"pool": "gap", "patch_size": None}, "vit") == ViTOptions(pool="gap")


@pytest.mark.parametrize(
    ("name", "size", "options", "hint"),
    [
        ("vit", 30, {}, "28 and 32"),
        ("vit", 225, {}, "224 and 240"),
        ("vit", 32, {"patch_size": 64}, "nearest that work: 64 px"),
        ("resnet", 7, {}, "from 8 to 4096"),
        ("resnet", 5000, {}, "from 8 to 4096"),
        ("resnet", 32.0, {}, "whole number"),
        ("timm/inception_v3", 32, {}, "sizes that work: 299 px"),
        ("timm/vgg11", 32, {"drop_path_rate": 0.1}, "has no drop_path_rate"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_those_that_do(name, size, options, hint):
    with pytest.raises(UserError, match=hint):
        check(name, image_size=size, **options)


@pytest.mark.parametrize(
    ("name", "wanted", "options", "expected"),
    [
        ("resnet", 13, {}, 13),
        ("vit", 13, {}, 12),
        ("vit", 14, {}, 16),
        ("vit", 200, {}, 208),
        ("vit", 2, {"patch_size": 8}, 8),
        ("timm/convnext_atto", 50, {}, 50),
    ],
)
def test_the_nearest_size_that_fits_is_found(name, wanted, options, expected):
    assert fit_image_size(name, wanted, **options) == expected


def test_rules_see_the_size_before_scaling():
    """A network for small images stays one when its images grow."""
    backbone = create("resnet", image_size=64, scale=Scale(resolution=1.5))
    assert (backbone.name, backbone.image_size, backbone.options["small_stem"]) == ("resnet18", 96, True)
    assert backbone.scale == Scale()


def test_other_networks_of_timm_scale_in_resolution_alone():
    assert create("timm/resnet10t", image_size=64, scale=Scale(resolution=1.5)).image_size == 96
    with pytest.raises(UserError, match="only the resolution"):
        create("timm/resnet10t", image_size=64, scale=Scale(depth=1.5))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["small_stem=true", "drop_path_rate=0.1"], {"small_stem": True, "drop_path_rate": 0.1}),
        (["layers=2,3,4,5", "pool=max"], {"layers": (2, 3, 4, 5), "pool": "max"}),
        (["layers=none", "output_stride=8"], {"layers": None, "output_stride": 8}),
        (["pool=max", "pool=avg"], {"pool": "avg"}),
        ([], {}),
    ],
)
def test_options_are_read_as_typed_and_written_back(texts, expected):
    parsed = parse_options(ResNetOptions, texts, "resnet")
    assert parsed == expected
    assert parse_options(ResNetOptions, as_texts(parsed), "resnet") == expected
    read_options(ResNetOptions, parsed, "resnet")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("pool", "write NAME=VALUE. Its options: small_stem"),
        ("patch_size=4", "no option 'patch_size'. Its options: small_stem"),
        ("pool=mean", "expected avg or max or avgmax"),
        ("layers=2,x", "expected whole numbers separated by commas or none"),
        ("small_stem=1", "expected true or false or none"),
        ("drop_path_rate=low", "expected a number"),
    ],
)
def test_options_that_can_not_be_read_are_refused(text, hint):
    with pytest.raises(UserError, match=hint):
        options_from("resnet50", [text])


def test_every_option_of_every_family_is_documented():
    for family in all_families():
        for name, text in option_docs(family.options).items():
            assert text.endswith("."), (family.name, name)


def test_every_family_says_what_a_reader_needs():
    for family in all_families():
        notes = family.notes
        assert len([end for end in notes.idea.replace("i.e.", "").split(". ") if end]) == 3, family.name
        assert all((notes.equation, notes.use, notes.scaling, notes.pitfalls, family.paper)), family.name


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
