"""Probe and kNN over subsets: what is trained on what, and what the rows say."""

import pytest
import torch

from fewlabel.supervised import few_labels
from fewlabel.supervised.config import ProbeConfig
from fewlabel.supervised.few_labels import (
    Part,
    amounts_of,
    answers_of,
    figures_of,
    gains_of,
    judge,
    penalties_of,
    resample,
    without,
)
from fewlabel.supervised.linear_probe import Penalty
from fewlabel.supervised.subsets import fractions_of


def _part(name, number, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(number) % 2
    features = torch.randn(number, 8, generator=generator)
    features[:, 0] += spread * (2 * labels - 1)
    return Part([f"{name}{i:04d}" for i in range(number)], features, labels, None)


@pytest.fixture
def parts():
    return {
        name: _part(name, n, 1.0, seed) for seed, (name, n) in enumerate([("train", 200), ("val", 60), ("test", 300)])
    }


@pytest.fixture
def amounts(parts):
    train = parts["train"]
    return amounts_of(fractions_of(train.ids, train.labels, None, (0.05, 1.0), 3, 0))


def asked(parts, amounts, probe, suffix=""):
    """The answers on every subset, as the pipelines put them together."""
    answers = {f"{method}{suffix}": [[] for _ in amounts] for method in ("probe", "knn")}
    for place, draws in enumerate(amounts):
        for subset in draws:
            for method, answer in answers_of(parts, subset.indices, 2, probe, seed=0).items():
                answers[f"{method}{suffix}"][place].append(answer)
    return answers


def judged(parts, answers):
    return judge(answers, parts["test"], parts.get("val"), ordinal=False)


def test_rows_say_what_was_asked_and_found(parts, amounts):
    curve = judged(parts, asked(parts, amounts, ProbeConfig()))
    rows = figures_of(resample(curve, None, 0), amounts)
    found = [(row["method"], row["fraction"], row["shots"], row["labels"], row["draws"]) for row in rows]
    assert found == [
        ("probe", 0.05, None, 10, 3),
        ("probe", 1.0, None, 200, 1),
        ("knn", 0.05, None, 10, 3),
        ("knn", 1.0, None, 200, 1),
    ]
    for row in rows:
        for name in ("accuracy", "auroc", "auprc", "f1", "ece", "sensitivity", "specificity"):
            assert row[name]["low"] <= row[name]["mean"] <= row[name]["high"]
    # The two classes lie 2 deviations apart: no classifier does better than 84.1 %.
    assert rows[1]["accuracy"]["mean"] == pytest.approx(0.84, abs=0.05)
    assert rows[0]["accuracy"]["mean"] < rows[1]["accuracy"]["mean"]


def test_better_features_gain_and_the_same_gain_nothing(parts, amounts):
    noise = {name: Part(part.ids, torch.randn_like(part.features), part.labels, None) for name, part in parts.items()}
    answers = asked(parts, amounts, ProbeConfig(penalty=0.1))
    given = {"value": 0.1, "how": "given"}
    assert [row["penalties"] for row in penalties_of(answers, amounts)] == [[given] * 3, [given]]
    curve = judged(parts, answers | asked(noise, amounts, ProbeConfig(penalty=0.1), "_untrained"))
    resampled = resample(curve, None, 0)
    gained = gains_of(resampled, "probe", "probe_untrained", amounts)
    assert gained[1]["labels"] == 200
    assert gained[1]["auroc"]["low"] > 0.2
    for row in gains_of(resampled, "probe", "probe", amounts):
        assert set(row["auroc"].values()) == {0.0}


def test_the_penalty_is_chosen_within_the_subset_unless_it_is_all(parts, amounts, monkeypatch):
    called = []

    def choose(features, labels, groups, *, class_weights, validation, seed):
        called.append((len(labels), None if validation is None else len(validation[1])))
        return Penalty(1.0, "fixed")

    monkeypatch.setattr(few_labels, "choose_penalty", choose)
    answers = asked(parts, amounts, ProbeConfig())
    assert [answer.about["value"] for draws in answers["probe"] for answer in draws] == [1.0] * 4
    assert called == [(10, None)] * 3 + [(200, 60)]
    called.clear()
    asked({name: parts[name] for name in ("train", "test")}, amounts, ProbeConfig())
    assert called == [(10, None)] * 3 + [(200, None)]
    called.clear()
    asked(parts, amounts, ProbeConfig(penalty=0.1))
    assert not called


def test_dropped_images_count_nowhere(parts, amounts):
    answers = asked(parts, amounts, ProbeConfig())
    dropped = set(parts["test"].ids[::3])
    fewer, clean = without(answers, dropped, parts["test"])
    assert clean.ids == [image for image in parts["test"].ids if image not in dropped]
    smaller = {**parts, "test": clean}
    again = judged(smaller, asked(smaller, amounts, ProbeConfig()))
    for method, by_amount in judged(smaller, fewer).items():
        for mine, other in zip(by_amount, again[method], strict=True):
            assert [one.figures() for one in mine] == [one.figures() for one in other]


def test_test_labels_change_no_prediction(parts, amounts):
    swapped = {**parts, "test": Part(parts["test"].ids, parts["test"].features, 1 - parts["test"].labels, None)}
    right, wrong = (
        judged(given, asked(given, amounts, ProbeConfig()))["probe"][1][0].figures()["accuracy"]
        for given in (parts, swapped)
    )
    assert right + wrong == pytest.approx(1)
