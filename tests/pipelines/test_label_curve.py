"""`fewlabel label-curve`: the whole picture, stopped and gone on with, nothing done twice."""

import html
import json
import os
import signal

import pytest
import torch

from fewlabel.__main__ import main
from fewlabel.pipelines.labelled import LEARNED_FROM_LABELS
from fewlabel.supervised import label_curve
from fewlabel.supervised.answers import AnswerFolder

FEW = ("--labels", "0.2", "1.0", "--draws", "2", "--max-steps", "3", "--methods", "probe", "finetune")
METHODS = {"probe", "knn", "probe_untrained", "knn_untrained", "finetune", "scratch"}


def run(trained, striped, out, *arguments):
    return main(["label-curve", "--encoder", str(trained), "--data", str(striped), "--out", str(out), *arguments])


@pytest.fixture
def few(trained, striped, tmp_path):
    return lambda *arguments: run(trained, striped, tmp_path / "curve", *FEW, "untrained", "scratch", *arguments)


def test_every_method_at_every_amount_with_a_verdict_and_a_report(few, tmp_path, capsys):
    assert few("--json") == 0
    result = json.loads(capsys.readouterr().out)
    out = tmp_path / "curve"
    assert result == json.loads((out / "result.json").read_text())
    metrics = result["metrics"]
    # All labels are one draw: what is trained is trained again with another seed, what is solved is not.
    assert {(row["method"], row["labels"], row["draws"]) for row in metrics["curve"]} == {
        (method, 8, 2) for method in METHODS
    } | {(method, 40, 2 if method in ("finetune", "scratch") else 1) for method in METHODS}
    for row in metrics["curve"]:
        for name in ("auroc", "accuracy", "balanced_accuracy", "ece", "sensitivity"):
            assert row[name]["low"] <= row[name]["mean"] <= row[name]["high"]
    assert {row["method"] for row in metrics["gain"]} == {
        "finetune - scratch",
        "probe - probe_untrained",
        "knn - knn_untrained",
    }
    assert len(metrics["curve_without_leaks"]) == len(metrics["curve"])
    assert "retraining" in result["verdict"][0]
    assert LEARNED_FROM_LABELS not in result["verdict"]
    page = html.unescape((out / "report.html").read_text())
    assert result["verdict"][0] in page
    assert "no label was used" in page
    assert "test/up/99.png" in page
    assert {path.stem for path in (out / "pictures").iterdir()} >= {"label_curve", "roc_most_labels"}
    assert not list((out / "answers").rglob("checkpoints"))
    assert len(list((out / "answers").glob("finetune-*/metrics.jsonl"))) == 4


@pytest.mark.parametrize("command", ["probe", "label-curve"])
def test_few_labels_are_divided_into_amounts_that_say_something(trained, striped, tmp_path, command):
    arguments = ["--methods", "probe", "untrained"] if command == "label-curve" else []
    out = tmp_path / "out"
    given = [command, "--encoder", trained, "--data", striped, "--draws", "2", "--out", out, *arguments]
    assert main([*map(str, given)]) == 0
    curve = json.loads((out / "result.json").read_text())["metrics"]["curve"]
    # Of 40 labels of two classes 1 % would be none, and 10 % are two of each.
    assert {(row["fraction"], row["labels"]) for row in curve} == {(0.1, 4), (1.0, 40)}
    assert json.loads((out / "config.json").read_text())["config"]["few"]["labels"] == [0.1, 1.0]


def test_stopped_anywhere_it_goes_on_and_does_nothing_twice(few, trained, striped, tmp_path, monkeypatch, capsys):
    whole = tmp_path / "whole"
    assert run(trained, striped, whole, *FEW) == 0
    asked, tuned = [], []
    answers_of, fine_tune = label_curve.answers_of, label_curve.fine_tune

    def noted_answers(parts, few, *arguments, **options):
        asked.append(len(few))
        return answers_of(parts, few, *arguments, **options)

    def stopped_in_the_second(start, store, labelled, **options):
        tuned.append(len(labelled))
        if len(tuned) == 2:
            judge = options["log"].log

            def stop(step, metrics):
                judge(step, metrics)
                if step == 2:
                    os.kill(os.getpid(), signal.SIGTERM)

            monkeypatch.setattr(options["log"], "log", stop)
        return fine_tune(start, store, labelled, **options)

    monkeypatch.setattr(label_curve, "answers_of", noted_answers)
    monkeypatch.setattr(label_curve, "fine_tune", stopped_in_the_second)
    parts = tmp_path / "parts"
    assert run(trained, striped, parts, *FEW) == 128 + signal.SIGTERM
    assert f"label-curve --resume {parts}" in " ".join(capsys.readouterr().err.split())
    assert (asked, tuned) == ([8, 8, 40], [8, 8])
    assert list((parts / "answers/finetune-0.2-1/checkpoints").iterdir())
    assert main(["label-curve", "--resume", str(parts)]) == 0
    # The second training went on, and the first was not begun again.
    assert (asked, tuned) == ([8, 8, 40], [8, 8, 8, 40, 40])
    first, second = (AnswerFolder(folder / "answers") for folder in (whole, parts))
    for method in ("probe", "finetune"):
        for draw in range(2):
            assert torch.equal(first.get(method, "0.2", draw).test, second.get(method, "0.2", draw).test)
    figures = [json.loads((folder / "result.json").read_text())["metrics"] for folder in (whole, parts)]
    assert figures[0] == figures[1]
    steps = [json.loads(line)["step"] for line in (parts / "answers/finetune-0.2-1/metrics.jsonl").open()]
    assert steps == [1, 2, 3]


def test_that_the_encoder_was_fine_tuned_on_labels_is_told(make_classifier, striped, tmp_path):
    made_of = {"source": {"name": "other photos", "fingerprint": "0"}}
    make_classifier(tmp_path / "tuned" / "classifier", provenance=made_of)
    assert run(tmp_path / "tuned", striped, tmp_path / "curve", "--shots", "1", "--methods", "probe", "untrained") == 0
    assert LEARNED_FROM_LABELS in json.loads((tmp_path / "curve/result.json").read_text())["verdict"]
    assert "other images; with labels" in html.unescape((tmp_path / "curve/report.html").read_text())


def test_an_encoder_made_anew_is_refused(few, trained, striped, tmp_path, pretrain, refused, monkeypatch):
    other = tmp_path / "encoder-run"
    assert pretrain("--max-steps", 1, "--out", other) == 0
    monkeypatch.setattr(label_curve.LabelCurve, "tune", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run(other, striped, tmp_path / "curve", *FEW) == 130
    config = other / "encoder" / "config.json"
    config.write_text(config.read_text().replace('"bits": 8', '"bits": 16'))
    message = refused("label-curve", "--resume", tmp_path / "curve")
    assert "is not the encoder that" in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--methods", "untrained"), "must have probe or finetune"),
        (("--labels", "0"), "--labels has 0"),
        (("--labels", "0.1", "--shots", "2"), "give one of them"),
        (("--views", "xrays"), "There are no views called 'xrays'"),
        (("--imagenet", "resnet1"), "'resnet1'"),
        (("--test-share", "0", "--data", "digits"), "no labelled test images"),
    ],
)
def test_what_cannot_be_is_said(trained, striped, tmp_path, refused, arguments, expected):
    arguments = ["--encoder", trained, "--data", striped, "--out", tmp_path / "curve", "--max-steps", 1, *arguments]
    assert expected in refused("label-curve", *arguments)
