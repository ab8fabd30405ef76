"""What a candidate is worth: trained as the commands train, judged alike at a step and at the end, stopped, resumed."""

import json
import os
import signal
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file

from fewlabel.__main__ import main
from fewlabel.backbones.encoder import load_encoder
from fewlabel.data.config import SourceConfig, ViewsConfig
from fewlabel.data.loading import load
from fewlabel.errors import Diverged, UserError
from fewlabel.search import images as images_module
from fewlabel.search.candidate import Candidate
from fewlabel.search.config import ProxyConfig
from fewlabel.search.cost import Model
from fewlabel.search.objective import Objective
from fewlabel.ssl.agreement import agreement_on
from fewlabel.ssl.config import SimCLRConfig
from fewlabel.supervised.bootstrap import difference, figures_with_intervals, replicates
from fewlabel.supervised.classifier import load_classifier
from fewlabel.supervised.linear_probe import choose_penalty, fit_probe
from fewlabel.supervised.metrics import Predictions
from fewlabel.supervised.subsets import fractions_of
from fewlabel.tracking.run import NullRun, Run
from fewlabel.training.checkpoint import latest_checkpoint
from fewlabel.training.config import TrainingConfig
from fewlabel.training.loop import Interrupted
from fewlabel.training.processes import make_accelerator

MODEL = Model("timm/test_efficientnet", image_size=16, in_chans=1)
TRAINING = TrainingConfig(max_steps=24, batch_size=16, evaluate_steps=4, checkpoint_steps=2, precision="fp32", seed=3)
LABELS = 0.06
BASE = Candidate()


@pytest.fixture(scope="module", autouse=True)
def one_thread(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def digits():
    return load(SourceConfig())


def made(kind, source, **changes):
    arguments = {
        "model": MODEL,
        "source_config": SourceConfig(workers=1),
        "views": ViewsConfig(),
        "simclr": SimCLRConfig(),
        "training": TRAINING,
        "proxy": ProxyConfig(proxy_images=32, proxy_epochs=4),
        "labels": LABELS,
        "accelerator": make_accelerator(TrainingConfig(), "fp32"),
        **changes,
    }
    return Objective(kind, source, arguments.pop("model"), **arguments)


def trained(objective, directory, candidate=BASE, *, report=None, full=False, resume=False):
    """The outcome, and the values that were reported."""
    record = Run.resume(directory, command="trial") if resume else Run.create("trial", {}, out=directory)
    checkpoint = latest_checkpoint(directory / "checkpoints") if resume else None
    record.rewind(checkpoint.step if checkpoint else -1)
    values = {}

    def told(step, value):
        assert record.history()[-1]["step"] == step
        values[step] = value
        if report is not None:
            report(step, value)

    with record:
        outcome = objective.train(candidate, record, told, full=full, checkpoint=checkpoint)
        record.finish(outcome.figures)
    return outcome, values


def timeless(outcome):
    return {name: value for name, value in asdict(outcome).items() if name != "seconds"}


def read(rows):
    """(N, 1, 8, 8) pixels and (N,) labels of some rows of the source, past the stores of the search."""
    return torch.from_numpy(np.stack([np.asarray(image) for image in rows["image"]]))[:, None], np.array(rows["label"])


def probed(encoder, digits, split):
    """What a probe on the labelled share says of a split, put together from the parts that it consists of."""
    train = digits["train"]
    drawn = fractions_of(train["id"], torch.tensor(train["label"]), None, [LABELS], 1, 3)[0].indices
    known, few = read(train.select(drawn.tolist()))
    asked, labels = read(digits[split])
    with torch.no_grad():
        features, others = encoder(known), encoder(asked)
    few = torch.from_numpy(few)
    penalty = choose_penalty(features, few, None, class_weights="none", validation=None, seed=3).value
    fitted = fit_probe(features, few, 10, penalty=penalty, class_weights="none")
    return Predictions(fitted.probabilities(others).numpy(), labels, threshold=None, ordinal=False)


@pytest.fixture(scope="module")
def probe(digits):
    return made("probe", digits)


@pytest.fixture(scope="module")
def at_full_length(probe, tmp_path_factory):
    """The base and a finer network."""
    folder = tmp_path_factory.mktemp("full")
    candidates = {"base": BASE, "finer": Candidate(resolution=1.5)}
    return {name: (folder / name, *trained(probe, folder / name, one, full=True)) for name, one in candidates.items()}


def test_the_full_length_is_that_of_pretrain(at_full_length, tmp_path):
    flags = [f"--{name.replace('_', '-')}={getattr(TRAINING, name)}" for name in ("max_steps", "batch_size", "seed")]
    backbone = ["--backbone", MODEL.name, "--image-size", "16", "--precision", "fp32", "--scale-resolution", "1.5"]
    assert main(["pretrain", *backbone, *flags, "--evaluate-steps", "24", "--out", str(tmp_path / "run")]) == 0
    expected = load_file(tmp_path / "run/encoder/model.safetensors")
    found = load_file(at_full_length["finer"][0] / "encoder/model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_values_come_at_every_evaluation_and_the_last_is_the_outcome(probe, at_full_length):
    directory, outcome, values = at_full_length["base"]
    plan = probe.plan(full=True)
    assert list(values) == list(range(4, 25, 4))
    assert (plan.evaluate_steps, plan.total_steps) == (4, 24)
    assert values[24] == outcome.value
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert {line["step"]: line["objective"] for line in lines if "objective" in line} == values
    assert all({"uniformity", "loss"} <= line.keys() for line in lines if "objective" in line)
    assert len(set(values.values())) > 2
    assert probe.figure == "accuracy"


def test_the_value_is_the_accuracy_of_the_saved_encoders_probe(at_full_length, digits):
    directory, outcome, _ = at_full_length["base"]
    encoder = load_encoder(directory / "encoder")
    expected = figures_with_intervals([probed(encoder, digits, "val")], None, seed=3)
    accuracy = expected["accuracy"]
    assert (outcome.value, outcome.low, outcome.high) == pytest.approx((accuracy.mean, accuracy.low, accuracy.high))
    assert outcome.figures["auroc"] == pytest.approx(expected["auroc"].mean)
    assert encoder.config.provenance["metrics"]["validation_accuracy"] == pytest.approx(asdict(accuracy))
    assert 0.2 < outcome.low < outcome.value < outcome.high < 1


def test_of_many_labels_a_fifth_is_held_out_once(digits, tmp_path):
    everything = made("probe", digits, labels=1.0)
    probe = everything._judge.probe
    held = digits["train"].select(probe.labelled[probe.held_out].tolist())
    assert len(probe.held_out) == pytest.approx(len(probe.labelled) / 5, abs=1)
    counts = np.bincount(held["label"], minlength=10) / np.bincount(digits["train"]["label"], minlength=10)
    assert np.allclose(counts, 0.2, atol=0.01)
    few, _ = trained(made("probe", digits), tmp_path / "few")
    many, _ = trained(everything, tmp_path / "many")
    assert many.value > few.value + 0.05


def test_a_trial_trains_on_its_part_of_the_images(probe, digits, tmp_path, monkeypatch):
    seen = []
    batch_at = images_module.ImageStore.batch
    monkeypatch.setattr(
        images_module.ImageStore, "batch", lambda store, places: seen.append(places) or batch_at(store, places)
    )
    part = set(probe._lengths[False].images.tolist())
    assert len(part) == 32
    outcome, values = trained(probe, tmp_path / "trial")
    assert list(values) == [4, 8]
    # Sixteen random ones each step; evaluations read in order, and the statistics take a sample of all.
    batches = [places for places in seen if len(places) == 16 and not torch.equal(places, places.sort().values)]
    assert len(batches) >= 8
    assert all(set(places.tolist()) <= part for places in batches)
    assert not (tmp_path / "trial/encoder").exists()
    assert outcome.seconds > 0


def test_a_stopped_training_goes_on_to_the_same_bits(probe, at_full_length, tmp_path):
    _, expected, values = at_full_length["base"]

    def interrupt(step, value):
        if step == 12:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        trained(probe, tmp_path / "run", report=interrupt, full=True)
    outcome, later = trained(probe, tmp_path / "run", full=True, resume=True)
    assert timeless(outcome) == timeless(expected)
    assert later == {step: value for step, value in values.items() if step > 12}
    weights = [load_file(run / "encoder/model.safetensors") for run in (tmp_path / "run", at_full_length["base"][0])]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_one_that_was_at_its_end_is_judged_again(probe, tmp_path):
    """Killed between the last checkpoint and the outcome."""
    first, _ = trained(probe, tmp_path / "run")
    (tmp_path / "run/result.json").unlink()
    again, values = trained(probe, tmp_path / "run", resume=True)
    assert timeless(again) == timeless(first)
    assert values == {}


class Stop(Exception):
    pass


def test_however_a_training_ends_the_next_is_as_if_it_were_the_first(probe, digits, tmp_path):
    expected, _ = trained(made("probe", digits), tmp_path / "first")

    def stop(step, value):
        raise Stop

    with pytest.raises(Stop):
        trained(probe, tmp_path / "stopped", report=stop)
    assert not list((tmp_path / "stopped/checkpoints").glob("step-00000004*"))
    with pytest.raises(Diverged):
        trained(probe, tmp_path / "diverged", Candidate(lr=1e30))
    with pytest.raises(UserError, match="can't be made deeper"):
        trained(probe, tmp_path / "impossible", Candidate(depth=2))
    found, _ = trained(probe, tmp_path / "next")
    assert timeless(found) == timeless(expected)
    assert not probe.accelerator._models


def test_what_is_searched_beside_the_scale_changes_the_training(probe, tmp_path):
    expected, _ = trained(probe, tmp_path / "base")
    for name, value in (("lr", 1e-4), ("temperature", 0.7), ("weight_decay", 0.9), ("view_strength", 0.1)):
        outcome, _ = trained(probe, tmp_path / name, Candidate(**{name: value}))
        assert outcome.figures["uniformity"] != expected.figures["uniformity"], name


def test_neighbours_are_judged_without_labels_and_by_the_same_views_for_all(digits, tmp_path):
    for number, image in enumerate(digits["train"].select(range(200))["image"]):
        image.save(tmp_path / f"{number:03d}.png")
    config = SourceConfig(data=str(tmp_path), val_share=0.4)
    plain = load(config)
    views = ViewsConfig(strength=0.6)
    training = TrainingConfig(max_steps=6, batch_size=16, precision="fp32")
    objective = made("knn", plain, views=views, training=training, source_config=config)
    weak = Candidate(view_strength=0.0, resolution=1.5)
    outcome, values = trained(objective, tmp_path / "run", weak, full=True)
    assert objective.figure == "agreement"
    assert values[6] == outcome.value
    encoder = load_encoder(tmp_path / "run/encoder")
    judged = objective._judge.views(encoder.image_size)
    assert (judged.strength, judged.blur_radius, judged.image_size) == (0.6, 0, 24)
    val = objective._splits.at("val", 24, 16)
    shares = agreement_on(encoder, judged, val, torch.arange(len(val)), objective.accelerator, seed=0)
    assert outcome.value == pytest.approx(float(shares.mean()))
    error = float(shares.std()) / len(shares) ** 0.5
    assert (outcome.low, outcome.high) == pytest.approx(
        (outcome.value - 2 * error, outcome.value + 2 * error), abs=0.01
    )
    with pytest.raises(UserError, match="no labels"):
        made("probe", plain)


@pytest.fixture(scope="module")
def from_labels(digits, tmp_path_factory):
    objective = made("supervised", digits, training=TrainingConfig(epochs=20, precision="fp32", batch_size=16))
    directory = tmp_path_factory.mktemp("supervised") / "run"
    return objective, directory, *trained(objective, directory, full=True)


def test_learning_from_labels_is_judged_by_the_weights_that_are_kept(from_labels, digits):
    _, directory, outcome, values = from_labels
    assert values[max(values)] == outcome.value > 0.3
    assert len(values) > 3
    classifier = load_classifier(directory / "classifier")
    pixels, labels = read(digits["val"])
    with torch.no_grad():
        said = classifier(pixels).argmax(dim=1).numpy()
    assert outcome.value == pytest.approx((said == labels).mean())


def test_the_test_images_are_looked_at_in_the_last_step_alone(probe, at_full_length, digits):
    assert not [key for key in probe._splits._stores if key[0] == "test"]
    found = probe.judge_on_test(at_full_length["finer"][0], at_full_length["base"][0])
    encoders = [load_encoder(at_full_length[name][0] / "encoder") for name in ("finer", "base")]
    said = [probed(encoder, digits, "test") for encoder in encoders]
    expected = difference(*(replicates([one], None, seed=3)["accuracy"] for one in said))
    assert found.images == len(digits["test"])
    assert asdict(found.difference) == pytest.approx(asdict(expected))
    assert found.winner.mean - found.base.mean == pytest.approx(found.difference.mean)
    assert found.base.low < found.base.mean < found.base.high
    same = probe.judge_on_test(*[at_full_length["base"][0]] * 2)
    assert asdict(same.difference) == {"mean": 0, "low": 0, "high": 0}


def test_classifiers_and_neighbours_are_compared_on_test_too(from_labels, at_full_length, digits):
    objective, directory, *_ = from_labels
    found = objective.judge_on_test(directory, directory)
    assert found.figure == "accuracy"
    assert found.winner.mean > 0.3
    neighbours = made("knn", digits)
    found = neighbours.judge_on_test(at_full_length["finer"][0], at_full_length["base"][0])
    assert found.figure == "agreement"
    assert found.difference.low <= found.winner.mean - found.base.mean <= found.difference.high


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("probe", {"val_share": 0.0}, "--val-share above 0"),
        ("probe", {"val_share": 0.001}, "too few to compare"),
        ("knn", {"val_share": 0.001}, "too few to compare"),
    ],
)
def test_a_source_that_cannot_judge_is_refused_at_once(kind, changes, message):
    config = SourceConfig(**changes)
    with pytest.raises(UserError, match=message):
        made(kind, load(config), source_config=config)


def test_without_test_images_there_is_no_comparison(at_full_length):
    config = SourceConfig(test_share=0.0)
    objective = made("probe", load(config), source_config=config)
    assert objective.judge_on_test(at_full_length["base"][0], at_full_length["base"][0]) is None


def test_a_batch_larger_than_the_trials_images_is_refused_at_once(digits):
    with pytest.raises(UserError, match="--batch-size to 10 or less"):
        made("probe", digits, proxy=ProxyConfig(proxy_images=10))


def _process(rank, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    accelerator = make_accelerator(TrainingConfig(processes=2), "fp32")
    found = {}
    for kind in ("probe", "supervised"):
        objective = made(kind, load(SourceConfig()), training=replace(TRAINING, processes=2), accelerator=accelerator)
        run = folder / kind
        record = Run.create("trial", {}, out=run) if rank == 0 else NullRun(run, {"wandb_id": ""})
        values = {}
        with record:
            outcome = objective.train(BASE, record, values.__setitem__, full=False, checkpoint=None)
        found[kind] = (timeless(outcome), values)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_come_to_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29613")
    mp.spawn(_process, args=(tmp_path,), nprocs=2)
    found, other = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert found == other
    for kind, (outcome, values) in found.items():
        assert values[max(values)] == outcome["value"], kind
        assert len(values) > 1, kind
