"""The catalogue's file is what the registry counts, and costs are counted rightly."""

import math

import pytest
import torch
from torch import nn

from fewlabel.backbones.catalogue import entries, write
from fewlabel.backbones.census import census
from fewlabel.backbones.cost import count_flops
from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.registry import all_families, create

FAMILIES = [family.name for family in all_families()]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_file_says_what_is_counted(name):
    """Where it fails: `make docs` counts again."""
    [family] = [family for family in all_families() if family.name == name]
    assert [entry for entry in entries() if entry.family == name] == list(census(family))


def test_every_name_is_in_the_file_once():
    names = [name for family in all_families() for name in (family.name, *family.members)]
    assert [entry.name for entry in entries()] == names


def test_a_family_has_the_figures_of_its_large_member():
    rows = {entry.name: entry for entry in entries()}
    family, member = rows["resnet"], rows["resnet50"]
    assert (family.parameters, family.num_features, family.flops) == (23_508_032, 2048, member.flops)
    assert "resnet18 up to 64 px, resnet50 above" in family.summary
    assert rows["efficientnet_b3"].image_size == 300
    assert rows["resnet"].any_size
    assert not rows["vit"].any_size


def test_a_written_catalogue_is_read_back(tmp_path, monkeypatch):
    rows = entries()
    write(rows, tmp_path / "catalogue.json")
    monkeypatch.setattr("fewlabel.backbones.catalogue.FILE", tmp_path / "catalogue.json")
    assert entries() == rows


@pytest.mark.parametrize(
    ("name", "image_size", "million_multiply_adds"),
    [
        ("efficientnet_b0", 224, 384),
        ("mobilenetv2_100", 224, 300),
        ("resnet18", 224, 1_814),
        ("resnet50", 224, 4_087),
        ("vit_tiny_patch16_224", 224, 1_254),
    ],
)
def test_flops_are_those_published(name, image_size, million_multiply_adds):
    with without_weights():
        backbone = create(name, image_size=image_size)
    assert count_flops(backbone) / 2e6 == pytest.approx(million_multiply_adds, rel=0.003)


class _Spectral(nn.Module):
    """Transforms and complex products alone."""

    head_hidden_size = 1

    def __init__(self, operation):
        super().__init__()
        self.operation = operation

    def forward(self, images):
        return self.operation(images)


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        # Torch makes a complex transform of it.
        (lambda x: torch.fft.fft2(x).real, 5 * 192 * math.log2(64)),
        (lambda x: torch.fft.fft(x, dim=-1).real, 2.5 * 192 * math.log2(8)),
        (lambda x: torch.fft.rfft2(x).real, 2.5 * 192 * math.log2(64)),
        (lambda x: torch.fft.irfft2(torch.empty(1, 3, 8, 5, dtype=torch.complex64)), 2.5 * 192 * math.log2(64)),
        (lambda x: torch.fft.fft2(torch.empty(1, 3, 8, 8, dtype=torch.complex64)).real, 5 * 192 * math.log2(64)),
        (lambda x: x * x + x, 0),
        (lambda x: torch.complex(x, x) * torch.complex(x, x), 6 * 192),
    ],
)
def test_transforms_and_complex_products_are_counted(operation, expected):
    from fewlabel.backbones.backbone import Backbone
    from fewlabel.backbones.scale import Scale

    backbone = Backbone(
        _Spectral(operation),
        name="spectral",
        options={},
        image_size=8,
        in_chans=3,
        scale=Scale(),
        timm_call=None,
        convolutional=False,
    )
    assert count_flops(backbone) == pytest.approx(expected, abs=1)
