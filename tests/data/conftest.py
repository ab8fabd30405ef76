"""Small real image files, made here."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

Encode = Callable[..., bytes]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def encode() -> Encode:
    """Encode an array, or a Pillow image, as a file of `format`."""

    def encode_image(image: Any, format: str = "PNG", **options: Any) -> bytes:
        stream = io.BytesIO()
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, format, **options)
        return stream.getvalue()

    return encode_image


@pytest.fixture
def random_image() -> Callable[..., np.ndarray]:
    """Random pixels that depend on `seed` alone."""

    def pixels(seed: int, height: int = 12, width: int = 10, channels: int = 3) -> np.ndarray:
        shape = (height, width) if channels == 1 else (height, width, channels)
        return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)

    return pixels


@pytest.fixture
def write_images(encode: Encode, random_image: Callable[..., np.ndarray]) -> Callable[..., None]:
    """Write a different random PNG to each of `paths` below `root`."""

    def write(root: Path, paths: list[str], **shape: int) -> None:
        for seed, path in enumerate(paths):
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(random_image(seed, **shape)))

    return write
