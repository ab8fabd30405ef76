"""`fewlabel pretrain` from images to an encoder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import fewlabel
from fewlabel.__main__ import main

WEIGHTS = "encoder/model.safetensors"


def read(file):
    return json.loads(file.read_text(encoding="utf-8"))


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, start, tiny):
    """A run as on a fresh machine: its own process, an empty home, W&B as it comes."""
    place = tmp_path_factory.mktemp("fresh")
    (place / "home").mkdir()
    env = {"HOME": str(place / "home"), "WANDB_MODE": None, "WANDB_API_KEY": None}
    arguments = ("pretrain", *tiny, "--max-steps", 4, "--out", "run", "--json")
    process = start(*arguments, env=env, cwd=place)
    output, messages = process.communicate(timeout=120)
    assert process.returncode == 0, messages
    return place / "run", output, messages


def test_json_is_all_that_standard_output_gets(finished):
    run, output, messages = finished
    assert json.loads(output) == read(run / "result.json")
    assert "wandb leet run/wandb" in messages
    assert "encoder" in messages


def test_the_result_has_the_figures_with_their_intervals(finished):
    result = read(finished[0] / "result.json")
    assert result["command"] == "pretrain"
    assert result["parents"]["source"].startswith("digits@")
    metrics = result["metrics"]
    assert set(metrics) == {"loss", "knn_accuracy", "knn_accuracy_untrained", "views_per_second"}
    for name in ("knn_accuracy", "knn_accuracy_untrained"):
        assert 0.2 < metrics[name]["low"] < metrics[name]["mean"] < metrics[name]["high"] < 1
    assert metrics["loss"] > 0
    assert metrics["views_per_second"] > 0


def test_the_directory_stands_on_its_own(finished):
    run = finished[0]
    config = read(run / "config.json")
    backbone = config["config"]["backbone"]
    assert (backbone["backbone"], backbone["image_size"]) == ("timm/test_resnet", 32)
    assert backbone["scale_phi"] == 0
    assert config["config"]["views"]["views"] == "digits"
    assert config["config"]["training"]["precision"] != "auto"
    assert {"git", "packages", "machine"} <= config["provenance"].keys()
    assert [line["step"] for line in lines(run)] == [1, 2, 3, 4]
    assert "knn_accuracy" in lines(run)[-1]
    assert len(list((run / "checkpoints").iterdir())) == 1
    with Image.open(run / "views.png") as picture:
        assert np.asarray(picture).std() > 10


def test_w_and_b_is_recorded_offline_in_the_run_and_nowhere_else(finished):
    run = finished[0]
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))
    assert not list((run.parent / "home").rglob("*wandb*"))


def test_the_encoder_is_the_network_that_was_trained(finished):
    run = finished[0]
    encoder = fewlabel.load_encoder(run / "encoder")
    (checkpoint,) = (run / "checkpoints").iterdir()
    trained = {name: value for name, value in load_file(checkpoint).items() if name.startswith("model.backbone.")}
    encoded = load_file(run / WEIGHTS)
    assert len(trained) == len(encoded) > 10
    for name, value in encoded.items():
        assert any(other.endswith("." + name) and torch.equal(trained[other], value) for other in trained), name
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = encoder(images)
        assert torch.equal(features, encoder.backbone(encoder.preprocess(images)))
    assert features.shape == (3, encoder.num_features)
    assert encoder.config.provenance["metrics"].keys() == read(run / "result.json")["metrics"].keys()


def test_the_configuration_of_a_run_repeats_it_bit_for_bit(finished, tmp_path):
    run = finished[0]
    assert main(["pretrain", "--config", str(run / "config.json"), "--out", str(tmp_path / "again")]) == 0
    first, second = load_file(run / WEIGHTS), load_file(tmp_path / "again" / WEIGHTS)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [line["loss"] for line in lines(run)] == [line["loss"] for line in lines(tmp_path / "again")]
    assert read(run / "config.json")["config"] == read(tmp_path / "again" / "config.json")["config"]


def test_another_seed_is_another_run(finished, tmp_path):
    arguments = ["--config", str(finished[0] / "config.json"), "--seed", "1", "--out", str(tmp_path / "other")]
    assert main(["pretrain", *arguments]) == 0
    first, second = load_file(finished[0] / WEIGHTS), load_file(tmp_path / "other" / WEIGHTS)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_two_runs_never_write_into_one_directory(finished, refused, tiny):
    run = finished[0]
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    message = refused("pretrain", *tiny, "--max-steps", 1, "--out", run)
    assert str(run) in message
    assert "new or empty" in message
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before


def test_without_labels_there_are_health_figures(pretrain, write_images, tmp_path, capfd):
    photos = write_images(tmp_path / "my photos [1]" / "été", 40)
    assert pretrain("--data", photos.parent, "--max-steps", 2, "--out", tmp_path / "run") == 0
    metrics = read(tmp_path / "run" / "result.json")["metrics"]
    assert {"alignment", "uniformity", "effective_rank", "loss", "views_per_second"} <= metrics.keys()
    assert not any("knn" in name for name in metrics)
    shown = capfd.readouterr().err
    assert "No classes to judge by" in shown
    assert "my photos [1]" in shown


def test_an_npz_of_colour_images(pretrain, tmp_path):
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 40), ("val", 10), ("test", 10)):
        arrays[f"{split}_images"] = random.integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count)[:, None] % 2
    np.savez(tmp_path / "set.npz", **arrays)
    assert pretrain("--data", tmp_path / "set.npz", "--max-steps", 2, "--out", tmp_path / "run") == 0
    assert "knn_accuracy" in read(tmp_path / "run" / "result.json")["metrics"]
    record = read(tmp_path / "run" / "config.json")
    assert record["source"]["images"] == {"train": 40, "val": 10, "test": 10}
    assert record["config"]["views"]["views"] == "natural"
    assert fewlabel.load_encoder(tmp_path / "run" / "encoder").config.in_chans == 3


def test_a_table_with_few_labels(pretrain, write_images, tmp_path):
    """Two in three images have no label; the labelled ones alone are judged by."""
    write_images(tmp_path, 60)
    rows = [f"{number:03d}.png,{('ill', 'well', '')[min(number % 6, 2)]}" for number in range(60)]
    (tmp_path / "table.csv").write_text("\n".join(["image,label", *rows]), encoding="utf-8")
    assert pretrain("--data", tmp_path / "table.csv", "--max-steps", 2, "--out", tmp_path / "run") == 0
    assert "knn_accuracy" in read(tmp_path / "run" / "result.json")["metrics"]
    assert sum(read(tmp_path / "run" / "config.json")["source"]["images"].values()) == 60


def test_without_out_the_run_goes_into_runs(pretrain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pretrain("--max-steps", 1) == 0
    (run,) = Path("runs").iterdir()
    assert run.name.startswith("pretrain-")
    assert run.name.endswith("-timm-test-resnet-digits")
