"""Small images, and collections made without files."""

import io

import numpy as np
import torch
from PIL import Image

from fewlabel.cleaning.collection import Collection
from fewlabel.cleaning.measures import MEASURES
from fewlabel.data.likeness import SIDE, perceptual_hash, signature, window_of

_ORDINARY = {"sharpness": 1, "contrast": 0.6, "bright_level": 0.9, "dark_level": 0.1, "range": 250, "colour": 0.5}
_ORDINARY |= {"shorter_side": 200, "size": 220, "ratio": 1.2, "channels": 3, "bits": 8}


def ordinary_measures(count):
    """Of images that are conspicuous in nothing."""
    return {name: np.full(count, _ORDINARY.get(name, 1), np.float32) for name in MEASURES}


def textures(count, seed=0, side=64):
    """Coloured noise with the falling spectrum of photos, in which no two images are alike; (count, side, side, 3)."""
    noise = np.random.default_rng(seed).standard_normal((count, 3, side, side))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)) + 1 / side
    waves = np.fft.ifft2(np.fft.fft2(noise) / frequency).real.transpose(0, 2, 3, 1)
    waves = (waves - waves.mean((1, 2, 3), keepdims=True)) / waves.std((1, 2, 3), keepdims=True)
    return (128 + 45 * waves).clip(0, 255).astype(np.uint8)


def encoded(pixels, kind="JPEG", **options):
    stream = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(stream, kind, **options)
    return stream.getvalue()


def collection_of(pictures, **columns):
    """A `Collection` of grey pictures (N, 32, 32) in [0, 1], images of equal pictures being exact duplicates."""
    pictures = torch.as_tensor(np.asarray(pictures, dtype=np.float32)).reshape(-1, SIDE, SIDE)
    count = len(pictures)
    pixels = [picture.numpy().tobytes() for picture in pictures]
    made = {
        "name": "made",
        "root": None,
        "ids": [f"{number:03d}.png" for number in range(count)],
        "listed": np.ones(count, bool),
        "splits": ["train"] * count,
        "paths": [None] * count,
        "labels": [None] * count,
        "groups": [None] * count,
        "contents": [f"{number:032x}" for number in range(count)],
        "pixels": pixels,
        "formats": ["PNG"] * count,
        "modes": ["RGB"] * count,
        "measures": ordinary_measures(count),
        "hashes": perceptual_hash(pictures) if count else np.empty(0, np.uint64),
        "signatures": signature(window_of(pictures)).numpy(),
        "faults": [()] * count,
        "source": None,
        "_parts": {},
        "_places": [None] * count,
    }
    return Collection(**(made | columns))


def pictures(count=12, seed=0):
    """Grey pictures (count, 32, 32) in [0, 1] that are not alike."""
    return textures(count, seed, SIDE)[..., 0].astype(np.float32) / 255
