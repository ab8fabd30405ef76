import io

import numpy as np
import pytest
from PIL import Image

from fewlabel.errors import UserError
from fewlabel.retrieval import Filter, Index
from fewlabel.retrieval.app.collection import PICTURE_SIDE, Collection


@pytest.fixture
def collection(index):
    return Collection(index.directory)


def entry_named(view, name):
    (entry,) = [entry for entry in view.index.entries if entry.path.endswith(name)]
    return entry


def size_of(picture):
    return Image.open(io.BytesIO(picture)).size


def test_an_image_of_the_index_sent_from_outside_finds_itself(collection, photos):
    view = collection.view()
    query = view.uploaded("mine.png", (photos / "train/across/3.png").read_bytes())
    hits = view.neighbours(query, 3, Filter())
    assert hits[0].entry == entry_named(view, "train/across/3.png")
    assert hits[0].similarity == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(query.features) == pytest.approx(1, abs=1e-5)
    assert size_of(query.picture) == (16, 16)


def test_an_image_chosen_from_the_index_is_not_its_own_neighbour(collection):
    view = collection.view()
    entry = entry_named(view, "train/across/3.png")
    hits = view.neighbours(view.chosen(entry.key), 100, Filter())
    assert entry.key not in [hit.entry.key for hit in hits]
    assert [hit.rank for hit in hits] == list(range(1, len(view.index)))
    only = view.neighbours(view.chosen(entry.key), 100, Filter(labels=("up",), splits=("test",)))
    assert {(hit.entry.labels, hit.entry.split) for hit in only} == {(("up",), "test")}


def bomb():
    stream = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [(b"GIF89a", "mine.png can't be used"), (b"", "mine.png can't be used"), (bomb(), "100 megapixels")],
    ids=["cut short", "empty", "a bomb"],
)
def test_what_is_no_image_is_refused_with_a_reason(collection, encoded, reason):
    with pytest.raises(UserError, match=reason):
        collection.view().uploaded("mine.png", encoded)


def test_a_key_that_is_not_there_has_nothing(collection):
    view = collection.view()
    assert view.entries_of(10**9) == []
    assert view.picture(10**9) is None
    with pytest.raises(UserError, match="no longer in the index"):
        view.chosen(10**9)


def test_a_picture_is_the_file_itself_while_it_is_there_unchanged(collection, photos, tmp_path):
    view = collection.view()
    path = photos / "train/across/3.png"
    entry = entry_named(view, "train/across/3.png")
    # Whatever takes the file's place was never indexed, and is not shown.
    Image.effect_noise((1400, 700), 50).save(path)
    assert view.picture(entry.key) == view.index.thumbnail(entry)
    assert not entry.moved
    path.rename(tmp_path / "elsewhere.png")
    assert entry.moved
    assert view.picture(entry.key) == view.index.thumbnail(entry)


def test_a_change_on_disk_is_seen_at_once(collection, photos, read):
    before = collection.view()
    assert collection.view() is before
    Image.effect_noise((1400, 700), 50).save(photos / "train/across/large.png")
    Index.open(collection.view().index.directory).add(read(photos))
    after = collection.view()
    assert after.stamp != before.stamp
    assert len(after.index) == len(before.index) + 1
    assert after.index.encoder is before.index.encoder
    assert size_of(after.picture(entry_named(after, "large.png").key)) == (PICTURE_SIDE, PICTURE_SIDE // 2)
    # Who still holds the old view goes on with it.
    assert len(before.neighbours(before.chosen(before.index.entries[0].key), 100, Filter())) == len(before.index) - 1


def test_an_index_that_goes_away_is_told(collection):
    (collection.view().index.directory / "index.json").unlink()
    with pytest.raises(UserError, match="is gone"):
        collection.view()


def test_images_are_found_by_name_folder_or_label(collection):
    view = collection.view()
    assert {entry.labels for entry in view.named("UP", 100)} == {("up",)}
    assert {entry.split for entry in view.named("/test/", 100)} == {"test"}
    assert len(view.named("train", 4)) == 4
    assert view.named("nothing like it", 4) == []
    assert view.named(".*", 4) == []
    offered = view.sample(7, seed=1)
    assert len({entry.id for entry in offered}) == 7
    assert offered != view.sample(7, seed=2)


def test_the_map_is_made_once_and_has_every_image(collection):
    view = collection.view()
    mapped = view.map().result(timeout=60)
    assert view.map().result() is mapped
    assert mapped.keys.tolist() == sorted({entry.key for entry in view.index.entries})


def test_an_empty_index_has_no_map(index):
    index.remove([entry.id for entry in index.entries])
    view = Collection(index.directory).view()
    with pytest.raises(UserError, match="index is empty"):
        view.map().result(timeout=60)
