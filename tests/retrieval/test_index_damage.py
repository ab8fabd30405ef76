"""Indexes that are missing, foreign, damaged or no longer true: what is said of them."""

import json
import shutil
from dataclasses import replace

import faiss
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from fewlabel.errors import UserError
from fewlabel.retrieval import Index, IndexConfig
from fewlabel.retrieval.check import check_index
from fewlabel.retrieval.description import Description, StoredFile, read_description
from fewlabel.retrieval.directory import NewFiles, commit
from fewlabel.retrieval.vectors import VectorIndex


def written(index, kind, write):
    """Replace a file of the index by what `write` makes, with the right checksum."""
    description = read_description(index.directory)
    file = NewFiles(index.directory, description.generation + 1).write(kind, write)
    commit(index.directory, replace(description, generation=description.generation + 1, **{f"{kind}_file": file}))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "holds no index"),
        (lambda path: path.write_text(""), "is no directory"),
    ],
)
def test_a_place_without_an_index(tmp_path, make, reason):
    make(tmp_path / "place")
    with pytest.raises(UserError, match=f"place {reason}.*index build"):
        Index.open(tmp_path / "place")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda value: [], "is not the index.json of a Fewlabel index"),
        (lambda value: {"name": "foreign"}, "is not the index.json of a Fewlabel index"),
        (lambda value: {**value, "format": 2}, "has format 2 and this version reads 1"),
        (lambda value: {**value, "extra": 1}, "extra missing or unknown"),
        (lambda value: {**value, "encoder": {}}, "is damaged"),
        (lambda value: {**value, "plan": {}}, "plan can't be read"),
        (lambda value: {**value, "vectors_file": {**value["vectors_file"], "name": "../secret"}}, "a folder in it"),
        (lambda value: {**value, "images": 5}, "don't fit each other: 19 images, .* expected 5"),
    ],
)
def test_an_index_json_of_another_kind(index, change, reason):
    path = index.directory / "index.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=reason):
        Index.open(index.directory)


def test_what_index_json_says_survives_a_round_trip(index):
    found = read_description(index.directory)
    assert isinstance(found, Description)
    assert found == index.description
    assert all(file == StoredFile.of(index.directory / file.name) for file in found.files)


@pytest.mark.parametrize("kind", ["vectors", "manifest"])
def test_a_damaged_file_is_named_and_never_crashes(index, kind):
    path = next(index.directory.glob(f"{kind}-*"))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content, reason in ((whole[:-7], "bytes and not"), (bytes(flipped), "not what was written")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{path.name} is damaged: .*{reason}.*build it anew"):
            Index.open(index.directory)
    path.unlink()
    with pytest.raises(UserError, match=f"is incomplete: .*{path.name} is missing"):
        Index.open(index.directory)


def test_damaged_thumbnails_are_told_when_they_are_asked_for(index):
    path = next(index.directory.glob("thumbnails-*"))
    path.write_bytes(b"x" * path.stat().st_size)
    opened = Index.open(index.directory)
    assert opened.search_features(opened.features([0]), 1)[0]
    with pytest.raises(UserError, match=f"{path.name} holds no readable thumbnails"):
        opened.thumbnail(opened.entries[0])


def test_files_of_something_else_with_the_right_checksum_are_told(index):
    written(index, "vectors", lambda path: path.write_text("no vectors"))
    with pytest.raises(UserError, match=r"vectors-2\.faiss"):
        Index.open(index.directory)
    written(index, "vectors", lambda path: faiss.write_index(faiss.IndexFlatL2(96), str(path)))
    with pytest.raises(UserError):
        Index.open(index.directory)
    table = pyarrow.table({"name": ["a"]})
    written(index, "manifest", lambda path: pyarrow.parquet.write_table(table, path))
    with pytest.raises(UserError, match=r"no readable manifest \(its columns are name"):
        Index.open(index.directory)
    written(index, "manifest", lambda path: path.write_text("no parquet"))
    with pytest.raises(UserError, match="no readable manifest"):
        Index.open(index.directory)


def test_a_damaged_index_is_not_built_upon(index, photos, read, draw):
    draw(photos / "new.png", 900)
    path = next(index.directory.glob("vectors-*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        index.add(read(photos))
    assert index.description.generation == 1


def test_a_sound_index_is_found_sound(index):
    found = check_index(index.directory)
    assert (found.problems, found.sound) == ([], True)
    assert (found.files, found.images, found.embedded, found.recall) == (3, 19, 19, 1.0)
    assert check_index(index.directory, sample=4).embedded == 4


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("factory", ["HNSW8", "IVF2,SQ8"])
def test_a_sound_index_of_another_layout_is_found_sound(tmp_path, photos, encoder, read, draw, factory, metric):
    """Vectors of eight bits a component are not quite those of the encoder, and have no unit length."""
    for number in range(60):
        draw(photos / f"train/up/more {number}.png", 1000 + number)
    config = IndexConfig(factory=factory, metric=metric, recall=1.0)
    index = Index.build(tmp_path / "other", encoder, read(photos), config=config)
    draw(photos / "train/up/new.png", 902)
    assert index.add(read(photos)).new == 1
    assert index.remove(["train/up/1.png", "test/across/0.png"]).vectors == 2
    found = check_index(index.directory)
    assert (found.problems, found.embedded) == ([], 78)
    assert found.recall > 0.9


def test_images_that_have_moved_or_changed_are_named_and_it_still_answers(index, photos, draw):
    (photos / "train/up/1.png").unlink()
    draw(photos / "test/across/2.png", 901)
    found = check_index(index.directory)
    assert found.sound
    assert {problem.kind: problem.images for problem in found.problems} == {
        "moved": (str(photos / "train/up/1.png"),),
        "changed": (str(photos / "test/across/2.png"),),
    }
    assert "1 of 19 image files" in found.problems[0].what
    gone = next(entry for entry in index.entries if entry.id == "train/up/1.png")
    assert index.search_features(index.features([gone.key]), 1)[0][0].entry == gone
    assert index.thumbnail(gone)
    shutil.rmtree(photos)
    assert [len(problem.images) for problem in check_index(index.directory).problems] == [19]


def damaged(index):
    found = check_index(index.directory)
    assert not found.sound
    return " ".join(problem.what for problem in found.problems)


def test_every_damaged_file_is_named(index):
    names = [file.name for file in index.description.files]
    for name in names:
        (index.directory / name).write_bytes(b"x" * (index.directory / name).stat().st_size)
    what = damaged(index)
    assert all(f"{name} is damaged: its content" in what for name in names)
    (index.directory / names[0]).unlink()
    assert f"{names[0]} can't be read: No such file" in damaged(index)


def test_a_damaged_encoder_is_found(index):
    (index.directory / "encoder" / "model.safetensors").write_text("nothing")
    assert "model.safetensors is damaged" in damaged(index)


def test_vectors_of_other_images_are_found(index):
    vectors = index.features(index.keys)
    other = faiss.read_index(str(next(index.directory.glob("vectors-*"))))
    for keys, reason in (
        (np.roll(index.keys, 1), "embedded anew are not like their vectors"),
        (index.keys + 1, "are not of the same images"),
    ):
        other.reset()
        other.add_with_ids(vectors, keys)
        written(index, "vectors", lambda path: faiss.write_index(other, str(path)))
        assert reason in damaged(index)


def test_a_search_that_misses_is_found(index, monkeypatch):
    right = VectorIndex.search

    def blind(self, queries, k, keys=None):
        return right(self, queries, k, self.keys[:9])

    monkeypatch.setattr(VectorIndex, "search", blind)
    assert "searches found 0." in damaged(index)
