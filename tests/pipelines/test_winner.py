"""The winner of a search goes straight into pretraining."""

import optuna
import pytest
from optuna.trial import create_trial

from fewlabel.__main__ import main
from fewlabel.backbones.config import BackboneConfig
from fewlabel.files import read_json
from fewlabel.pipelines.configuration import as_dict, load_config
from fewlabel.pipelines.pretrain import Config
from fewlabel.search.candidate import Candidate
from fewlabel.search.winner import write_winner
from fewlabel.training.config import TrainingConfig

BASE = Config(
    backbone=BackboneConfig(backbone="resnet", image_size=16, scale_phi=0.5),
    training=TrainingConfig(max_steps=2, batch_size=16),
)


def study_with(*found):
    study = optuna.create_study(direction="maximize")
    for candidate, value in found:
        values = {"mean": value, "low": value - 0.1, "high": value + 0.1}
        study.add_trial(create_trial(value=value, user_attrs={"candidate": candidate.as_json(), "value": values}))
    return study


def test_pretraining_takes_the_winner_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    winner = Candidate(depth=0.5, width=0.25, resolution=1.5, lr=0.002, temperature=0.2)
    file = write_winner(study_with((Candidate(), 0.6), (winner, 0.7)), as_dict(BASE), tmp_path)
    assert file == tmp_path / "winner.json"
    assert main(["pretrain", "--config", str(file), "--out", "run"]) == 0
    made = read_json(tmp_path / "run/config.json")["config"]
    assert made["backbone"]["scale_depth"] == 0.5
    assert (made["training"]["lr"], made["simclr"]["temperature"]) == (0.002, 0.2)
    encoder = read_json(tmp_path / "run/encoder/config.json")
    assert (encoder["scale"]["depth"], encoder["scale"]["width"], encoder["image_size"]) == (0.5, 0.25, 24)


def test_what_was_not_searched_stays_that_of_the_base(tmp_path):
    file = write_winner(study_with((Candidate(depth=2.0, view_strength=0.3), 0.6)), as_dict(BASE), tmp_path)
    config = load_config(Config, "pretrain", file)
    assert (config.backbone.scale_depth, config.backbone.scale_width) == (2.0, 1.0)
    # The multipliers say it all: no phi on top of them.
    assert config.backbone.scale_phi == 0
    assert config.views.strength == 0.3
    assert config.training == BASE.training
    assert config.simclr == BASE.simclr


@pytest.mark.parametrize("resumed", [None, "runs/earlier"])
def test_the_winner_begins_anew(tmp_path, resumed):
    pretrain = {**as_dict(BASE), "resume": resumed, "config": resumed}
    config = load_config(Config, "pretrain", write_winner(study_with((Candidate(), 0.6)), pretrain, tmp_path))
    assert (config.resume, config.config) == (None, None)


def test_without_a_finished_trial_there_is_no_winner(tmp_path):
    assert write_winner(study_with(), as_dict(BASE), tmp_path) is None
    assert list(tmp_path.iterdir()) == []
