"""docs/backbones.md is what the registry, the catalogue and the measurements make, and they measure what they say."""

import pytest
import torch

from benchmarks.backbone_peers import Unfolded
from benchmarks.backbones_page import MEASURED, PAGE, page
from benchmarks.bench_backbones import step_cost
from benchmarks.measure import Memory, median_seconds
from fewlabel.backbones.catalogue import entries
from fewlabel.backbones.involution import involution
from fewlabel.backbones.registry import all_families
from fewlabel.files import read_json


def test_the_page_is_up_to_date():
    """Where it fails: `make docs` writes it again."""
    assert PAGE.read_text(encoding="utf-8") == page(entries(), read_json(MEASURED))


def test_every_family_was_measured_in_both_forms():
    measured = {(row["family"], row["member"]) for row in read_json(MEASURED)["families"]}
    assert measured == {(f.name, member) for f in all_families() for member in (f.small, f.large)}


def test_a_step_is_measured():
    cost = step_cost("timm/test_resnet", 32)
    assert (cost["member"], cost["image_size"]) == ("timm/test_resnet", 32)
    assert cost["views_per_second"] > 0
    assert cost["memory_mib"] > 0
    assert 0 < cost["share"] < 1


def test_memory_is_the_peak_above_what_there_was():
    device = torch.device("cpu")
    before = torch.ones(2**24)
    memory = Memory(device)
    torch.ones(2**25)
    assert memory.peak_mib() == pytest.approx(128, rel=0.2)
    assert len(before) == 2**24


def test_time_is_the_median_of_the_repeats(monkeypatch):
    clock = iter([0.0, 1.0, 10.0, 13.0, 20.0, 22.0])
    monkeypatch.setattr("benchmarks.measure.time.perf_counter", lambda: next(clock))
    assert median_seconds(lambda: None, torch.device("cpu"), 3) == 2.0


def test_involution_and_its_unfolded_form_compute_the_same():
    features, kernels = torch.randn(2, 32, 9, 9), torch.randn(2, 2, 7, 7, 9, 9)
    torch.testing.assert_close(involution(features, kernels, 1), Unfolded()(features, kernels), atol=1e-4, rtol=0)
