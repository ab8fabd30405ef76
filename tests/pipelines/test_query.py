"""`fewlabel query`: neighbours in the terminal, as JSON and as a picture."""

import json
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fewlabel.__main__ import main
from fewlabel.retrieval import Index


@pytest.fixture
def query(indexed):
    """`fewlabel query` on the index of the collection; its exit status."""
    return lambda *arguments: main(["query", *map(str, arguments), "--index", str(indexed)])


@pytest.fixture
def asked(query, capsys):
    """The answers as JSON."""

    def ask(*arguments):
        assert query(*arguments, "--json") == 0
        return json.loads(capsys.readouterr().out)

    return ask


def bomb(path):
    """A PNG of a few bytes that claims 400 megapixels."""
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 0, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b""))
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def test_an_image_of_the_index_finds_itself_with_its_copies(query, collection, capsys):
    assert query(collection / "train/up/0.png", "-k", 2) == 0
    shown = capsys.readouterr()
    title, _, first, copy, second = [line.rstrip() for line in shown.out.splitlines() if line.strip()]
    assert title == str(collection / "train/up/0.png")
    assert first.split(None, 2)[:2] == ["1", "1.000"]
    assert str(collection / "train/up/0.png") in first
    assert first.endswith("the same image")
    assert str(collection / "test/up/copy.png") in copy
    assert copy.endswith("a copy; the same image")
    assert second.split()[0] == "2"
    assert "tiny change.png" in second
    assert "same" not in second
    assert "s a query" in shown.err


def test_the_neighbours_are_those_of_all_pairs(asked, collection, indexed):
    index = Index.open(indexed)
    path = collection / "test/across/2.png"
    (answer,) = asked(path, "-k", 5)["queries"]
    keys = np.unique([entry.key for entry in index.entries])
    vectors, query = (part.astype(np.float64) for part in (index.features(keys), index.embed(path)[0]))
    cosines = vectors @ query / np.linalg.norm(query)
    nearest = np.argsort(-cosines)[:5]
    contents = {entry.id: entry for entry in index.entries}
    assert [contents[hit["id"]].key for hit in answer["neighbours"]] == keys[nearest].tolist()
    assert [hit["similarity"] for hit in answer["neighbours"]] == pytest.approx(cosines[nearest], abs=1e-5)
    assert [hit["rank"] for hit in answer["neighbours"]] == [1, 2, 3, 4, 5]
    first, *others = answer["neighbours"]
    assert first == {
        "rank": 1,
        "similarity": pytest.approx(1),
        "id": "test/across/2.png",
        "path": str(path),
        "labels": ["across"],
        "split": "test",
        "group": None,
        "moved": False,
        "same_image": True,
        "copies": [],
    }
    assert not any(hit["same_image"] for hit in others)


def test_labels_and_splits_restrict_the_search(asked, query, collection, capsys):
    photo = collection / "train/up/3.png"
    (answer,) = asked(photo, "--label", "across", "--split", "test", "-k", 4)["queries"]
    assert {(*hit["labels"], hit["split"]) for hit in answer["neighbours"]} == {("across", "test")}
    assert len(answer["neighbours"]) == 4
    (answer,) = asked("--label", "across", "--label", "up", photo, "-k", 3)["queries"]
    assert answer["neighbours"][0]["same_image"]
    assert query(photo, "--label", "across", "--split", "test", "-k", 9) == 0
    assert "-k is 9, and 4 different images fit --label and --split: those are all." in capsys.readouterr().err


def test_with_k_above_the_index_all_are_given(query, collection, capsys):
    assert query(collection / "train/up/3.png", "-k", 1000, "--json") == 0
    shown = capsys.readouterr()
    assert len(json.loads(shown.out)["queries"][0]["neighbours"]) == 26
    assert "-k is 1000, and the index has 26 different images: those are all." in shown.err


def test_in_a_folder_bad_files_are_told_and_skipped(query, tmp_path, capfd):
    photos = tmp_path / "new"
    photos.mkdir()
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(photos / "colour.jpg")
    Image.fromarray((generator.random((20, 60)) * 3000).astype(np.uint16)).save(photos / "deep.png")
    (photos / "text.png").write_text("no image")
    bomb(photos / "bomb.png")
    picture = tmp_path / "found.png"
    assert query(photos, "-k", 3, "--picture", picture, "--json") == 0
    shown = capfd.readouterr()
    found = json.loads(shown.out)
    assert [answer["query"] for answer in found["queries"]] == [str(photos / "colour.jpg"), str(photos / "deep.png")]
    assert [skipped["path"] for skipped in found["skipped"]] == [str(photos / "bomb.png"), str(photos / "text.png")]
    assert f"Skipped {photos / 'bomb.png'}: more than the 100 megapixels allowed" in shown.err
    assert f"Skipped {photos / 'text.png'}: not an image" in shown.err
    with Image.open(picture) as opened:
        pixels = np.asarray(opened)
    # Each query in its frame; the dark 16-bit one is shown with its own black and white.
    framed = (pixels == (0x00, 0x72, 0xB2)).all(axis=2)
    assert framed.any(axis=1).sum() > 2 * 40
    rows = np.flatnonzero(framed.any(axis=1))
    assert pixels[rows[-1] - 20, 30:130].max() > 200


def test_images_that_have_moved_are_told_and_still_found(collection, indexed, tmp_path, capfd):
    photos = shutil.copytree(collection, tmp_path / "photos")
    index = shutil.copytree(indexed, tmp_path / "index")
    assert main(["index", "add", "--data", str(photos), "--index", str(index)]) == 0
    shutil.move(photos / "train/up/3.png", tmp_path / "kept.png")
    capfd.readouterr()
    arguments = ["query", str(tmp_path / "kept.png"), "--index", str(index), "-k", "1"]
    assert main([*arguments, "--picture", str(tmp_path / "found.png")]) == 0
    shown = capfd.readouterr()
    assert "file has moved" in shown.out
    assert "1 of these files are no longer where they were indexed" in " ".join(shown.err.split())
    assert str(photos / "train/up/3.png") in shown.err
    assert (tmp_path / "found.png").is_file()


def test_an_empty_index_says_so(collection, indexed, tmp_path, refused):
    index = Index.open(shutil.copytree(indexed, tmp_path / "index"))
    index.remove([entry.id for entry in index.entries])
    assert "is empty: add images" in refused("query", collection / "train/up/3.png", "--index", index.directory)


def test_a_query_that_is_none_is_refused_by_name(collection, indexed, tmp_path, refused):
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    (tmp_path / "all bad").mkdir()
    (tmp_path / "all bad" / "a.png").write_text("no image")
    photo = collection / "train/up/3.png"
    for arguments, message in (
        ((), "Name an image, or a folder of images"),
        ((photo, tmp_path / "nowhere.png"), f"{tmp_path / 'nowhere.png'} is no file or folder"),
        ((photo, tmp_path / "notes.txt"), f"{tmp_path / 'notes.txt'} can't be used as a query: not an image"),
        ((bomb(tmp_path / "bomb.png"),), "can't be used as a query: more than the 100 megapixels allowed"),
        ((tmp_path / "empty",), f"The folder {tmp_path / 'empty'} holds no images"),
        ((tmp_path / "all bad",), f"No query can be used; of 1 the first: {tmp_path / 'all bad' / 'a.png'}"),
        ((photo, "-k", 0), "-k is 0; it must be 1 or more"),
        ((photo, "--picture", "found.jpg"), "--picture is found.jpg; its name must end in .png"),
        ((photo, "--picture", photo), f"{photo} exists. Give another name with --picture"),
        ((photo, "--label", "upp"), "No image of the index has the label 'upp'; did you mean 'up'?"),
    ):
        assert message in refused("query", *arguments, "--index", indexed)
    assert "holds no index" in refused("query", photo, "--index", tmp_path)


def test_an_existing_picture_is_replaced_when_asked(query, collection, tmp_path):
    (tmp_path / "found.png").write_text("old")
    photo = collection / "train/up/3.png"
    assert query(photo, "--picture", tmp_path / "found.png", "--overwrite") == 0
    with Image.open(tmp_path / "found.png") as opened:
        assert opened.format == "PNG"
