"""Cleaned copies: what comes out is what training would see, nothing is written over, and the labels come along."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewlabel.cleaning.config import ConvertConfig
from fewlabel.cleaning.convert import check_destination, convert
from fewlabel.cleaning.examine import examine
from fewlabel.data import load
from fewlabel.data.config import SourceConfig
from fewlabel.data.decode import decode
from fewlabel.data.origin import labels_of
from fewlabel.errors import UserError


def deep_colour(seed: int, height: int = 9, width: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**16, (height, width, 3), dtype=np.uint16)


def tiff_of(pixels: np.ndarray) -> bytes:
    """A minimal TIFF of 16-bit RGB: Pillow reads such and doesn't write them."""
    height, width, _ = pixels.shape
    data = pixels.astype("<u2").tobytes()
    entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 14), (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(data))]
    directory = len(entries).to_bytes(2, "little")
    for tag, kind, count, value in entries:
        directory += tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + count.to_bytes(4, "little")
        directory += value.to_bytes(4, "little")
    bits = (16).to_bytes(2, "little") * 3
    return b"II*\0" + (14 + len(data)).to_bytes(4, "little") + bits + data + directory + bytes(4)


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two classes of every kind of image, with names that clash once they end alike."""
    root = tmp_path / "photos"
    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        for number in range(6):
            pixels = random.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{number}.png")
        Image.fromarray(pixels).save(root / label / "5.jpg")
        Image.fromarray(pixels).save(root / label / "5.webp")
        Image.fromarray(pixels).convert("P").save(root / label / "palette.gif")
        grey = random.integers(0, 2**16, (16, 12), dtype=np.uint16)
        Image.fromarray(grey).save(root / label / "deep.png")
        (root / label / "deep colour.tif").write_bytes(tiff_of(deep_colour(len(label))))
    return root


def copies_of(root: Path, folder: Path, **options):
    collection = examine(SourceConfig(data=str(root)))
    config = ConvertConfig(convert=folder, **options)
    return collection, convert(collection, range(len(collection)), config, workers=2)


def test_png_copies_hold_what_training_would_see(photos, tmp_path) -> None:
    collection, copies = copies_of(photos, tmp_path / "out")
    assert (copies.written, copies.failed, copies.deep) == (len(collection), [], 0)
    source = load(str(copies.table))
    assert sum(map(len, source.values())) == len(collection)
    table = dict(line.split(",")[:2] for line in copies.table.read_text().replace('"', "").splitlines()[1:])
    assert len(set(table.values())) == len(collection)
    for path, identity in table.items():
        expected = decode((photos / identity).read_bytes())
        found = decode((tmp_path / "out" / path).read_bytes())
        assert found.dtype == expected.dtype, identity
        np.testing.assert_array_equal(found, expected, err_msg=identity)
    # Of three that would be 5.png, that which is it already stays so.
    named = {identity: path for path, identity in table.items() if path.startswith("cat/5")}
    assert named == {"cat/5.png": "cat/5.png", "cat/5.jpg": "cat/5.jpg.png", "cat/5.webp": "cat/5.webp.png"}


def test_labels_and_splits_come_along(photos, tmp_path) -> None:
    original = load(str(photos))
    _, copies = copies_of(photos, tmp_path / "out")
    again = load(str(copies.table))
    assert "group" not in again["train"].column_names
    assert again.class_names == original.class_names
    for split, part in original.items():
        assert Counter(labels_of(part).tolist()) == Counter(labels_of(again[split]).tolist())
        assert len(part) == len(again[split])


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_lossy_formats_leave_deep_images_to_png(photos, tmp_path, kind) -> None:
    collection, copies = copies_of(photos, tmp_path / "out", convert_format=kind)
    endings = Counter(path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert copies.deep == 4
    assert endings == {".csv": 1, ".png": 4, {"jpeg": ".jpg", "webp": ".webp"}[kind]: len(collection) - 4}
    found = decode((tmp_path / "out/cat/0").with_suffix({"jpeg": ".jpg", "webp": ".webp"}[kind]).read_bytes())
    assert found.shape == (20, 30, 3)


def test_the_same_format_where_it_is_one_for_the_web(photos, tmp_path) -> None:
    _, _ = copies_of(photos, tmp_path / "out", convert_format="same")
    with Image.open(tmp_path / "out/cat/5.jpg") as image:
        assert image.format == "JPEG"
    with Image.open(tmp_path / "out/cat/5.webp") as image:
        assert image.format == "WEBP"
    with Image.open(tmp_path / "out/cat/palette.png") as image:
        assert image.format == "PNG"


def test_grey_rgb_and_the_longest_side(photos, tmp_path) -> None:
    copies_of(photos, tmp_path / "grey", convert_mode="grey", longest_side=15)
    found = decode((tmp_path / "grey/cat/0.png").read_bytes())
    assert found.shape == (10, 15, 1)
    expected = Image.open(photos / "cat/0.png").resize((15, 10), Image.Resampling.BILINEAR).convert("L")
    assert np.abs(found[:, :, 0].astype(int) - np.asarray(expected, int)).max() <= 2
    deep = decode((tmp_path / "grey/cat/deep colour.png").read_bytes())
    weighted = deep_colour(3) @ np.array([0.2989, 0.587, 0.114])
    assert (deep.dtype, deep.shape) == (np.uint16, (9, 7, 1))
    assert np.abs(deep[:, :, 0] - weighted).max() <= 1
    copies_of(photos, tmp_path / "rgb", convert_mode="rgb")
    found = decode((tmp_path / "rgb/cat/deep.png").read_bytes())
    assert (found.dtype, found.shape) == (np.uint16, (16, 12, 3))
    np.testing.assert_array_equal(found[:, :, 1], decode((photos / "cat/deep.png").read_bytes())[:, :, 0])


def test_no_copy_carries_metadata(tmp_path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    exif = Image.Exif()
    exif[0x010E] = "Jane Doe"
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 30), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.jpg", exif=exif, comment=b"Jane Doe")
    for kind in ("png", "jpeg", "webp", "same"):
        copies_of(photos, tmp_path / kind, convert_format=kind)
        written = b"".join(path.read_bytes() for path in (tmp_path / kind).rglob("*") if path.is_file())
        assert b"Jane" not in written


def test_ids_that_lead_out_of_the_folder_stay_in_it(tmp_path) -> None:
    (tmp_path / "deep/down").mkdir(parents=True)
    for number, place in enumerate(("a.png", "deep/b.png", "deep/down/c.png")):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 9), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / place)
    table = tmp_path / "deep/down/table.csv"
    table.write_text(f"path\n../../a.png\n../b.png\n{tmp_path}/deep/down/c.png\n")
    out = tmp_path / "deep/out"
    _, copies = copies_of(table, out)
    assert copies.written == 3
    assert {path.name for path in out.rglob("*.png")} == {"a.png", "b.png", "c.png"}


def test_an_image_that_is_gone_meanwhile_is_told(photos, tmp_path) -> None:
    collection = examine(SourceConfig(data=str(photos)))
    (photos / "cat/0.png").unlink()
    copies = convert(collection, range(len(collection)), ConvertConfig(convert=tmp_path / "out"), workers=1)
    assert [(image.id, image.reason) for image in copies.failed] == [("cat/0.png", "No such file or directory")]
    assert copies.written == len(collection) - 1
    assert "cat/0.png" not in copies.table.read_text()


def test_places_that_are_refused(photos, tmp_path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    with pytest.raises(UserError, match="isn't empty"):
        check_destination(tmp_path / "full", photos)
    with pytest.raises(UserError, match="is a file"):
        check_destination(tmp_path / "full/mine.txt", photos)
    with pytest.raises(UserError, match="own folder"):
        check_destination(photos / "clean", photos)
    (tmp_path / "empty").mkdir()
    check_destination(tmp_path / "empty", photos)
    with pytest.raises(UserError, match="--longest-side is 0"):
        ConvertConfig(longest_side=0)


def test_sixteen_bit_colour_is_read_back_by_another_reader(tmp_path) -> None:
    """Pillow keeps the high bytes of such a file: they must be ours."""
    from fewlabel.cleaning.convert import _encode

    pixels = deep_colour(1)
    with Image.open(io.BytesIO(_encode(pixels, "png"))) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), pixels >> 8)
