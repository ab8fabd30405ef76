"""The classifier directory: what goes in comes out, and nothing else gets in."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import fewlabel
from fewlabel.backbones.featurizer import Featurizer
from fewlabel.backbones.registry import create
from fewlabel.errors import UserError
from fewlabel.supervised.classifier import Classifier, save_classifier

NAMES = ["benign", "`malign`", "no\nidea"]


def made(*, multi_label=False, names=NAMES):
    torch.manual_seed(0)
    featurizer = Featurizer(create("timm/test_resnet", image_size=32, in_chans=1), (0.4,), (0.3,))
    return Classifier(
        featurizer, nn.Linear(featurizer.num_features, len(names)), names, multi_label=multi_label, bits=8
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved") / "classifier"
    provenance = {"run": "finetune-1", "source": {"fingerprint": "abc"}, "metrics": {"accuracy": 0.75}}
    return save_classifier(directory, made(), provenance=provenance)


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copied")


def rewrite(directory, **changes):
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_same_probabilities_come_back(tmp_path, multi_label):
    classifier = made(multi_label=multi_label).eval()
    directory = save_classifier(tmp_path / "new" / "classifier", classifier, provenance={})
    loaded = fewlabel.load_classifier(str(directory))
    images = torch.randint(0, 256, (4, 1, 20, 24), dtype=torch.uint8)
    with torch.no_grad():
        logits, said = loaded.logits(images), loaded.probabilities(images)
        assert torch.equal(said, classifier.probabilities(images))
        assert torch.equal(loaded(images), said)
    assert torch.equal(said, logits.sigmoid() if multi_label else logits.softmax(dim=1))
    assert (loaded.class_names, loaded.multi_label, loaded.bits, loaded.training) == (NAMES, multi_label, 8, False)


def test_its_encoder_is_an_encoder(saved):
    encoder, classifier = fewlabel.load_encoder(saved / "encoder"), fewlabel.load_classifier(saved)
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        logits = classifier.head(encoder(images))
        torch.testing.assert_close(logits.softmax(dim=1), classifier.probabilities(images))
    card = (saved / "encoder" / "README.md").read_text()
    assert "trained with labels of 3 classes" in card
    assert "without labels" not in card


def test_the_card_names_classes_figures_and_where_it_comes_from(saved):
    card = (saved / "README.md").read_text()
    for part in (
        "0. `benign`",
        "1. `'malign'`",
        "2. `no idea`",
        "finetune-1",
        "| accuracy | 0.75 |",
        "load_classifier",
    ):
        assert part in card
    assert fewlabel.load_classifier(saved).provenance["source"] == {"fingerprint": "abc"}


def test_a_classifier_is_replaced_and_anything_else_refused(copied, tmp_path):
    before = fewlabel.load_classifier(copied).hash
    save_classifier(copied, made(), provenance={"run": "other"})
    assert fewlabel.load_classifier(copied).hash != before
    assert not list(tmp_path.glob(".*"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"photo")
    with pytest.raises(UserError, match="nothing was written"):
        save_classifier(tmp_path / "photos", made(), provenance={})
    with pytest.raises(UserError, match="names no classes"):
        save_classifier(copied / "encoder", made(), provenance={})
    assert [file.name for file in (tmp_path / "photos").iterdir()] == ["a.jpg"]


def test_a_failed_write_leaves_the_old_one(copied):
    before = fewlabel.load_classifier(copied).hash
    with pytest.raises(ValueError, match="JSON"):
        save_classifier(copied, made(), provenance={"loss": float("nan")})
    assert fewlabel.load_classifier(copied).hash == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ["one"]}, "2 or more different names"),
        ({"class_names": ["same", "same", "other"]}, "different names"),
        ({"class_names": ["a", 2, "c"]}, "different names"),
        ({"class_names": ["a", "b"]}, "head of finite numbers"),
        ({"multi_label": 1}, "multi_label is 1"),
        ({"format": 2}, "install the version"),
        ({"format": "1"}, "states no format"),
        ({"provenance": []}, "provenance"),
        ({"encoder_hash": "0" * 64}, "Copy the whole directory"),
    ],
    ids=str,
)
def test_what_the_configuration_can_not_say(copied, changes, message):
    rewrite(copied, **changes)
    with pytest.raises(UserError, match=message):
        fewlabel.load_classifier(copied)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "incomplete"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "damaged"),
        (lambda path: save_file({"weight": load_file(path)["weight"]}, path), "finite numbers"),
        (lambda path: save_file({n: v * float("nan") for n, v in load_file(path).items()}, path), "finite numbers"),
    ],
    ids=["missing", "cut", "without bias", "not finite"],
)
def test_a_head_that_is_none(copied, spoil, message):
    spoil(copied / "head.safetensors")
    with pytest.raises(UserError, match=message):
        fewlabel.load_classifier(copied)


def test_the_encoder_of_another_classifier_is_refused(copied, tmp_path):
    other = made()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    save_classifier(tmp_path / "other", other, provenance={})
    shutil.rmtree(copied / "encoder")
    shutil.copytree(tmp_path / "other" / "encoder", copied / "encoder")
    with pytest.raises(UserError, match="not the encoder"):
        fewlabel.load_classifier(copied)


def test_directories_that_are_no_classifier(copied, tmp_path):
    with pytest.raises(UserError, match="no classifier directory"):
        fewlabel.load_classifier(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no config\.json"):
        fewlabel.load_classifier(tmp_path)
    with pytest.raises(UserError, match="finetune --encoder"):
        fewlabel.load_classifier(copied / "encoder")
