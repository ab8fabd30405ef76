"""The linear probe against scikit-learn's logistic regression, and the choice of its penalty."""

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
from fewlabel.supervised import logistic
from fewlabel.supervised.config import ClassWeights, ProbeConfig
from fewlabel.supervised.linear_probe import choose_penalty, fit_probe


def clusters(number: int, width: int, classes: int, spread: float = 2.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated features about a centre for each class, the first classes the more frequent."""
    generator = torch.Generator().manual_seed(1)
    centres, mix = torch.randn(classes, width, generator=generator), torch.randn(width, width, generator=generator)
    generator.manual_seed(seed)
    chance = torch.linspace(2, 1, classes)
    drawn = torch.multinomial(chance, number - classes, replacement=True, generator=generator)
    labels = torch.cat([torch.arange(classes), drawn])
    noise = torch.randn(number, width, generator=generator) @ mix * torch.linspace(0.1, 1, width) / width**0.5
    return centres[labels] + spread * noise + 5, labels


def objective(weight: Tensor, bias: Tensor, features: Tensor, labels: Tensor, penalty: float) -> Tensor:
    """As the docstring has it, of weights on standardised features."""
    features = features.double()
    standard = (features - features.mean(dim=0)) / features.std(dim=0, correction=0)
    return F.cross_entropy(standard @ weight.T + bias, labels) + penalty / 2 * weight.square().sum()


@pytest.mark.parametrize(("number", "width"), [(120, 12), (30, 60)], ids=["tall", "wide"])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
@pytest.mark.parametrize("penalty", [1.0, 1e-3])
def test_agrees_with_scikit_learn(
    number: int, width: int, classes: int, class_weights: ClassWeights, penalty: float
) -> None:
    features, labels = clusters(number, width, classes)
    queries = clusters(50, width, classes, seed=1)[0]
    probe = fit_probe(features, labels, classes, penalty=penalty, class_weights=class_weights)
    scaler = StandardScaler().fit(features.double().numpy())
    reference = LogisticRegression(
        C=(2 if classes == 2 else 1) / (penalty * number),
        class_weight=None if class_weights == "none" else "balanced",
        tol=1e-9,
        max_iter=10_000,
    ).fit(scaler.transform(features.double().numpy()), labels.numpy())
    expected = reference.predict_proba(scaler.transform(queries.double().numpy()))
    np.testing.assert_allclose(probe.probabilities(queries).numpy(), expected, atol=2e-5)
    found = probe.weight.numpy() * scaler.scale_
    found = found[1:] - found[:1] if classes == 2 else found
    np.testing.assert_allclose(found, reference.coef_, atol=1e-4 * np.abs(reference.coef_).max())


@pytest.mark.parametrize(("number", "width"), [(80, 10), (12, 40)], ids=["tall", "wide"])
@pytest.mark.parametrize("penalty", [100.0, 1e-2, 1e-5])
def test_the_gradient_of_the_whole_objective_is_zero(number: int, width: int, penalty: float) -> None:
    features, labels = clusters(number, width, 3)
    probe = fit_probe(features, labels, 3, penalty=penalty, class_weights="none")
    mean, deviation = features.double().mean(dim=0), features.double().std(dim=0, correction=0)
    weight = (probe.weight * deviation).requires_grad_()
    bias = (probe.bias + probe.weight @ mean).requires_grad_()
    objective(weight, bias, features, labels, penalty).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert max(float(weight.grad.abs().max()), float(bias.grad.abs().max())) < 1e-6


def test_units_of_a_column_do_not_matter() -> None:
    features, labels = clusters(60, 8, 3)
    units = torch.tensor([1e-6, 1e-3, 1, 1, 1, 1, 1e3, 1e6])
    options: dict[str, Any] = {"penalty": 0.1, "class_weights": "none"}
    plain = fit_probe(features, labels, 3, **options).probabilities(features)
    scaled = fit_probe(features * units, labels, 3, **options).probabilities(features * units)
    torch.testing.assert_close(scaled, plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("number", [20, 60], ids=["wide", "tall"])
def test_a_constant_column_has_no_weight(number: int) -> None:
    features, labels = clusters(number, 30, 3)
    features[:, 4] = 0.1  # Not exact in binary: its mean is off by rounding.
    features[:, 5] = 0
    features[0, 4] = torch.nextafter(features[0, 4], torch.tensor(1.0))
    probe = fit_probe(features, labels, 3, penalty=1e-3, class_weights="none")
    assert (probe.weight[:, 4:6] == 0).all()
    assert (probe.weight[:, 6:] != 0).all()


def test_linear_layer_gives_the_logits_of_the_probabilities() -> None:
    features, labels = clusters(60, 8, 3)
    probe = fit_probe(features, labels, 5, penalty=1e-2, class_weights="none")
    linear = probe.as_linear()
    assert linear.weight.dtype == torch.float32
    assert all(parameter.requires_grad for parameter in linear.parameters())
    probabilities = probe.probabilities(features)
    torch.testing.assert_close(linear(features).softmax(dim=1).double(), probabilities, rtol=0, atol=1e-5)
    loss = F.cross_entropy(linear(features), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad.isfinite().all() for parameter in linear.parameters() if parameter.grad is not None)


def test_a_class_without_labels_has_probability_zero_and_changes_nothing_else() -> None:
    features, labels = clusters(60, 8, 3)
    places = torch.tensor([0, 2, 5])
    few = fit_probe(features, labels, 3, penalty=1e-2, class_weights="balanced").probabilities(features)
    many = fit_probe(features, places[labels], 7, penalty=1e-2, class_weights="balanced").probabilities(features)
    torch.testing.assert_close(many[:, places], few)
    assert (many[:, [1, 3, 4, 6]] == 0).all()


def test_separable_classes_converge_at_every_penalty_of_the_grid(capsys: pytest.CaptureFixture[str]) -> None:
    features, labels = clusters(40, 64, 4, spread=0.1)
    for penalty in 64 * module._GRID:
        probe = fit_probe(features, labels, 4, penalty=penalty, class_weights="none")
    assert (probe.probabilities(features).argmax(dim=1) == labels).all()
    assert capsys.readouterr().err == ""


def test_says_when_it_has_not_converged(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(logistic, "_RESTARTS", 1)
    monkeypatch.setattr(logistic, "_ITERATIONS", 2)
    fit_probe(*clusters(60, 8, 3), 3, penalty=1e-3, class_weights="none")
    assert "has not converged" in capsys.readouterr().err


def test_the_same_every_time() -> None:
    features, labels = clusters(60, 20, 3)
    first, second = (
        fit_probe(features, labels, 3, penalty=choose(features, labels), class_weights="none") for _ in range(2)
    )
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)


def test_arguments_stay_as_they_were() -> None:
    features, labels = clusters(60, 20, 3)
    before = features.double().clone(), labels.clone()
    fit_probe(before[0], labels, 3, penalty=choose(before[0], labels), class_weights="none")
    assert torch.equal(before[0], features.double())
    assert torch.equal(before[1], labels)


def choose(
    features: Tensor,
    labels: Tensor,
    groups: list[str] | None = None,
    class_weights: ClassWeights = "none",
    validation: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
) -> float:
    return choose_penalty(features, labels, groups, class_weights=class_weights, validation=validation, seed=seed).value


def validation_loss(penalty: float, train: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor], classes: int) -> float:
    probabilities = fit_probe(*train, classes, penalty=penalty, class_weights="none").probabilities(held[0])
    return float(F.nll_loss(probabilities.log(), held[1]))


@pytest.mark.parametrize("spread", [0.5, 5.0, 30.0])
def test_chooses_by_the_log_loss_on_the_validation_images(spread: float) -> None:
    train, held = clusters(60, 16, 3, spread), clusters(300, 16, 3, spread, seed=1)
    losses = [validation_loss(penalty, train, held, 3) for penalty in 16 * module._GRID]
    assert choose(*train, validation=held) == 16 * module._GRID[np.argmin(losses)]


def test_the_more_noise_the_larger_the_penalty() -> None:
    chosen = [choose(*clusters(40, 16, 3, spread)) for spread in (1, 10, 100)]
    assert chosen == sorted(chosen)
    assert chosen[0] < chosen[1] < chosen[2]


def patients(number: int, images: int, width: int) -> tuple[Tensor, Tensor, list[str]]:
    """Patients who tell little of their class, with images that tell their patient."""
    generator = torch.Generator().manual_seed(0)
    patient = torch.arange(number).repeat_interleave(images)
    own = torch.randn(number, width, generator=generator)
    noise = torch.randn(number * images, width, generator=generator)
    labels = torch.arange(number) % 2
    own[:, 0] += labels
    return own[patient] + 0.05 * noise, labels[patient], [f"patient {place}" for place in patient.tolist()]


def test_images_of_a_group_are_held_out_together() -> None:
    features, labels, groups = patients(24, 6, 64)
    assert choose(features, labels, groups) >= 100 * choose(features, labels)
    assert choose(features, labels, [str(place) for place in range(len(labels))]) == choose(features, labels)


def test_folds_keep_groups_whole_and_hold_each_image_out_once() -> None:
    features, labels, groups = patients(15, 3, 4)
    first, again, other = ([fold[2] for fold in module._folds(features, labels, groups, seed)] for seed in (0, 0, 1))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not all(torch.equal(*pair) for pair in zip(first, other, strict=True))
    held_out = []
    for train, _, held, _ in module._folds(features, labels, groups, seed=0):
        rows = [[int((features == row).all(dim=1).nonzero()) for row in part] for part in (train, held)]
        assert not {groups[row] for row in rows[0]} & {groups[row] for row in rows[1]}
        held_out += rows[1]
    assert sorted(held_out) == list(range(45))


@pytest.mark.parametrize(
    ("labels", "groups", "folds"),
    [
        ([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1], None, 5),
        ([0, 0, 0, 1, 1, 1], None, 3),
        ([0, 0, 0, 0, 0, 1], None, 0),  # class 1 can be trained on or held out, not both
        ([0, 0, 0, 1, 1, 1, 2], None, 3),
        ([0, 1, 2], None, 0),
        ([0, 0, 0, 0, 1, 1, 1, 1], list("aabbccdd"), 2),
        ([0, 0, 0, 0, 1, 1, 1, 1], list("aaaabbbb"), 0),
    ],
)
def test_as_many_folds_as_there_are_groups_for(labels: list[int], groups: list[str] | None, folds: int) -> None:
    assert len(list(module._folds(torch.zeros(len(labels), 2), torch.tensor(labels), groups, 0))) == folds


@pytest.mark.parametrize("groups", [None, ["a", "b", "c"]])
def test_one_image_a_class_gets_the_fixed_penalty(groups: list[str] | None) -> None:
    features, labels = torch.rand(3, 16), torch.arange(3)
    assert choose(features, labels, groups) == 16 * module._DEFAULT
    assert choose(features, labels, validation=clusters(50, 16, 3, seed=1)) != 16 * module._DEFAULT


@pytest.mark.filterwarnings("error")
def test_validation_images_of_a_class_without_labels_do_not_count() -> None:
    train, held = clusters(60, 16, 3), clusters(100, 16, 3, seed=1)
    more = torch.cat([held[0], 100 * held[0][:20]]), torch.cat([held[1], torch.full((20,), 3)])
    assert choose(*train, validation=more) == choose(*train, validation=held)
    assert choose(*train, validation=(held[0], held[1] + 3)) == 16 * module._DEFAULT


def test_the_log_loss_is_weighted_as_the_training_is() -> None:
    train, held = clusters(200, 16, 2, 10), clusters(300, 16, 2, 10, seed=1)
    kept = torch.cat([(train[1] == 0).nonzero().flatten(), (train[1] == 1).nonzero().flatten()[:4]])
    features, labels = train[0][kept], train[1][kept]
    balanced, plain = [], []
    for penalty in 16 * module._GRID:
        logs = fit_probe(features, labels, 2, penalty=penalty, class_weights="balanced").probabilities(held[0]).log()
        balanced.append(float(F.nll_loss(logs, held[1], 1 / labels.bincount().double())))
        plain.append(float(F.nll_loss(logs, held[1])))
    assert np.argmin(balanced) != np.argmin(plain)
    chosen = choose(features, labels, class_weights="balanced", validation=held)
    assert chosen == 16 * module._GRID[np.argmin(balanced)]


@pytest.mark.filterwarnings("error")
def test_rare_classes_and_any_seed_are_fine() -> None:
    features, labels = clusters(40, 16, 3)
    labels[:2] = torch.tensor([7, 8])
    assert {choose(features, labels, seed=seed) for seed in range(3)} <= set(16 * module._GRID)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_refuses_features_that_are_not_finite(value: float) -> None:
    features, labels = clusters(60, 8, 3)
    spoilt = features.clone()
    spoilt[3, 2] = value
    with pytest.raises(UserError, match="1 of 60 images"):
        fit_probe(spoilt, labels, 3, penalty=1, class_weights="none")
    with pytest.raises(UserError, match="1 of 60 images"):
        choose(spoilt, labels)
    with pytest.raises(UserError, match="1 of 60 images"):
        choose(features, labels, validation=(spoilt, labels))


def test_refuses_a_single_class() -> None:
    with pytest.raises(UserError, match=r"one class.*two"):
        fit_probe(torch.rand(5, 3), torch.full((5,), 2), 4, penalty=1, class_weights="none")
    with pytest.raises(UserError, match=r"one class.*two"):
        choose(torch.rand(5, 3), torch.full((5,), 2))


@pytest.mark.parametrize("labels", [[0, 1, 3], [0, 1, -1], [0, 1]])
def test_refuses_labels_that_do_not_fit(labels: list[int]) -> None:
    with pytest.raises(ValueError, match="label"):
        fit_probe(torch.rand(3, 4), torch.tensor(labels), 3, penalty=1, class_weights="none")


@pytest.mark.parametrize("penalty", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_a_penalty_that_is_none(penalty: float) -> None:
    with pytest.raises(UserError, match="--penalty"):
        ProbeConfig(penalty=penalty)
    with pytest.raises(ValueError, match="penalty"):
        fit_probe(*clusters(10, 4, 2), 2, penalty=penalty, class_weights="none")
