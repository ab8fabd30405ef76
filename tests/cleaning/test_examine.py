"""The one pass: every fault of a file is told for what it is, and none ends the scan."""

import gzip
import os
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from made_collections import encoded, textures
from PIL import Image

from fewlabel.cleaning import examine as examining
from fewlabel.cleaning.examine import examine
from fewlabel.data.config import SourceConfig
from fewlabel.data.loading import load
from fewlabel.errors import UserError


def faults(collection):
    return {
        identity: [fault.kind for fault in found]
        for identity, found in zip(collection.ids, collection.faults, strict=True)
        if found
    }


def write(folder, contents):
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def noise_jpeg(seed=0):
    return encoded(textures(1, seed)[0], quality=90)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_file_that_ends_early_is_truncated_and_one_of_garbage_is_not(tmp_path, kind):
    whole = encoded(textures(1)[0], kind)
    suffix = f".{kind.lower()}"
    write(
        tmp_path,
        {
            f"whole{suffix}": whole,
            f"cut{suffix}": whole[: len(whole) * 6 // 10],
            f"garbage{suffix}": np.random.default_rng(0).bytes(500),
            f"empty{suffix}": b"",
        },
    )
    collection = examine(SourceConfig(data=str(tmp_path)))
    assert faults(collection) == {
        f"cut{suffix}": ["truncated"],
        f"garbage{suffix}": ["undecodable"],
        f"empty{suffix}": ["empty"],
    }
    assert collection.decoded.tolist() == [identity.startswith("whole") for identity in collection.ids]


def test_a_dicom_that_ends_early_is_truncated(tmp_path, write_dicom):
    whole = write_dicom(tmp_path / "whole.dcm", textures(1)[0][:, :, 0]).read_bytes()
    write(tmp_path, {"cut.dcm": whole[: len(whole) * 7 // 10]})
    assert faults(examine(SourceConfig(data=str(tmp_path)))) == {"cut.dcm": ["truncated"]}


def test_suffixes_that_name_another_format(tmp_path):
    jpeg, png = noise_jpeg(), encoded(textures(1)[0], "PNG")
    write(
        tmp_path,
        {
            "a.jpg": jpeg,
            "b.jpeg": jpeg,
            "c.JFIF": jpeg,
            "d.png": jpeg,
            "e.jpg": png,
            "photo.txt": jpeg,
            "scan": png,
            "notes.txt": b"BM is no bitmap",
            "table.csv.gz": gzip.compress(b"a,b"),
        },
    )
    collection = examine(SourceConfig(data=str(tmp_path)))
    assert faults(collection) == {
        "d.png": ["wrong_suffix"],
        "e.jpg": ["wrong_suffix"],
        "photo.txt": ["foreign_suffix"],
        "scan": ["foreign_suffix"],
    }
    assert [collection.ids[row] for row in np.flatnonzero(~collection.listed)] == ["photo.txt", "scan"]
    assert collection.cell(len(collection) - 1) is None
    assert collection.contents[-1] == ""


def test_files_and_folders_that_cannot_be_opened_or_named(tmp_path):
    write(tmp_path, {"a.jpg": noise_jpeg(), "b.jpg": noise_jpeg(1)})
    (tmp_path / "dangling.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(noise_jpeg())
    os.mkfifo(tmp_path / "pipe.bin")
    collection = examine(SourceConfig(data=str(tmp_path)))
    assert faults(collection) == {"dangling.jpg": ["unreadable"], "caf\\xe9.jpg": ["unreadable_name"]}
    assert sum(collection.decoded) == 2


def test_every_file_is_read_once(tmp_path, monkeypatch):
    write(tmp_path, {f"{number}.jpg": noise_jpeg(number) for number in range(4)})
    real, opened = Path.open, []

    def counted(path, *arguments, **options):
        opened.append(path.name)
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", counted)
    collection = examine(SourceConfig(data=str(tmp_path)))
    assert sum(collection.decoded) == 4
    assert sorted(name for name in opened if name.endswith(".jpg")) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]


def test_a_row_without_an_image_is_unreadable(tmp_path):
    rows = [{"bytes": noise_jpeg(0), "path": None}, {"bytes": None, "path": None}, None]
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    pyarrow.parquet.write_table(pyarrow.table({"image": pyarrow.array(rows, kind)}), tmp_path / "some.parquet")
    collection = examine(SourceConfig(data=str(tmp_path / "some.parquet")))
    assert [[fault.kind for fault in faults] for faults in collection.faults] == [[], ["unreadable"], ["unreadable"]]


def test_a_file_that_vanishes_during_the_scan(tmp_path, monkeypatch):
    write(tmp_path, {f"{number}.jpg": noise_jpeg(number) for number in range(4)})
    real = examining.look

    def look(cell):
        seen = real(cell)
        (tmp_path / "2.jpg").unlink(missing_ok=True)
        return seen

    monkeypatch.setattr(examining, "look", look)
    collection = examine(SourceConfig(data=str(tmp_path), workers=1))
    assert faults(collection) == {"2.jpg": ["unreadable"]}


def test_whatever_a_decoder_raises_is_that_files_fault_alone(tmp_path, monkeypatch):
    write(tmp_path, {f"{number}.jpg": noise_jpeg(number) for number in range(3)})
    real = examining.read_cell

    def read_cell(cell, **options):
        if cell["path"].endswith("1.jpg"):
            raise MemoryError("too much")
        return real(cell, **options)

    monkeypatch.setattr(examining, "read_cell", read_cell)
    collection = examine(SourceConfig(data=str(tmp_path)))
    assert [fault.detail for fault in collection.faults[1]] == ["MemoryError: too much"]
    assert collection.decoded.tolist() == [True, False, True]


def test_nothing_readable_is_no_error_and_nothing_at_all_is_one(tmp_path):
    write(tmp_path / "bad", {"a.jpg": b"", "b.jpg": b"no image"})
    collection = examine(SourceConfig(data=str(tmp_path / "bad")))
    assert (collection.source, list(collection.splits)) == (None, ["", ""])
    assert not collection.decoded.any()
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        examine(SourceConfig(data=str(tmp_path / "none")))


def test_splits_labels_groups_and_contents_are_those_of_load(tmp_path):
    names = [f"{label}/p{number % 5}_{number}.jpg" for number in range(20) for label in ("cat", "dog")]
    write(tmp_path, {name: noise_jpeg(place) for place, name in enumerate(names)} | {"dog/p9_bad.jpg": b"no"})
    config = SourceConfig(data=str(tmp_path), group_pattern=r"p(\d)")
    collection, source = examine(config), load(config)
    assert collection.source.fingerprint == source.fingerprint
    for row, identity in enumerate(collection.ids):
        if identity == "dog/p9_bad.jpg":
            assert collection.splits[row] == ""
            continue
        split = source[collection.splits[row]]
        place = split["id"].index(identity)
        assert collection.contents[row] == source.contents[collection.splits[row]][place].hex()
        assert collection.groups[row] == split[place]["group"]
        assert collection.labels[row] == (identity.split("/")[0],)
        assert collection.paths[row] == str(tmp_path / identity)


def test_a_wrong_group_pattern_is_told(tmp_path):
    write(tmp_path, {f"{number}.jpg": noise_jpeg(number) for number in range(4)})
    with pytest.raises(UserError, match="matches 0 of 4"):
        examine(SourceConfig(data=str(tmp_path), group_pattern=r"patient(\d)"))


def test_images_inside_a_table_and_several_labels(tmp_path):
    images = [encoded(pixels, "PNG") for pixels in textures(4)]
    rows = [{"bytes": image, "path": "a.jpg"} for image in images] + [{"bytes": b"no image", "path": None}]
    table = pyarrow.table({"image": rows, "oval": [1, 0, 1, None, 0], "red": [1, 0, None, None, 1]})
    pyarrow.parquet.write_table(table, tmp_path / "set.parquet")
    collection = examine(SourceConfig(data=str(tmp_path / "set.parquet"), label_column="oval,red"))
    assert list(collection.labels) == [("oval", "red"), (), ("oval",), None, ("red",)]
    # The name inside a table is no file's: its suffix says nothing.
    assert list(faults(collection).values()) == [["undecodable"]]
    assert list(collection.paths) == [None] * 5
    assert collection.measures["bytes"][:4].tolist() == [len(image) for image in images]


def test_each_page_of_a_file_is_an_image(tmp_path):
    first, *rest = [Image.fromarray(pixels) for pixels in textures(3)]
    first.save(tmp_path / "pages.tif", save_all=True, append_images=rest)
    collection = examine(SourceConfig(data=str(tmp_path)))
    assert list(collection.ids) == [f"pages.tif#frame={page}" for page in (1, 2, 3)]
    assert not faults(collection)
    assert len(set(collection.pixels)) == len(set(collection.contents)) == 3


def test_equal_pixels_have_one_hash_in_any_format(tmp_path):
    pixels = textures(2)
    write(
        tmp_path,
        {
            "a.png": encoded(pixels[0], "PNG"),
            "b.bmp": encoded(pixels[0], "BMP"),
            "c.png": encoded(pixels[1], "PNG"),
            # The same bytes in another shape are another image.
            "d.png": encoded(pixels[0].reshape(32, 128, 3), "PNG"),
        },
    )
    a, b, c, d = examine(SourceConfig(data=str(tmp_path))).pixels
    assert a == b
    assert len({a, c, d}) == 3
