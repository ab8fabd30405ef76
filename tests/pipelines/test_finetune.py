"""`fewlabel finetune`, from an encoder and few labels to a classifier."""

import json
import shutil
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image

import fewlabel
from fewlabel.__main__ import main

SCRATCH = ("--encoder", "scratch", "--backbone", "timm/test_resnet", "--image-size", 32)
WEIGHTS = ("classifier/head.safetensors", "classifier/encoder/model.safetensors")
OPTIONS = ("--labels", 0.2, "--max-steps", 40, "--checkpoint-steps", 6, "--evaluate-steps", 10)


def read(file):
    return json.loads(file.read_text(encoding="utf-8"))


def lines(run):
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]] if file.exists() else []


def finetune(*arguments):
    return main(["finetune", *map(str, arguments)])


def write(folder, count, *, colour=False, label=0):
    """Grey stripes, of another direction for each label, or colour."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        seed = [len(folder.parts), label, number, len(str(folder))]
        pixels = np.random.default_rng(seed).integers(0, 128, (16, 16, 3) if colour else (16, 16), dtype=np.uint8)
        pixels[:, :: 4 + 2 * label] += 100
        Image.fromarray(pixels if label == 0 else np.swapaxes(pixels, 0, 1).copy()).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, pretrain):
    run = tmp_path_factory.mktemp("start") / "run"
    assert pretrain("--max-steps", 2, "--out", run) == 0
    return run


@pytest.fixture
def stripes(tmp_path):
    root = tmp_path / "stripes"
    for split, count in (("train", 12), ("val", 12), ("test", 8)):
        for label, name in enumerate(("across", "up")):
            write(root / split / name, count, label=label)
    return root


@pytest.fixture(scope="module")
def finished(trained, tmp_path_factory):
    run = tmp_path_factory.mktemp("finished") / "run"
    assert finetune("--encoder", trained, *OPTIONS, "--out", run) == 0
    return run


def test_the_result_has_figures_for_it_and_for_the_probe_with_their_intervals(finished, trained):
    result = read(finished / "result.json")
    metrics = result["metrics"]
    assert {"accuracy", "auroc", "probe_accuracy", "probe_auroc", "gain_auroc", "gain_accuracy"} <= metrics.keys()
    for name, figure in metrics.items():
        assert figure["low"] <= figure["mean"] <= figure["high"], name
    assert metrics["probe_accuracy"]["mean"] > 0.5
    assert metrics["gain_accuracy"]["mean"] == pytest.approx(
        metrics["accuracy"]["mean"] - metrics["probe_accuracy"]["mean"]
    )
    assert (result["labelled_images"], result["validation_images"]) == (252, 36)
    encoder = fewlabel.load_encoder(trained / "encoder")
    assert result["parents"]["encoder"] == f"run@{encoder.hash[:16]}"
    assert any("validation_loss" in line for line in lines(finished))


def test_the_directory_stands_on_its_own(finished):
    config = read(finished / "config.json")["config"]
    training = config["training"]
    assert (training["head"], training["layer_decay"], training["optimizer"]) == ("probe", 0.85, "adamw")
    assert None not in (training["batch_size"], training["lr"], training["weight_decay"], training["evaluate_steps"])
    classifier = fewlabel.load_classifier(finished / "classifier")
    assert classifier.class_names == [str(digit) for digit in range(10)]
    assert classifier.provenance["metrics"]["accuracy"] == read(finished / "result.json")["metrics"]["accuracy"]
    assert main(["probe", "--encoder", str(finished), "--labels", "0.1", "--draws", "1", "--out", f"{finished}-p"]) == 0


def test_its_configuration_repeats_it_bit_for_bit(finished, tmp_path):
    assert finetune("--config", finished / "config.json", "--out", tmp_path / "again") == 0
    for name in WEIGHTS:
        assert (tmp_path / "again" / name).read_bytes() == (finished / name).read_bytes()
    assert read(tmp_path / "again" / "config.json")["config"] == read(finished / "config.json")["config"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_and_resumed_it_ends_in_the_same_bits(finished, trained, start, tmp_path, number):
    run = tmp_path / "run"
    process = start("finetune", "--encoder", trained, *OPTIONS, "--out", run)
    until = time.monotonic() + 100
    while len(lines(run)) < 13 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(number)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == (128 + number if number == signal.SIGTERM else -number), messages
    if number == signal.SIGTERM:
        assert f"finetune --resume {run}" in messages
    assert finetune("--resume", run) == 0
    for name in WEIGHTS:
        assert (run / name).read_bytes() == (finished / name).read_bytes()
    assert read(run / "result.json")["metrics"] == read(finished / "result.json")["metrics"]


def test_two_processes_from_scratch_on_a_folder(start, stripes, tmp_path):
    run = tmp_path / "run"
    arguments = ("--data", stripes, "--processes", 2, "--max-steps", 6, "--evaluate-steps", 3, "--out", run, "--json")
    process = start("finetune", *SCRATCH, *arguments)
    output, messages = process.communicate(timeout=300)
    assert process.returncode == 0, messages
    assert json.loads(output) == read(run / "result.json")
    assert read(run / "config.json")["config"]["training"]["processes"] == 2
    assert messages.count("Classifier:") == 1
    assert fewlabel.load_classifier(run / "classifier").class_names == ["across", "up"]
    metrics = read(run / "result.json")["metrics"]
    assert {"sensitivity", "specificity", "probe_sensitivity"} <= metrics.keys()


def test_leaked_test_images_are_told_and_left_out_once_more(stripes, tmp_path, capfd):
    shutil.copy(stripes / "train/up/00.png", stripes / "test/up/99.png")
    assert finetune(*SCRATCH, "--data", stripes, "--max-steps", 2, "--out", tmp_path / "run") == 0
    result = read(tmp_path / "run" / "result.json")
    assert ["test", "test/up/99.png"] in [leak["right"] for leak in result["leaks"]]
    rows = {row["figure"]: row for row in result["metrics"]["without_leaks"]}
    assert rows.keys() == result["metrics"].keys() - {"without_leaks"}
    assert "Without the test images that stand elsewhere too" in capfd.readouterr().err


def test_few_validation_labels_stop_nothing(trained, tmp_path, capfd):
    arguments = ("--encoder", trained, "--shots", 2, "--max-steps", 2, "--out", tmp_path / "run")
    assert finetune(*arguments) == 0
    assert read(tmp_path / "run" / "result.json")["labelled_images"] == 20
    assert "no early stopping" in capfd.readouterr().err
    assert not any("validation_loss" in line for line in lines(tmp_path / "run"))


def test_another_draw_is_other_images(trained, tmp_path):
    heads = []
    for draw in (0, 1):
        run = tmp_path / str(draw)
        arguments = ("--encoder", trained, "--shots", 1, "--draw", draw, "--max-steps", 1, "--out", run)
        assert finetune(*arguments) == 0
        heads.append((run / WEIGHTS[0]).read_bytes())
    assert heads[0] != heads[1]


def test_colour_images_and_an_encoder_of_grey_ones(trained, tmp_path, capfd):
    for label, name in enumerate(("a", "b")):
        write(tmp_path / "photos" / name, 20, colour=True, label=label)
    arguments = ("--encoder", trained, "--data", tmp_path / "photos", "--max-steps", 2, "--out", tmp_path / "run")
    assert finetune(*arguments) == 0
    assert "takes 1 channels: the images, of 3, are converted" in capfd.readouterr().err
    assert fewlabel.load_classifier(tmp_path / "run" / "classifier").probabilities(torch.rand(1, 3, 9, 9)).shape == (
        1,
        2,
    )


def test_a_class_that_only_test_images_have_is_said(tmp_path, stripes, capfd):
    write(stripes / "test" / "never", 3)
    assert finetune(*SCRATCH, "--data", stripes, "--max-steps", 1, "--out", tmp_path / "run") == 0
    assert "no label of never" in capfd.readouterr().err
    assert read(tmp_path / "run" / "result.json")["metrics"]["accuracy"]["mean"] < 1


def test_several_labels_an_image(tmp_path, write_images):
    images = write_images(tmp_path / "images", 60)
    rows = ["path,cough,fever"] + [f"images/{n:03d}.png,{n % 2},{'' if n % 5 == 0 else n % 3 % 2}" for n in range(60)]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    assert images.is_dir()
    source = ("--data", tmp_path / "table.csv", "--label-column", "cough,fever")
    assert finetune(*SCRATCH, *source, "--max-steps", 2, "--out", tmp_path / "run") == 0
    assert {"exact_match", "auroc"} <= read(tmp_path / "run" / "result.json")["metrics"].keys()
    classifier = fewlabel.load_classifier(tmp_path / "run" / "classifier")
    assert (classifier.multi_label, classifier.class_names) == (True, ["cough", "fever"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--labels", 0), "--labels is 0"),
        (("--labels", 1.5), "above 0 and at most 1"),
        (("--labels", 0.1, "--shots", 2), "give one of them"),
        (("--draw", -1), "numbered from 0"),
        (("--draw", 3), "no draw 3"),
        (("--encoder", "nowhere"), "nowhere"),
        (("--encoder", "timm:resnet5"), "nearest known: resnet5"),
        (("--backbone", "resnet18"), "--encoder scratch"),
        (("--encoder", "scratch", "--backbone", "resnet17"), "There is no backbone 'resnet17'"),
        (("--test-share", 0), "no labelled test images"),
        (("--batch-size", 5000), "--batch-size 5000 is more than"),
        (("--layer-decay", 2), "--layer-decay is 2"),
        (("--views", "xrays"), "no views called"),
    ],
    ids=str,
)
def test_bad_options_are_refused_without_a_trace(trained, tmp_path, refused, arguments, message):
    given = arguments if "--encoder" in arguments else ("--encoder", trained, *arguments)
    assert message in refused("finetune", *given, "--out", tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_sources_that_can_not_be_learned_from_are_refused(trained, tmp_path, refused, write_images):
    arguments = ("finetune", "--encoder", trained, "--out", tmp_path / "run", "--data")
    assert "no labels" in refused(*arguments, write_images(tmp_path / "flat", 12))
    for split, classes in (("train", "ab"), ("test", "a")):
        for label, name in enumerate(classes):
            write(tmp_path / "one" / split / name, 6, label=label)
    assert "test" in refused(*arguments, tmp_path / "one")


def test_an_encoder_made_anew_is_no_longer_the_one_to_resume_with(trained, stripes, tmp_path, refused, pretrain):
    copied, run = shutil.copytree(trained, tmp_path / "copied"), tmp_path / "run"
    assert finetune("--encoder", copied, "--data", stripes, "--max-steps", 2, "--out", run) == 0
    (run / "result.json").unlink()
    shutil.rmtree(copied)
    assert pretrain("--max-steps", 1, "--out", copied) == 0
    assert "is not the encoder" in refused("finetune", "--resume", run)


def test_without_any_run_it_says_how_to_make_one(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "pretrain --data" in refused("finetune")
