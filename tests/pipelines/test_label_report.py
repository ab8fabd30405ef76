"""The report of a label curve: its numbers are those given, its page stands alone, and a browser shows it."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from fewlabel.pipelines.label_report import write_report
from fewlabel.supervised.few_labels import figures_of, gains_of, resample
from fewlabel.supervised.leaks import Leak
from fewlabel.supervised.methods import comparisons
from fewlabel.supervised.metrics import Predictions
from fewlabel.supervised.mistakes import most_confident_mistakes
from fewlabel.supervised.subsets import Subset

STRENGTHS = {"probe": 1.5, "knn": 1.0, "probe_untrained": 0.4}
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Text(HTMLParser):
    """The text of a page, and the sources of what it loads."""

    def __init__(self, html):
        super().__init__()
        self.text, self.loads, self.headings, self.tags, self.inside = "", [], [], set(), ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.inside = tag
        self.loads += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data
        if self.inside == "h2":
            self.headings.append(data)
            self.inside = ""


def one_class(strength, draw, classes=3, number=60):
    generator = np.random.default_rng(draw)
    labels = np.arange(number) % classes
    scores = np.exp(generator.normal(size=(number, classes)) + strength * np.eye(classes)[labels])
    return Predictions(scores / scores.sum(axis=1, keepdims=True), labels, threshold=None, ordinal=False)


def several_labels(strength, draw, number=60):
    labels = np.random.default_rng(9).integers(-1, 2, (number, 3))
    scores = np.random.default_rng(draw).normal(size=labels.shape) + strength / 4 * (2 * labels - 1)
    return Predictions(1 / (1 + np.exp(-scores)), labels, threshold=None, ordinal=False)


def told(make=one_class, amounts=(6, 60), methods=STRENGTHS):
    """The curve, its amounts and its metrics; all labels are one draw, fewer ones two."""
    drawn = [2 if labels < 60 else 1 for labels in amounts]
    curve = {
        method: [[make(STRENGTHS[method] + labels / 60, draw) for draw in range(draws)]
                 for labels, draws in zip(amounts, drawn, strict=True)]
        for method in methods
    }  # fmt: skip
    subsets = [
        [Subset(labels / 60, None, draw, torch.arange(labels)) for draw in range(draws)]
        for labels, draws in zip(amounts, drawn, strict=True)
    ]
    resampled = resample(curve, None, 0)
    metrics = {
        "curve": figures_of(resampled, subsets),
        "gain": [row for pair in comparisons(curve) for row in gains_of(resampled, *pair, subsets)],
    }
    return {"curve": curve, "amounts": subsets, "metrics": metrics}


def report(directory, known, **changes):
    asked = []

    def thumbnails(positions):
        asked.append(positions)
        return np.stack([np.full((1, 8, 8), position, np.uint8) for position in positions])

    page, pictures = write_report(
        directory,
        **{
            "title": "Label curve of <b>x</b>",
            "about": {"Encoder": "resnet18", "Command": "fewlabel pretrain\nfewlabel label-curve"},
            "verdict": ["Pretraining paid.", "By a lot."],
            "test_ids": [f"image{i:02d}" for i in range(60)],
            "class_names": ["a", "<script>alert(1)</script>", "$\\frac$"],
            "leaks": [],
            "thumbnails": thumbnails,
            **known,
            **changes,
        },
    )
    return page, pictures, Text(page.read_text(encoding="utf-8")), asked


@pytest.fixture(scope="module")
def known():
    found = told()
    without = [{**row, "auroc": {"mean": 0.1234, "low": 0.0981, "high": 0.2221}} for row in found["metrics"]["curve"]]
    leaks = [Leak("near", ("train", f"copy{i}"), ("test", f"image{i}"), i / 100) for i in range(60)]
    return {**found, "leaks": leaks, "metrics": {**found["metrics"], "curve_without_leaks": without}}


@pytest.fixture(scope="module")
def reported(known, tmp_path_factory):
    return report(tmp_path_factory.mktemp("run"), known)


def test_the_page_tells_all_in_its_order_and_loads_nothing(reported):
    page, pictures, read, _ = reported
    assert page.name == "report.html"
    assert read.headings == [
        "Verdict",
        "Label curve",
        "Every figure",
        "Paired differences",
        "ROC curves",
        "Where it errs",
        "Most confident mistakes",
        "Images in two splits",
        "What was trained on what",
        "How the figures were made",
    ]
    assert all(load.startswith(("data:image/png;base64,", "#")) for load in read.loads)
    assert "script" not in read.tags
    assert "b" not in read.tags
    for given in (
        "Label curve of <b>x</b>",
        "Pretraining paid.",
        "By a lot.",
        "fewlabel pretrain\nfewlabel label-curve",
    ):
        assert given in read.text
    assert set(pictures) == {"label_curve"} | {
        f"{name}_{end}_labels" for name in ("roc", "confusion", "calibration") for end in ("fewest", "most")
    }
    for name, path in pictures.items():
        assert path == page.parent / "pictures" / f"{name}.png"
        with Image.open(path) as opened:
            opened.load()
            assert opened.width > 400


def test_every_figure_and_difference_stands_there_as_given(reported, known):
    text = re.sub(r"\s+", " ", reported[2].text)
    metrics = known["metrics"]
    for row in metrics["curve"]:
        for name in ("accuracy", "balanced_accuracy", "auroc", "auprc", "f1", "ece"):
            figure = row[name]
            assert f"{figure['mean']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})" in text
    assert metrics["gain"]
    for row in metrics["gain"]:
        for name in ("auroc", "accuracy"):
            gain = row[name]
            assert f"{gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})" in text
    assert "Linear probe against linear probe, untrained network" in text
    assert "With 6 labels (10 %), 2 draws" in text
    assert "With 60 labels (100 %), a single draw" in text


def test_mistakes_are_those_of_the_main_method_with_the_most_labels(reported, known):
    *_, read, asked = reported
    ids = [f"image{i:02d}" for i in range(60)]
    mistakes = most_confident_mistakes(known["curve"]["probe"][-1], ids, 24)
    assert asked == [[mistake.position for mistake in mistakes]]
    names = ["a", "<script>alert(1)</script>", "$\\frac$"]
    for mistake in mistakes:
        said = f"{mistake.id}label: {names[mistake.label]}predicted: {names[mistake.predicted]}"
        assert f"{said}confidence: {mistake.confidence:.3f}" in read.text


def test_leaks_are_listed_with_the_figures_without_them(reported, known):
    text = reported[2].text
    assert "Pairs found: 60; the 50 most similar are here, all in result.json" in text
    assert "copy59test" in text
    assert "copy9test" not in text
    assert text.count("0.123 (0.098 to 0.222)") == len(known["metrics"]["curve"])


def test_several_labels_an_image_have_aurocs_in_place_of_a_confusion_matrix(tmp_path):
    _, pictures, read, asked = report(tmp_path, told(several_labels))
    assert {"label_aurocs_fewest_labels", "label_aurocs_most_labels"} <= set(pictures)
    assert not any(name.startswith("confusion") for name in pictures)
    assert "3 labels an image" in read.text
    assert "No image stands in two splits" in read.text
    assert "label: nopredicted: yes" in read.text
    assert len(asked[0]) == 24


def test_one_amount_without_mistakes_or_comparisons(tmp_path):
    perfect = told(lambda _, draw: one_class(50, draw), amounts=(60,), methods=("probe",))
    _, pictures, read, asked = report(tmp_path, perfect)
    assert set(pictures) == {"label_curve", "roc_most_labels", "confusion_most_labels", "calibration_most_labels"}
    assert "The linear probe with 60 labels (100 %) is right about every test image." in read.text
    assert asked == []
    assert "Paired differences" not in read.text


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path")
def test_a_browser_shows_the_page(tmp_path, reported):
    page = reported[0]
    shot = tmp_path / "page.png"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'user'}",
    ]
    command = [BROWSER, *options, "--window-size=1200,1600", f"--screenshot={shot}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(shot) as opened:
        pixels = np.asarray(opened.convert("RGB")).astype(int)
    # Text at the top, and below it the colour of the probe's line.
    assert (pixels[:400].sum(axis=2) < 200).sum() > 1000
    assert (np.abs(pixels - (0xD5, 0x5E, 0x00)).sum(axis=2) < 30).sum() > 300
