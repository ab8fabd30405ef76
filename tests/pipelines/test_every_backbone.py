"""Every documented name through `fewlabel pretrain` and back from disk. `pytest -m sweep` runs these alone."""

import functools

import pytest

from fewlabel import load_encoder
from fewlabel.__main__ import main
from fewlabel.backbones.catalogue import entries
from fewlabel.data import loading, store

GIANT = 12_000_000
"""Parameters from which on a network is scaled down: writing it three times would take minutes and gigabytes."""


@pytest.fixture(scope="module")
def read_once():
    """The images are the same in every run: read and decode them in the first one."""
    opened, decode = {}, store.open_split

    def open_split(found, split, side, config):
        if (split, side) not in opened:
            opened[split, side] = decode(found, split, side, config)
        return opened[split, side]

    return functools.cache(loading.load), open_split


@pytest.fixture
def quick(monkeypatch, read_once):
    load, open_split = read_once
    monkeypatch.setattr("fewlabel.data.loading.load", load)
    monkeypatch.setattr("fewlabel.data.store.open_split", open_split)


@pytest.fixture
def few_evaluated(monkeypatch):
    """Judge the features by a handful of images: their figures are not the point here."""
    from fewlabel.pipelines import pretrain
    from fewlabel.ssl import evaluation

    for name in ("KNN_WHILE_TRAINING", "KNN_AT_THE_END"):
        monkeypatch.setattr(pretrain, name, {"most_bank": 16, "most_queries": 8})
    monkeypatch.setattr(evaluation, "health_on", functools.partial(evaluation.health_on, most=8))


@pytest.mark.sweep
@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_every_name_pretrains_on_the_embedded_source_and_loads_again(quick, few_evaluated, tmp_path, entry):
    scale = (
        ("--scale-depth", "0.5", "--scale-width", "0.25")
        if entry.name != entry.family and entry.parameters > GIANT
        else ()
    )
    arguments = ["--backbone", entry.name, *scale, "--batch-size", "4", "--max-steps", "2", "--out", tmp_path / "run"]
    assert main(["pretrain", *map(str, arguments)]) == 0
    encoder = load_encoder(tmp_path / "run" / "encoder")
    backbone = encoder.backbone
    assert backbone.in_chans == 1
    assert entry.name in (entry.family, backbone.name)
    assert (backbone.scale.depth, backbone.scale.width) == ((0.5, 0.25) if scale else (1, 1))
