"""Probe and kNN over subsets: what is trained on what, and what the rows say."""

import pytest
import torch

from fewlabel.supervised import few_labels
from fewlabel.supervised.config import ProbeConfig
from fewlabel.supervised.few_labels import Part, amounts_of, evaluate, figures_of, gains_of
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


def test_rows_say_what_was_asked_and_found(parts, amounts):
    curve = evaluate(parts, amounts, 2, ProbeConfig(), ordinal=False, seed=0)
    rows = figures_of(curve, amounts, None, seed=0)
    asked = [(row["method"], row["fraction"], row["shots"], row["labels"], row["draws"]) for row in rows]
    assert asked == [
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
    curve = evaluate(parts, amounts, 2, ProbeConfig(penalty=0.1), ordinal=False, seed=0)
    curve |= evaluate(noise, amounts, 2, ProbeConfig(penalty=0.1), suffix="_untrained", ordinal=False, seed=0)
    gained = gains_of(curve, "probe", "probe_untrained", amounts, None, seed=0)
    assert gained[1]["labels"] == 200
    assert gained[1]["auroc"]["low"] > 0.2
    for row in gains_of(curve, "probe", "probe", amounts, None, seed=0):
        assert set(row["auroc"].values()) == {0.0}


def test_the_penalty_is_chosen_within_the_subset_unless_it_is_all(parts, amounts, monkeypatch):
    asked = []

    def choose(features, labels, groups, *, class_weights, validation, seed):
        asked.append((len(labels), None if validation is None else len(validation[1])))
        return 1.0

    monkeypatch.setattr(few_labels, "choose_penalty", choose)
    evaluate(parts, amounts, 2, ProbeConfig(), ordinal=False, seed=0)
    assert asked == [(10, None)] * 3 + [(200, 60)]
    asked.clear()
    evaluate({name: parts[name] for name in ("train", "test")}, amounts, 2, ProbeConfig(), ordinal=False, seed=0)
    assert asked == [(10, None)] * 3 + [(200, None)]
    asked.clear()
    evaluate(parts, amounts, 2, ProbeConfig(penalty=0.1), ordinal=False, seed=0)
    assert not asked


def test_test_labels_change_no_prediction(parts, amounts):
    swapped = {**parts, "test": Part(parts["test"].ids, parts["test"].features, 1 - parts["test"].labels, None)}
    right, wrong = (
        evaluate(given, amounts, 2, ProbeConfig(), ordinal=False, seed=0)["probe"][1][0].figures()["accuracy"]
        for given in (parts, swapped)
    )
    assert right + wrong == pytest.approx(1)
