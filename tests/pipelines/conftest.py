"""Small real runs and sources; nothing here needs a network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fewlabel.__main__ import main
from fewlabel.backbones.encoder import load_encoder, save_encoder
from fewlabel.backbones.featurizer import Featurizer
from fewlabel.backbones.registry import create
from fewlabel.data.config import SourceConfig
from fewlabel.data.loading import load
from fewlabel.retrieval import Index
from fewlabel.supervised.classifier import Classifier, save_classifier


@pytest.fixture(scope="package")
def tiny():
    """Options of a network that learns in seconds."""
    return ("--backbone", "timm/test_resnet", "--image-size", "32", "--batch-size", "16")


@pytest.fixture(autouse=True, scope="package")
def plain_surroundings(tmp_path_factory):
    """W&B off but where it is the point, own caches, and one thread, so that runs in and out of this process agree."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            patch.delenv(variable, raising=False)
        patch.setenv("WANDB_MODE", "disabled")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        torch.set_num_threads(1)
        yield
    torch.set_num_threads(threads)


def _started(*arguments, env=None, module="fewlabel", **options):
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        env={name: value for name, value in {**os.environ, **(env or {})}.items() if value is not None},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.fixture(scope="package")
def start():
    """Start `fewlabel` (or another module) in a process of its own; None in `env` unsets a variable."""
    return _started


@pytest.fixture(scope="package")
def pretrain(tiny):
    """`fewlabel pretrain` in this process with a tiny network and other `arguments`; its exit status."""
    return lambda *arguments: main(["pretrain", *tiny, *map(str, arguments)])


@pytest.fixture(scope="package")
def write_images():
    """Write `count` different grey PNG files of 16 px into a folder."""

    def write(folder: Path, count: int, first: int = 0) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            pixels = np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:03d}.png")
        return folder

    return write


@pytest.fixture
def refused(capfd):
    """Run a command that must be refused: status 2, one message without a traceback, which is returned."""

    def run(*arguments) -> str:
        assert main([str(argument) for argument in arguments]) == 2
        message = capfd.readouterr().err
        assert "Error: " in message
        assert "Traceback" not in message
        return " ".join(message[message.index("Error: ") :].split())

    return run


@pytest.fixture(scope="package")
def trained(tmp_path_factory, pretrain):
    """A run with an encoder for 8-bit grey images."""
    run = tmp_path_factory.mktemp("probed") / "run"
    assert pretrain("--max-steps", 1, "--out", run) == 0
    return run


@pytest.fixture(scope="package")
def make_classifier():
    """Write a classifier of fresh weights for 8-bit grey images."""

    def make(directory: Path, names=("across", "up"), *, multi_label=False, provenance=None) -> Path:
        torch.manual_seed(0)
        featurizer = Featurizer(create("timm/test_resnet", image_size=32, in_chans=1), (0.4,), (0.3,))
        classifier = Classifier(featurizer, nn.Linear(96, len(names)), names, multi_label=multi_label, bits=8)
        return save_classifier(directory, classifier, provenance=provenance or {})

    return make


@pytest.fixture
def striped(tmp_path):
    """Two classes, stripes up and across; one test image is a copy of a training image."""
    for split, count in (("train", 20), ("val", 6), ("test", 12)):
        for label in ("across", "up"):
            folder = tmp_path / "striped" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                seed = [len(split), len(label), number]
                pixels = np.random.default_rng(seed).integers(0, 128, (16, 16), dtype=np.uint8)
                pixels[:, ::4] += 100
                Image.fromarray(pixels if label == "up" else pixels.T).save(folder / f"{number:02d}.png")
    shutil.copy(tmp_path / "striped/train/up/00.png", tmp_path / "striped/test/up/99.png")
    return tmp_path / "striped"


@pytest.fixture(scope="package")
def collection(tmp_path_factory):
    """Two classes, 8 images each to train and 4 each to test, and four more that resemble one of them.

    Of train/up, 0.png stands in test/up too, as copy.png, and 1.png in train/across as labelled anew.png;
    train/across/near.png is train/across/0.png but for a few pixels; train/up/tiny change.png is 0.png but for one.
    """
    root = tmp_path_factory.mktemp("collection") / "photos [1]"
    for split, count in (("train", 8), ("test", 4)):
        for label in ("across", "up"):
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                generator = np.random.default_rng([len(split), len(label), number])
                pixels = generator.integers(0, 256, (16, 16)) * generator.random((16, 1))
                image = Image.fromarray((pixels if label == "up" else pixels.T).astype(np.uint8))
                image.save(root / split / label / f"{number}.png")
    shutil.copy(root / "train/up/0.png", root / "test/up/copy.png")
    shutil.copy(root / "train/up/1.png", root / "train/across/labelled anew.png")
    for path, other, pixels in (("across/0.png", "across/near.png", 4), ("up/0.png", "up/tiny change.png", 1)):
        with Image.open(root / "train" / path) as image:
            changed = np.array(image)
        changed[3, :pixels] ^= 16
        Image.fromarray(changed).save(root / "train" / other)
    return root


@pytest.fixture(scope="package")
def indexed(collection, tmp_path_factory):
    """An index of the collection, by an encoder of fresh weights for 8-bit grey images."""
    folder = tmp_path_factory.mktemp("indexed")
    torch.manual_seed(0)
    backbone = create("timm/test_resnet", image_size=32, in_chans=1)
    encoder = save_encoder(folder / "encoder", backbone, mean=(0.4,), std=(0.3,), bits=8, provenance={})
    source = load(SourceConfig(data=str(collection), val_share=0.0))
    return Index.build(folder / "index", load_encoder(encoder), source).directory
