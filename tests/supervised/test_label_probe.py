"""The linear probe of several labels an image: a logistic regression each, as scikit-learn has it, and one penalty."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from fewlabel.errors import UserError
from fewlabel.supervised import linear_probe as module
from fewlabel.supervised.config import ClassWeights, ProbeConfig
from fewlabel.supervised.few_labels import Part, amounts_of, answers_of, figures_of, judge, penalties_of, resample
from fewlabel.supervised.linear_probe import choose_penalty, constant_labels, fit_probe
from fewlabel.supervised.subsets import fractions_of


def images(number: int, width: int, seed: int = 0, unknown: float = 0.2) -> tuple[Tensor, Tensor]:
    """Features that tell something of three labels of different frequency, of which some are unknown."""
    generator = torch.Generator().manual_seed(seed)
    features = 3 * torch.randn(number, width, generator=generator) + 5
    directions = torch.randn(width, 3, generator=torch.Generator().manual_seed(9)) / width**0.5
    noise = torch.randn(number, 3, generator=generator)
    labels = ((features - 5) @ directions + noise > torch.tensor([0.0, 2.0, 4.0])).long()
    return features, torch.where(torch.rand(number, 3, generator=generator) < unknown, -1, labels)


@pytest.mark.parametrize(("number", "width"), [(200, 12), (60, 90)], ids=["tall", "wide"])
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
@pytest.mark.parametrize("penalty", [1.0, 1e-3])
def test_each_label_agrees_with_scikit_learn(
    number: int, width: int, class_weights: ClassWeights, penalty: float
) -> None:
    features, labels = images(number, width)
    queries = images(50, width, seed=1)[0].double().numpy()
    probe = fit_probe(features, labels, 3, penalty=penalty, class_weights=class_weights)
    scaler = StandardScaler().fit(features.double().numpy())
    for label in range(3):
        known = labels[:, label] >= 0
        reference = LogisticRegression(
            C=1 / (penalty * int(known.sum())),
            class_weight=None if class_weights == "none" else "balanced",
            tol=1e-9,
            max_iter=10_000,
        ).fit(scaler.transform(features[known].double().numpy()), labels[known, label].numpy())
        found = probe.probabilities(torch.from_numpy(queries))[:, label].numpy()
        np.testing.assert_allclose(found, reference.predict_proba(scaler.transform(queries))[:, 1], atol=2e-5)
        coefficients = probe.weight[label].numpy() * scaler.scale_
        np.testing.assert_allclose(coefficients, reference.coef_[0], atol=1e-4 * np.abs(reference.coef_).max())


def test_a_label_changes_no_other() -> None:
    features, labels = images(100, 8)
    options: dict[str, Any] = {"penalty": 0.01, "class_weights": "none"}
    together = fit_probe(features, labels, 3, **options).probabilities(features)
    for label in range(3):
        alone = fit_probe(features, labels[:, [label]], 1, **options).probabilities(features)
        torch.testing.assert_close(together[:, [label]], alone, rtol=0, atol=1e-6)


def test_a_label_of_one_value_has_its_rate_and_an_unknown_one_a_half() -> None:
    features, labels = images(80, 8)
    more = torch.cat([labels, torch.tensor([[1, 0, -1, -1]]).repeat(80, 1)], dim=1)
    more[:40, 3:5] = -1
    probe = fit_probe(features, more, 7, penalty=0.01, class_weights="balanced")
    found = probe.probabilities(features)
    assert found[:, 3:].unique(dim=0).tolist() == [[1, 0, 0.5, 0.5]]
    plain = fit_probe(features, labels, 3, penalty=0.01, class_weights="balanced").probabilities(features)
    torch.testing.assert_close(found[:, :3], plain, rtol=0, atol=1e-9)
    assert constant_labels(more) == [3, 4, 5, 6]
    nothing = fit_probe(features, more[:, 3:], 4, penalty=0.01, class_weights="none")
    assert nothing.probabilities(features).unique(dim=0).tolist() == [[1, 0, 0.5, 0.5]]
    assert choose_penalty(features, more[:, 3:], None, class_weights="none", validation=None, seed=0) == (
        8 * module._DEFAULT,
        "fixed",
    )


def test_the_layer_gives_the_logits_of_the_probabilities() -> None:
    features, labels = images(60, 8)
    probe = fit_probe(features, labels, 3, penalty=0.01, class_weights="none")
    logits = probe.as_linear()(features)
    torch.testing.assert_close(logits.sigmoid().double(), probe.probabilities(features), rtol=0, atol=1e-5)


def test_rare_labels_converge_at_every_penalty_of_the_grid(capsys: pytest.CaptureFixture[str]) -> None:
    features, labels = images(300, 64, unknown=0)
    labels[:, 2] = 0
    labels[:2, 2] = 1
    for penalty in 64 * module._GRID:
        fit_probe(features, labels, 3, penalty=penalty, class_weights="none")
    assert capsys.readouterr().err == ""


def log_loss(probabilities: Tensor, labels: Tensor) -> float:
    known = labels >= 0
    return float(F.binary_cross_entropy(probabilities[known], labels[known].double(), reduction="sum"))


def test_the_penalty_has_the_least_summed_log_loss_on_the_validation_images() -> None:
    (features, labels), held = images(60, 16), images(300, 16, seed=1)
    losses = []
    for penalty in 16 * module._GRID:
        probe = fit_probe(features, labels, 3, penalty=penalty, class_weights="none")
        losses.append(log_loss(probe.probabilities(held[0]), held[1]))
    chosen = choose_penalty(features, labels, None, class_weights="none", validation=held, seed=0)
    assert chosen == (16 * module._GRID[np.argmin(losses)], "validation")


def test_without_validation_folds_choose_and_keep_groups_whole() -> None:
    features, labels = images(60, 16)
    groups = [f"patient {place // 3}" for place in range(60)]
    chosen = choose_penalty(features, labels, groups, class_weights="none", validation=None, seed=0)
    assert chosen.value in 16 * module._GRID
    assert chosen.how == "5-fold cross-validation"
    held_out = []
    for train, _, held, _ in module._folds(features, labels, groups, seed=0):
        rows = [[int((features == row).all(dim=1).nonzero()) for row in part] for part in (train, held)]
        assert not {groups[row] for row in rows[0]} & {groups[row] for row in rows[1]}
        held_out += rows[1]
    assert sorted(held_out) == list(range(60))


def test_refuses_labels_that_do_not_fit() -> None:
    features, labels = images(20, 4)
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        fit_probe(features, labels, 4, penalty=1, class_weights="none")
    with pytest.raises(ValueError, match="-1 to 1"):
        fit_probe(features, 2 * labels, 3, penalty=1, class_weights="none")
    features[3, 2] = torch.nan
    with pytest.raises(UserError, match="1 of 20 images"):
        fit_probe(features, labels, 3, penalty=1, class_weights="none")


def test_probe_and_neighbours_over_subsets() -> None:
    parts = {}
    for seed, (name, number) in enumerate([("train", 200), ("val", 60), ("test", 150)]):
        features, labels = images(number, 8, seed)
        every = Part([f"{name}{place:03d}" for place in range(number)], features, labels, None)
        parts[name] = every.at((labels >= 0).any(dim=1).nonzero().flatten())
    train = parts["train"]
    amounts = amounts_of(fractions_of(train.ids, train.labels, None, (0.1, 1.0), 2, 0))
    said = [[answers_of(parts, subset.indices, 3, ProbeConfig(), seed=0) for subset in draws] for draws in amounts]
    answers = {method: [[answer[method] for answer in draws] for draws in said] for method in ("probe", "knn")}
    rows = figures_of(resample(judge(answers, parts["test"], parts["val"], ordinal=False), None, 0), amounts)
    assert [row["method"] for row in rows] == ["probe", "probe", "knn", "knn"]
    assert "sensitivity" not in rows[0]
    assert rows[0]["auroc"]["mean"] < rows[1]["auroc"]["mean"]
    assert rows[1]["auroc"]["low"] > 0.7
    assert rows[3]["auroc"]["low"] > 0.6
    told = penalties_of(answers, amounts)
    assert [[penalty["how"] for penalty in row["penalties"]] for row in told] == [
        ["5-fold cross-validation"] * 2,
        ["validation"],
    ]
