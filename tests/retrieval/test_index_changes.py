"""Adding and removing, and who may do it when."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from fewlabel.errors import UserError
from fewlabel.retrieval import Index, embedding
from fewlabel.retrieval.merge import Added
from fewlabel.retrieval.update import Removed


@pytest.fixture
def embedded(monkeypatch):
    """Ids of the images that were embedded since."""
    seen = []
    original = embedding.features_of

    def spy(encoder, stores, *arguments, **options):
        seen.extend(identity for store in stores.values() for identity in store.ids)
        return original(encoder, stores, *arguments, **options)

    monkeypatch.setattr(embedding, "features_of", spy)
    return seen


def files_of(directory):
    return {path.name: path.stat().st_mtime_ns for path in directory.glob("*.*") if path.name != ".lock"}


def sound(index):
    """Every image finds itself, and has its thumbnail; a second look from the disk says the same."""
    again = Index.open(index.directory)
    assert again.entries == index.entries
    for one in (index, again):
        entries = one.entries
        found = one.search_features(one.features([entry.key for entry in entries]), 1)
        for entry, hits in zip(entries, found, strict=True):
            assert entry in (hits[0].entry, *hits[0].copies)
        assert all(one.thumbnail(entry) for entry in entries)
    named = {file.name for file in index.description.files}
    assert {path.name for path in index.directory.iterdir()} == named | {"index.json", "encoder", ".lock"}


def test_adding_the_same_again_changes_nothing(index, photos, read, embedded):
    before = files_of(index.directory)
    assert index.add(read(photos)) == Added(known=19)
    assert files_of(index.directory) == before
    assert (index.description.generation, embedded) == (1, [])


def test_a_new_folder_costs_its_new_images_alone(index, photos, read, draw, tmp_path, embedded):
    more = tmp_path / "more"
    for number in range(4):
        draw(more / f"{number}.png", 300 + number)
    shutil.copy(photos / "train/up/2.png", more / "copy.png")
    kept = index.features(index.keys).copy()
    assert index.add(read(more)) == Added(new=4, copies=1)
    assert embedded == [f"{number}.png" for number in range(4)]
    assert (len(index), len(index.entries), index.description.generation) == (22, 24, 2)
    np.testing.assert_array_equal(index.features(index.keys[:18]), kept)
    assert index.search(more / "2.png", 1)[0][0].entry.id == "2.png"
    sound(index)


def test_a_grown_folder_costs_what_it_grew_by(index, photos, read, draw, embedded):
    draw(photos / "train/up/new.png", 400)
    assert index.add(read(photos)) == Added(new=1, known=19)
    assert embedded == ["train/up/new.png"]
    sound(index)


def test_a_file_with_a_new_image_gives_up_the_old_one(index, photos, read, draw, embedded):
    old = index.thumbnail(next(entry for entry in index.entries if entry.id == "train/up/3.png"))
    draw(photos / "train/up/3.png", 401)
    assert index.add(read(photos)) == Added(replaced=1, known=18)
    assert embedded == ["train/up/3.png"]
    entry = next(entry for entry in index.entries if entry.id == "train/up/3.png")
    assert index.thumbnail(entry) != old
    assert len(index) == 18
    assert not any(old in (index.directory / name).read_bytes() for name in files_of(index.directory))
    sound(index)


def test_a_folder_that_has_moved_is_followed_without_embedding(index, photos, read, tmp_path, embedded):
    photos.rename(tmp_path / "elsewhere")
    before = index.description.vectors_file
    assert index.add(read(tmp_path / "elsewhere")) == Added(moved=19)
    assert {entry.path for entry in index.entries} == {
        str(tmp_path / "elsewhere" / entry.id) for entry in index.entries
    }
    assert (index.description.vectors_file, embedded) == (before, [])
    sound(index)


def test_images_that_cannot_be_decoded_are_named_and_left_out(index, photos, read, draw, tmp_path):
    more = tmp_path / "more"
    for number in range(40):
        draw(more / f"{number:02d}.png", 500 + number)
    whole = (more / "07.png").read_bytes()
    (more / "07.png").write_bytes(whole[: len(whole) // 2])
    assert index.add(read(more)) == Added(new=39)
    assert [image.id for image in index.left_out] == ["07.png"]
    sound(index)


def test_an_image_inside_a_file_of_arrays_is_told_from_others_of_its_id(tmp_path, encoder, read):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 8, 8), dtype=np.uint8)
    for name, images in zip(("first", "second"), pixels, strict=True):
        np.savez(tmp_path / f"{name}.npz", train_images=images)
    index = Index.build(tmp_path / "index", encoder, read(tmp_path / "first.npz"))
    assert index.add(read(tmp_path / "second.npz")) == Added(new=4)
    assert [entry.id for entry in index.entries[3:5]] == ["train/000003", "second/train/000000"]
    assert index.add(read(tmp_path / "second.npz")) == Added(known=4)
    sound(index)


def test_removal_by_id_and_by_path_really_removes(index, photos, monkeypatch):
    gone = [entry for entry in index.entries if entry.id in ("train/across/0.png", "test/across/1.png")]
    vectors = index.features([entry.key for entry in gone])
    pictures = [index.thumbnail(entry) for entry in gone]
    monkeypatch.chdir(photos / "test")
    assert index.remove(["train/across/0.png", "../test/across/1.png"]) == Removed(2, 2)
    assert (len(index), len(index.entries)) == (16, 17)
    for path in index.directory.glob("*.*"):
        content = path.read_bytes()
        assert not any(picture in content for picture in pictures)
        assert not any(vector.tobytes() in content for vector in vectors)
    assert not {hit.entry.id for hit in index.search(photos / "train/across/0.png", 99)[0]} & {e.id for e in gone}
    sound(index)


def test_a_vector_stays_as_long_as_a_copy_of_its_image_does(index):
    before = index.description.vectors_file
    assert index.remove(["train/up/0.png"]) == Removed(1, 0)
    assert index.description.vectors_file == before
    assert len(index) == 18
    assert index.remove(["test/up/9.png"]) == Removed(1, 1)
    assert len(index) == 17
    sound(index)


def test_an_index_may_be_emptied_and_filled_again(index, photos, read):
    index.remove([entry.id for entry in index.entries])
    assert (len(index), index.entries, index.labels) == (0, [], [])
    assert index.search(photos / "train/up/0.png") == [[]]
    assert Index.open(index.directory).search(photos / "train/up/0.png") == [[]]
    assert index.add(read(photos)) == Added(new=18, copies=1)
    sound(index)


def test_a_name_that_is_not_there_removes_nothing(index, photos, draw, tmp_path, monkeypatch, read):
    with pytest.raises(UserError, match=r"train/up/O.png is neither the id.*did you mean train/up/.*Nothing was"):
        index.remove(["train/up/1.png", "train/up/O.png"])
    draw(tmp_path / "train/up/1.png", 800)
    index.add(read(tmp_path / "train"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"is the id of one image of the index and the path of another"):
        index.remove(["train/up/1.png"])
    assert len(index.entries) == 20


def test_who_has_an_index_open_goes_on_while_others_change_it(index, photos):
    reader = Index.open(index.directory)
    before = reader.entries[0]
    index.remove([entry.id for entry in index.entries[:5]])
    assert reader.search(photos / before.id, 1)[0][0].entry == before
    assert reader.thumbnail(before)


def test_a_second_writer_is_refused_and_told_who_is_at_it(index, photos, read):
    held = "import sys, time; from pathlib import Path; from fewlabel.retrieval.directory import writing\n"
    held += "with writing(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", held, index.directory], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            for change in (lambda: index.remove(["train/up/0.png"]), lambda: index.add(read(photos))):
                with pytest.raises(UserError, match=f"in use by process {holder.pid}, and an index has one writer"):
                    change()
            assert Index.open(index.directory).search(photos / "train/up/0.png", 1)[0]
        finally:
            holder.kill()
    assert index.remove(["train/up/0.png"]) == Removed(1, 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_index_that_may_not_be_written_can_be_searched(index, photos):
    index.directory.chmod(0o500)
    try:
        assert Index.open(index.directory).search(photos / "train/up/0.png", 1)[0]
        (index.directory / ".lock").chmod(0o400)
        with pytest.raises(UserError, match="Can't write in the index directory"):
            index.remove(["train/up/0.png"])
    finally:
        index.directory.chmod(0o700)
