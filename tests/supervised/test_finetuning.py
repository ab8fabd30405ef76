"""Fine-tuning: what is trained, what is kept, and where it starts. A tiny network on digits."""

import copy
import os
import signal

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional

from fewlabel.backbones.backbone import Backbone
from fewlabel.backbones.encoder import as_encoder
from fewlabel.backbones.scale import Scale
from fewlabel.data.config import SourceConfig
from fewlabel.data.loading import load
from fewlabel.data.presets import ViewPreset
from fewlabel.data.store import ImageBatch, open_store
from fewlabel.errors import UserError
from fewlabel.supervised.classifier import Classifier
from fewlabel.supervised.config import FinetuneConfig
from fewlabel.supervised.finetune_plan import settle_finetuning
from fewlabel.supervised.finetuning import FineTuning, fine_tune
from fewlabel.supervised.linear_probe import choose_penalty, fit_probe, targets_of
from fewlabel.training.checkpoint import latest_checkpoint
from fewlabel.training.config import TrainingConfig
from fewlabel.training.features import extract_features
from fewlabel.training.loop import Interrupted
from fewlabel.training.processes import make_accelerator

NAMES = [str(digit) for digit in range(10)]


class Tiny(nn.Sequential):
    head_hidden_size = 12

    def __init__(self, channels):
        super().__init__(
            nn.Conv2d(channels, 12, 3, stride=2), nn.BatchNorm2d(12), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )


def encoder(*, trained=True, channels=1):
    torch.manual_seed(0)
    backbone = Backbone(
        Tiny(channels),
        name="tiny",
        options={},
        image_size=8,
        in_chans=channels,
        scale=Scale(),
        timm_call=None,
        convolutional=True,
    )
    with torch.no_grad():
        backbone(torch.randn(64, channels, 8, 8))
    statistics = {"mean": (0.3,) * channels, "std": (0.4,) * channels}
    return as_encoder(backbone, **statistics, bits=8, provenance={}, trained=trained)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    source = load(SourceConfig())
    options = {"cache_dir": cache, "workers": 1, "max_bad_share": 0.0}
    return {split: open_store(source, split, 8, **options) for split in ("train", "val")}


class Log:
    wandb_id = "abc"

    def __init__(self, directory, stop_at=None):
        self.directory, self.lines, self.stop_at = directory, {}, stop_at

    def log(self, step, metrics):
        self.lines[step] = metrics
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)


def labelled_of(store, classes, each):
    found = [(store.labels == label).nonzero().flatten()[:each] for label in classes]
    return torch.cat(found).sort().values


def tuned(stores, log, labelled=None, *, start=None, validation=60, **options):
    config = {"max_steps": 12, "checkpoint_steps": 5, "evaluate_steps": 3, **options.pop("config", {})}
    arguments = {
        "classes": NAMES,
        "multi_label": False,
        "validation": (stores["val"], torch.arange(validation)) if validation else None,
        "config": FinetuneConfig(**config),
        "preset": "digits",
        "accelerator": make_accelerator(TrainingConfig(), "fp32"),
        "log": log,
        "seed": 3,
        **options,
    }
    labelled = labelled_of(stores["train"], range(10), 6) if labelled is None else labelled
    return fine_tune(start or encoder(), stores["train"], labelled, **arguments)


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left.state_dict().values(), right.state_dict().values(), strict=True))


def test_it_learns_and_leaves_its_start_as_it_was(tmp_path, stores):
    start = encoder()
    before = copy.deepcopy(start)
    log = Log(tmp_path)
    config = {"max_steps": 60, "lr": 0.05, "head": "zero"}
    classifier = tuned(stores, log, labelled_of(stores["train"], range(10), 30), start=start, config=config)
    assert same(start, before)
    assert not classifier.training
    found = extract_features(classifier, stores["val"], torch.arange(180), make_accelerator(TrainingConfig(), "fp32"))
    assert (found.argmax(dim=1) == stores["val"].labels).float().mean() > 0.3
    assert log.lines[60]["validation_loss"] < log.lines[3]["validation_loss"] < np.log(10)


@pytest.mark.parametrize("trained", [True, False])
def test_two_labelled_images_are_enough(tmp_path, stores, trained):
    pair = labelled_of(stores["train"], (0, 1), 1)
    config = {"max_steps": 40, "lr": 0.02}
    classifier = tuned(stores, Log(tmp_path), pair, start=encoder(trained=trained), validation=0, config=config)
    said = classifier.probabilities(stores["train"].batch(pair).pixels)
    assert said.argmax(dim=1).tolist() == stores["train"].labels[pair].tolist()


def test_without_training_the_classifier_is_the_probe_of_views(tmp_path, stores):
    """Views that change nothing are as many copies of each image, all in one fold."""
    labelled = labelled_of(stores["train"], range(10), 6)
    start, store = encoder(), stores["train"]
    still = ViewPreset("still", "", 1, horizontal_flip=0, colour_probability=0, greyscale=0, blur=0, padding="border")
    # In so small a batch the batch norm rests too.
    lone = {"max_steps": 1, "lr": 0.0, "batch_size": 8}
    classifier = tuned(stores, Log(tmp_path), labelled, start=start, config=lone, preset=still)
    with torch.no_grad():
        features = start(store.batch(labelled).pixels).repeat(8, 1)
    labels, groups = store.labels[labelled].repeat(8), [store.ids[place] for place in labelled] * 8
    penalty = choose_penalty(features, labels, groups, class_weights="none", validation=None, seed=3).value
    expected = fit_probe(features, labels, 10, penalty=penalty, class_weights="none").probabilities(features[:60])
    with torch.no_grad():
        found = classifier.probabilities(store.batch(labelled).pixels)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)


def test_a_zero_head_starts_with_how_frequent_the_classes_are(tmp_path, stores):
    labelled = torch.cat([labelled_of(stores["train"], (4,), 9), labelled_of(stores["train"], (7,), 3)])
    config = {"max_steps": 1, "lr": 0.0, "head": "zero"}
    classifier = tuned(stores, Log(tmp_path), labelled, validation=0, config=config)
    said = classifier.probabilities(torch.rand(2, 1, 8, 8))
    expected = torch.zeros(2, 10)
    expected[:, 4], expected[:, 7] = 0.75, 0.25
    torch.testing.assert_close(said, expected, atol=1e-5, rtol=0)


def test_a_class_without_labels_stays_impossible(tmp_path, stores):
    classifier = tuned(stores, Log(tmp_path), labelled_of(stores["train"], (2, 5, 8), 8))
    said = classifier.probabilities(stores["val"].batch(torch.arange(50)).pixels)
    assert said[:, [0, 1, 3, 4, 6, 7, 9]].eq(0).all()
    assert said[:, [2, 5, 8]].gt(0).all()


def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, stores):
    config = {"head": "zero", "lr": 0.01}
    whole = Log(tmp_path / "whole")
    expected = tuned(stores, whole, config=config)
    parts = Log(tmp_path / "parts", stop_at=7)
    with pytest.raises(Interrupted):
        tuned(stores, parts, config=config)
    checkpoint = latest_checkpoint(tmp_path / "parts" / "checkpoints")
    assert checkpoint.step == 7
    parts.stop_at = None
    resumed = tuned(stores, parts, config=config, checkpoint=checkpoint)
    assert same(expected, resumed)
    for name in ("loss", "validation_loss"):
        assert [line.get(name) for line in parts.lines.values()] == [line.get(name) for line in whole.lines.values()]


def test_patience_ends_training_and_the_best_weights_are_kept(tmp_path, stores):
    """A rate that spoils the weights: the start, which is the probe, stays the best."""
    log = Log(tmp_path)
    config = {"max_steps": 60, "lr": 5.0, "patience": 1, "warmup_epochs": 0, "ema_decay": 0.0, "clip_grad_norm": 0.0}
    spoilt = tuned(stores, log, config=config)
    assert max(log.lines) < 60
    start = tuned(stores, Log(tmp_path / "start"), config={"max_steps": 1, "lr": 0.0})
    assert same(spoilt, start)


def test_figures_on_the_way_are_of_the_average_as_it_is_and_not_of_the_best(tmp_path, stores):
    """A rate that spoils the weights: they move on, while the best are still those of the start."""
    log = Log(tmp_path)
    config = {"max_steps": 6, "lr": 5.0, "warmup_epochs": 0, "ema_decay": 0.0, "clip_grad_norm": 0.0}
    best = tuned(stores, log, config=config, measure=lambda average: {"weight": float(average.head.weight[0, 0])})
    start = float(best.head.weight[0, 0])
    assert all(abs(log.lines[step]["weight"] - start) > 1 for step in (3, 6))


def test_patience_is_with_training_and_not_with_how_good_the_start_is():
    task = task_of(torch.arange(10))
    stale = []
    for step, loss in enumerate((0.4, 0.9, 0.7, 0.8, 0.6, 0.65, 0.3)):
        task.judge(loss, step)
        stale.append((float(task.best_loss), int(task.stale)))
    losses, counts = zip(*stale, strict=True)
    assert losses == pytest.approx((0.4,) * 6 + (0.3,))
    assert counts == (0, 0, 0, 1, 0, 1, 0)


@pytest.mark.parametrize(
    ("trained", "batch", "frozen"), [(True, 8, True), (True, 16, False), (False, 8, False)], ids=str
)
def test_batch_norms_of_a_trained_encoder_rest_in_small_batches(tmp_path, stores, trained, batch, frozen):
    start = encoder(trained=trained)
    config = {"batch_size": batch, "ema_decay": 0.0, "max_steps": 3, "lr": 0.01}
    classifier = tuned(stores, Log(tmp_path), start=start, validation=0, config=config)
    before, after = start.backbone.body[1], classifier.featurizer.backbone.body[1]
    assert torch.equal(before.running_mean, after.running_mean) == frozen
    assert not torch.equal(before.weight, after.weight)


def test_grey_images_train_an_encoder_of_colour(tmp_path, stores):
    classifier = tuned(stores, Log(tmp_path), start=encoder(channels=3))
    assert classifier.probabilities(torch.rand(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("labelled", "config", "message"),
    [
        (torch.arange(5), {"batch_size": 6}, "--batch-size 6 is more than the 5"),
        (torch.tensor([0, 10, 20]), {}, "all have the same label"),
    ],
)
def test_what_can_not_be_trained_is_refused(tmp_path, stores, labelled, config, message):
    ordered = {**stores, "train": copy.copy(stores["train"])}
    ordered["train"].labels = torch.arange(len(stores["train"])) % 10
    with pytest.raises(UserError, match=message):
        tuned(ordered, Log(tmp_path), labelled, config=config)


class Whole:
    """Every view is the image itself."""

    def one(self, pixels, aspect, generator):
        return pixels.float() / 255


def task_of(labels, *, multi_label=False, labelled=None, **config):
    start = encoder()
    names = NAMES[: labels.shape[1]] if multi_label else NAMES
    torch.manual_seed(1)
    classifier = Classifier(start, nn.Linear(12, len(names)), names, multi_label=multi_label, bits=8)
    known = labels if labelled is None else labels[labelled]
    settled = FinetuneConfig(**config)
    targets = targets_of(known, settled.class_weights)
    return FineTuning(classifier, targets, labels, Whole(), settled, freeze_batch_norm=True)


def batch_of(places):
    pixels = torch.randint(0, 256, (len(places), 1, 8, 8), generator=torch.Generator().manual_seed(0))
    return ImageBatch(pixels.to(torch.uint8), torch.ones(len(places)), places)


@pytest.mark.parametrize("weighted", ["none", "balanced"])
def test_the_loss_is_cross_entropy_with_smoothing_over_the_classes_with_labels(weighted):
    labels = torch.tensor([3, 3, 3, 6, 8, 8, 1])
    labelled = torch.arange(6)
    task = task_of(labels, labelled=labelled, label_smoothing=0.2, class_weights=weighted)
    batch = batch_of(torch.tensor([0, 3, 4, 5]))
    logits = task.classifier.logits(batch.pixels)[:, [3, 6, 8]]
    targets = torch.tensor([0, 1, 2, 2])
    losses = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=0.2)
    weights = compute_class_weight("balanced", classes=np.array([3, 6, 8]), y=labels[:6].numpy())
    chosen = torch.tensor(weights)[targets] if weighted == "balanced" else torch.ones(4)
    found = task(batch, torch.Generator())["loss"]
    assert found.item() == pytest.approx((losses * chosen).mean().item(), rel=1e-5)


def test_the_loss_of_labels_is_binary_and_leaves_out_what_is_unknown_or_constant():
    labels = torch.tensor([[1, 0, 1], [0, -1, 1], [1, 1, 1], [-1, 0, 1]])
    task = task_of(labels, multi_label=True, label_smoothing=0.1)
    logits = task.classifier.logits(batch_of(torch.arange(4)).pixels)
    total = 0.0
    for image in range(4):
        for label in range(2):
            if labels[image, label] >= 0:
                wanted = 0.95 if labels[image, label] == 1 else 0.05
                said = torch.sigmoid(logits[image, label]).item()
                total -= wanted * np.log(said) + (1 - wanted) * np.log(1 - said)
    assert task(batch_of(torch.arange(4)), torch.Generator())["loss"].item() == pytest.approx(total / 8, rel=1e-5)


def test_several_labels_an_image(tmp_path, stores):
    several = {split: copy.copy(store) for split, store in stores.items()}
    for store in several.values():
        store.labels = torch.stack([store.labels % 2, (store.labels > 4).long(), torch.ones_like(store.labels)], dim=1)
    labelled = torch.arange(600)
    config = {"max_steps": 60, "lr": 0.02}
    options = {"classes": ["odd", "large", "always"], "multi_label": True, "config": config}
    classifier = tuned(several, Log(tmp_path), labelled, **options)
    said = classifier.probabilities(several["val"].batch(torch.arange(180)).pixels)
    assert ((said > 0.5) == several["val"].labels).float().mean(dim=0).min() > 0.6
    assert said[:, 2].eq(1).all()


def test_the_average_follows_its_formula_in_weights_and_statistics():
    task = task_of(torch.arange(10), ema_decay=0.3)
    expected = {name: value.clone() for name, value in task.classifier.state_dict().items()}
    generator = torch.Generator().manual_seed(2)
    for step in range(1, 6):
        with torch.no_grad():
            for value in task.classifier.state_dict().values():
                if value.is_floating_point():
                    value.add_(torch.randn(value.shape, generator=generator))
                else:
                    value.fill_(step)
        task.after_step(step)
        decay = min(0.3, (1 + step) / (10 + step))
        for name, value in task.classifier.state_dict().items():
            mixed = decay * expected[name] + (1 - decay) * value if value.is_floating_point() else value.clone()
            expected[name] = mixed
    assert 2 / 11 < 0.3 < 6 / 15
    for name, value in task.average.state_dict().items():
        torch.testing.assert_close(value, expected[name])


def test_the_validation_loss_is_that_of_training():
    labels = torch.arange(40) % 3
    task = task_of(labels)
    logits = torch.randn(40, len(task.classifier.class_names), generator=torch.Generator().manual_seed(0))
    smoothing = FinetuneConfig().label_smoothing
    expected = functional.cross_entropy(logits[:, :3], labels, label_smoothing=smoothing)
    assert task.loss_of(logits, labels) == pytest.approx(float(expected), rel=1e-5)
    # As sure as can be is worse than as sure as the smoothed labels are.
    sure = torch.full_like(logits, -20.0).scatter_(1, labels[:, None], 20.0)
    smoothed = torch.log(torch.full_like(logits, smoothing / 3).scatter_(1, labels[:, None], 1 - smoothing * 2 / 3))
    assert task.loss_of(smoothed, labels) < task.loss_of(sure, labels)


def test_the_best_is_a_copy_and_not_a_name():
    task = task_of(torch.arange(10))
    assert task.result() is task.average
    task.judge(1.0, step=0)
    kept = copy.deepcopy(task.average)
    with torch.no_grad():
        for value in task.average.parameters():
            value.zero_()
    task.judge(2.0, step=1)
    assert same(task.result(), kept)
    task.judge(0.5, step=2)
    assert same(task.result(), task.average)


@pytest.mark.parametrize(
    ("labelled", "processes", "batch", "epochs"),
    [
        *((2, 1, 2, 100), (3, 1, 2, 100), (20, 1, 16, 100), (126, 1, 16, 43), (500, 1, 64, 43), (6000, 1, 64, 10)),
        *((3, 2, 2, 100), (7, 3, 3, 100)),
    ],
)
def test_few_images_get_small_batches_and_about_as_many_steps(labelled, processes, batch, epochs):
    options = {"trained": True, "convolutional": True, "processes": processes}
    config, plan = settle_finetuning(FinetuneConfig(), labelled, **options)
    assert (config.batch_size, config.epochs) == (batch, epochs)
    assert plan.total_steps == epochs * (labelled // batch)
    assert (config.head, config.layer_decay) == ("probe", 0.85)
    assert settle_finetuning(config, labelled, **options) == (config, plan)


def test_too_few_images_for_the_processes_are_refused():
    with pytest.raises(UserError, match="--processes 2"):
        settle_finetuning(FinetuneConfig(), 2, trained=True, convolutional=True, processes=3)


@pytest.mark.parametrize(
    "option",
    [{"layer_decay": 0}, {"layer_decay": 1.5}, {"label_smoothing": 1}, {"ema_decay": 1}, {"patience": 0}, {"lr": -1}],
    ids=str,
)
def test_values_out_of_range_are_named(option):
    (name,) = option
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} is"):
        FinetuneConfig(**option)


def _process(rank, folder, stores):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    log = Log(folder / str(rank))
    classifier = tuned(stores, log, config={"batch_size": 16, "max_steps": 6, "lr": 0.01, "head": "zero"})
    losses = [line["validation_loss"] for line in log.lines.values() if "validation_loss" in line]
    counted = classifier.featurizer.backbone.body[1].num_batches_tracked
    torch.save((losses, classifier.state_dict(), counted), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_judge_and_keep_the_same(tmp_path, stores, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29611")
    mp.spawn(_process, args=(tmp_path, stores), nprocs=2)
    (losses, weights, counted), (other_losses, other_weights, _) = (torch.load(tmp_path / f"{n}.pt") for n in (0, 1))
    assert len(losses) == 2
    assert losses == other_losses
    assert counted > 1
    assert all(torch.equal(value, other_weights[name]) for name, value in weights.items())
