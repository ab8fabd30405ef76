"""A tiny encoder, small folders of real image files, and indexes of them."""

from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from fewlabel.backbones.encoder import load_encoder, save_encoder
from fewlabel.backbones.registry import create
from fewlabel.data.config import SourceConfig
from fewlabel.data.loading import load
from fewlabel.retrieval import Index


@pytest.fixture(autouse=True, scope="package")
def own_surroundings(tmp_path_factory):
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("WANDB_MODE", "disabled")
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))
        datasets.disable_progress_bars()
        torch.set_num_threads(1)
        yield
        datasets.enable_progress_bars()
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def make_encoder() -> Callable[..., Path]:
    """Write an encoder of fresh weights from `seed` for grey images."""

    def make(directory: Path, seed: int = 0) -> Path:
        torch.manual_seed(seed)
        backbone = create("timm/test_resnet", image_size=32, in_chans=1)
        return save_encoder(directory, backbone, mean=(0.4,), std=(0.3,), bits=8, provenance={})

    return make


@pytest.fixture(scope="package")
def encoder(make_encoder, tmp_path_factory):
    return load_encoder(make_encoder(tmp_path_factory.mktemp("made") / "encoder"))


@pytest.fixture(scope="package")
def draw() -> Callable[..., Path]:
    """Write a grey PNG of 16 px that depends on `seed` alone."""

    def write(path: Path, seed: int) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(seed)
        pixels = generator.integers(0, 256, (16, 16)) * generator.random((16, 1)) * generator.random()
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        return path

    return write


@pytest.fixture
def photos(tmp_path, draw):
    """Two classes, 6 images each to train and 3 each to test; test/up/9.png is a copy of train/up/0.png."""
    root = tmp_path / "photos"
    for split, count in (("train", 6), ("test", 3)):
        for label, first in (("across", 0), ("up", 50)):
            for number in range(count):
                draw(root / split / label / f"{number}.png", first + number + 100 * (split == "test"))
    draw(root / "test/up/9.png", 50)
    return root


@pytest.fixture(scope="package")
def read() -> Callable[..., object]:
    """Load a source as it is, without splits made of it."""
    return lambda data: load(SourceConfig(data=str(data), val_share=0.0, test_share=0.0), least=1)


@pytest.fixture
def index(tmp_path, photos, encoder, read):
    return Index.build(tmp_path / "index", encoder, read(photos))
