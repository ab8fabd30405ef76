"""The leak gate: copies are found however they were altered, and images of one kind are not taken for copies."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from sklearn.datasets import load_digits

from fewlabel.supervised import leaks
from fewlabel.supervised.leaks import Leak, find_leaks


class Store:
    """What the gate reads of an `ImageStore`."""

    def __init__(self, pictures, name, groups=None):
        self.pixels = torch.from_numpy(np.stack([np.atleast_3d(np.asarray(picture)) for picture in pictures]))
        self.ids = [f"{name}{number:03d}" for number in range(len(pictures))]
        self.groups = groups

    def __len__(self):
        return len(self.ids)

    def batch(self, indices):
        return SimpleNamespace(pixels=self.pixels[indices].permute(0, 3, 1, 2))


def textures(count, seed, side=48, channels=3):
    """Coloured noise with the falling spectrum of photos, in which no two images are alike."""
    noise = np.random.default_rng(seed).standard_normal((count, channels, side, side))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)) + 1 / side
    waves = np.fft.ifft2(np.fft.fft2(noise) / frequency).real.transpose(0, 2, 3, 1)
    waves = (waves - waves.mean((1, 2, 3), keepdims=True)) / waves.std((1, 2, 3), keepdims=True)
    return [Image.fromarray(picture.squeeze()) for picture in (128 + 45 * waves).clip(0, 255).astype(np.uint8)]


def radiographs(count, seed, side=48):
    """Grey images that share one strong pattern and differ in weaker ones."""
    shared = np.asarray(textures(1, 12345, side, 1)[0], float)
    own = [np.asarray(picture, float) - 128 for picture in textures(count, seed, side, 1)]
    return [Image.fromarray((shared + 0.35 * one).clip(0, 255).astype(np.uint8)) for one in own]


def encoded(picture, quality=60):
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


def resized(picture):
    return picture.resize((33, 33), Image.Resampling.BILINEAR).resize(picture.size, Image.Resampling.BICUBIC)


ALTERED = {
    "encoded anew": encoded,
    "resized": resized,
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
    "of less contrast": lambda picture: ImageEnhance.Contrast(picture).enhance(0.6),
    "gamma": lambda picture: picture.point(lambda level: round(255 * (level / 255) ** 0.8)),
    "grey": lambda picture: (
        picture.convert("L").convert("RGB") if picture.mode == "RGB" else picture.point(lambda v: v)
    ),
}


def pairs(found):
    return {(leak.kind, leak.left, leak.right) for leak in found}


@pytest.mark.parametrize("make", [textures, radiographs])
def test_different_images_of_one_kind_are_no_leak(make):
    features = {split: torch.ones(len_, 4) for split, len_ in (("train", 200), ("val", 60), ("test", 60))}
    stores = {split: Store(make(len(features[split]), seed), split) for seed, split in enumerate(features)}
    # Equal features make every image a candidate.
    assert find_leaks(stores) == find_leaks(stores, features) == []


def test_handwritten_digits_are_no_leak():
    images = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
    stores = {"train": Store(images[:1200], "train"), "test": Store(images[1200:], "test")}
    features = {
        "train": torch.from_numpy(load_digits().data[:1200]),
        "test": torch.from_numpy(load_digits().data[1200:]),
    }
    assert find_leaks(stores, features) == []


def test_equal_squares_are_found_between_all_splits():
    pictures = textures(12, 0)
    stores = {
        "train": Store(pictures[:6], "a"),
        "val": Store([pictures[6], pictures[2]], "b"),
        "test": Store([pictures[2], pictures[7], pictures[6]], "c"),
    }
    assert find_leaks(stores) == [
        Leak("exact", ("train", "a002"), ("val", "b001"), 1.0),
        Leak("exact", ("train", "a002"), ("test", "c000"), 1.0),
        Leak("exact", ("val", "b000"), ("test", "c002"), 1.0),
        Leak("exact", ("val", "b001"), ("test", "c000"), 1.0),
    ]


@pytest.mark.parametrize("make", [textures, radiographs])
@pytest.mark.parametrize("alteration", ALTERED)
def test_altered_copies_are_near(make, alteration):
    originals = make(60, 0)
    copies = [ALTERED[alteration](picture) for picture in originals[20:30]]
    if alteration == "grey" and make is radiographs:
        copies = [ImageEnhance.Brightness(picture).enhance(0.9) for picture in originals[20:30]]
    stores = {"train": Store(originals, "a"), "test": Store(make(5, 1) + copies, "b")}
    found = find_leaks(stores)
    assert pairs(found) == {("near", ("train", f"a{20 + n:03d}"), ("test", f"b{5 + n:03d}")) for n in range(10)}
    assert all(0.92 < leak.similarity <= 1.0001 for leak in found)


@pytest.mark.parametrize("deep", [False, True])
def test_one_grey_level_more_is_near_and_not_exact(deep):
    first = np.stack([np.asarray(picture) for picture in textures(20, 0, channels=1)])
    if deep:
        # A dark 16-bit image uses the lowest 4 % of its range.
        first = first.astype(np.uint16) * 10
    second = first[:1].copy()
    second[0, 3, 3] += 1
    (leak,) = find_leaks({"train": Store(first, "a"), "test": Store(second, "b")})
    assert leak.kind == "near"
    assert leak.similarity == pytest.approx(1, abs=1e-3)


def shifted(picture):
    """The picture moved by 3 of 48 pixels, two in 32."""
    return Image.fromarray(np.roll(np.asarray(picture), 3, axis=1))


def mirrored(picture):
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


@pytest.mark.parametrize("alteration", [shifted, mirrored])
def test_moved_copies_are_found_by_their_features(alteration):
    originals, others = textures(40, 0), textures(20, 1)
    stores = {"train": Store(originals, "a"), "test": Store([*others, alteration(originals[7])], "b")}
    torch.manual_seed(0)
    features = {"train": torch.randn(40, 16), "test": torch.randn(21, 16)}
    assert find_leaks(stores) == []
    assert find_leaks(stores, features) == []
    features["test"][20] = features["train"][7] + 0.1 * torch.randn(16)
    assert pairs(find_leaks(stores, features)) == {("embedding", ("train", "a007"), ("test", "b020"))}
    # Now every training image is nearer to another one than the copy is to any.
    features["train"] = torch.cat([features["train"][:20]] * 2)
    assert find_leaks(stores, features) == []


def test_near_features_alone_make_no_copy():
    stores = {"train": Store(radiographs(40, 0), "a"), "test": Store(radiographs(20, 1), "b")}
    torch.manual_seed(0)
    features = {"train": torch.randn(40, 16)}
    features["test"] = features["train"][:20] * 3
    assert find_leaks(stores, features) == []


def test_a_pair_is_listed_once_with_its_strongest_kind():
    originals = textures(30, 0)
    stores = {
        "train": Store(originals, "a", [f"p{number}" for number in range(30)]),
        "test": Store([originals[0], encoded(originals[1]), mirrored(originals[2]), *textures(2, 1)], "b"),
    }
    stores["test"].groups = ["p0", "p1", "p2", "p3", "p99"]
    torch.manual_seed(0)
    features = {"train": torch.randn(30, 16)}
    features["test"] = features["train"][:5].clone()
    found = find_leaks(stores, features)
    assert [(leak.kind, leak.left[1], leak.right[1]) for leak in found] == [
        ("exact", "a000", "b000"),
        ("near", "a001", "b001"),
        ("embedding", "a002", "b002"),
        ("group", "a003", "b003"),
    ]
    assert found[3].similarity < 0.9


def test_many_copies_of_one_image_make_a_short_list_that_leaves_none_out():
    picture, others = textures(1, 0)[0], textures(30, 1)
    stores = {
        "train": Store([picture] * 40 + others, "a", ["p"] * 40 + [f"a{number}" for number in range(30)]),
        "test": Store([encoded(picture, 50 + number) for number in range(30)], "b", ["p"] * 30),
    }
    found = find_leaks(stores)
    for kind in ("near", "group"):
        assert len([leak for leak in found if leak.kind == kind]) <= 40 + 30
    assert {leak.left[1] for leak in found} == {f"a{number:03d}" for number in range(40)}
    assert {leak.right[1] for leak in found} == set(stores["test"].ids)


def test_flat_images_are_exact_copies_or_none():
    # Levels whose mean over a window is not exactly themselves in float32.
    flat = [np.full((32, 32, 1), level, np.uint8) for level in (208, 208, 237, 238)]
    pictures = [np.atleast_3d(picture) for picture in textures(8, 0, side=32, channels=1)]
    stores = {"train": Store(flat[:3] + pictures[:4], "a"), "test": Store(flat[1:] + pictures[4:], "b")}
    features = {"train": torch.ones(7, 4), "test": torch.ones(7, 4)}
    found = {("a000", "b000"), ("a001", "b000"), ("a002", "b001")}
    assert pairs(find_leaks(stores, features)) == {("exact", ("train", a), ("test", b)) for a, b in found}


def test_the_order_of_images_and_the_size_of_tiles_change_nothing(monkeypatch):
    originals = textures(60, 0)
    copies = [encoded(picture) for picture in originals[20:30]]
    train, test = Store(originals, "a"), Store(textures(5, 1) + copies, "b")
    expected = find_leaks({"train": train, "test": test})
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    train.pixels, train.ids = train.pixels[order], [train.ids[place] for place in order]
    monkeypatch.setattr(leaks, "_TILE", 1)
    monkeypatch.setattr(leaks, "_BATCH", 7)
    found = find_leaks({"train": train, "test": test})
    assert pairs(found) == pairs(expected)
    assert [leak.similarity for leak in found] == pytest.approx([leak.similarity for leak in expected], abs=1e-5)


def test_a_single_image_and_none_in_common():
    one, two = textures(2, 0)
    assert find_leaks({"train": Store([one], "a")}) == []
    assert find_leaks({"train": Store([one], "a"), "test": Store([two], "b")}) == []
    assert [leak.kind for leak in find_leaks({"train": Store([one], "a"), "test": Store([encoded(one)], "b")})] == [
        "near"
    ]
