"""Building and searching: against the encoder called by hand and neighbours found by sorting."""

import hashlib
import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import fewlabel.retrieval
from fewlabel.backbones.encoder import as_encoder, load_encoder, untrained
from fewlabel.data.config import SourceConfig
from fewlabel.data.loading import load
from fewlabel.errors import UserError
from fewlabel.retrieval import Filter, Index, IndexConfig


def by_hand(encoder, paths):
    with torch.no_grad():
        features = encoder([Image.open(path) for path in paths])
    return torch.nn.functional.normalize(features, dim=1).numpy()


def test_the_manifest_says_of_each_image_what_the_folder_says(index, photos):
    entries = {entry.id: entry for entry in index.entries}
    assert len(entries) == 19
    for identity, entry in entries.items():
        split, label, _ = identity.split("/")
        path = photos / identity
        assert (entry.split, entry.labels, entry.path, entry.group) == (split, (label,), str(path), None)
        assert entry.content == hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    assert entries["train/up/0.png"].key == entries["test/up/9.png"].key
    assert len(index) == len({entry.key for entry in entries.values()}) == 18
    assert (index.labels, index.splits) == (["across", "up"], ["train", "test"])


def test_vectors_are_the_encoders_own_features_of_unit_length(index, encoder):
    expected = by_hand(encoder, [entry.path for entry in index.entries])
    np.testing.assert_allclose(index.features([entry.key for entry in index.entries]), expected, atol=1e-5)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_neighbours_are_those_of_exhaustive_search(tmp_path, photos, encoder, read, draw, metric):
    index = Index.build(tmp_path / "other", encoder, read(photos), config=IndexConfig(metric=metric))
    query = draw(tmp_path / "query.png", 999)
    first = {entry.key: entry for entry in reversed(index.entries)}
    with torch.no_grad():
        bank = encoder([Image.open(entry.path) for entry in first.values()])
        asked = encoder([Image.open(query)])
    if metric == "cosine":
        similar = torch.nn.functional.cosine_similarity(asked, bank)
    else:
        similar = -torch.linalg.vector_norm(asked - bank, dim=1)
    expected = similar.argsort(descending=True)[:5].tolist()
    (hits,) = index.search(query, 5)
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    assert [hit.entry.key for hit in hits] == [list(first)[place] for place in expected]
    np.testing.assert_allclose([hit.similarity for hit in hits], similar[expected], atol=1e-4)


def test_every_kind_of_picture_is_taken_and_finds_itself(index, photos):
    path = photos / "train/across/3.png"
    picture = Image.open(path)
    for query in (path, str(path), picture, np.asarray(picture), np.asarray(picture)[:, :, None] / 255):
        ((hit,),) = index.search(query, 1)
        assert hit.entry.id == "train/across/3.png"
        assert hit.similarity == pytest.approx(1, abs=1e-5)
    both = index.search([path, photos / "test/up/1.png"], 1)
    assert [hits[0].entry.id for hits in both] == ["train/across/3.png", "test/up/1.png"]
    assert index.search([]) == []


def test_a_copy_comes_with_the_image_that_it_is_of(index, photos):
    hits = index.search(photos / "train/up/0.png", 2)[0]
    assert {hits[0].entry.id, *(copy.id for copy in hits[0].copies)} == {"train/up/0.png", "test/up/9.png"}
    assert hits[1].copies == ()


def test_a_filter_lets_through_what_it_names(index, photos):
    query = photos / "train/up/0.png"
    hits = index.search(query, 100, Filter(labels=("across",), splits=("test",)))[0]
    assert {hit.entry.id for hit in hits} == {f"test/across/{number}.png" for number in range(3)}
    # The copy that passed stands for the image, and the other is still told.
    (hit, *_) = index.search(query, 100, Filter(splits=("test",)))[0]
    assert (hit.entry.id, [copy.id for copy in hit.copies]) == ("test/up/9.png", ["train/up/0.png"])
    index.remove([f"test/across/{number}.png" for number in range(3)])
    assert index.search(query, 5, Filter(labels=("across",), splits=("test",))) == [[]]
    with pytest.raises(UserError, match=r"the label 'acros'; did you mean 'across'\?"):
        index.search(query, 1, Filter(labels=("acros",)))
    with pytest.raises(UserError, match="the split 'val'"):
        index.search(query, 1, Filter(splits=("val",)))


def test_more_than_there_are_gives_all_and_none_is_refused(index, photos):
    assert len(index.search(photos / "train/up/0.png", 1000)[0]) == 18
    with pytest.raises(UserError, match="k is 0"):
        index.search(photos / "train/up/0.png", 0)


def test_a_query_may_leave_its_own_image_out(index):
    keys = index.keys[:4]
    found = index.search_features(index.features(keys), 17, without=keys)
    for key, hits in zip(keys, found, strict=True):
        assert sorted(hit.entry.key for hit in hits) == sorted(set(index.keys.tolist()) - {int(key)})
    assert found[0][0].rank == 1


def test_features_of_another_width_are_refused(index):
    with pytest.raises(UserError, match=r"shape \(1, 7\).*width 96"):
        index.search_features(np.ones(7, np.float32))
    with pytest.raises(UserError, match="finite"):
        index.search_features(np.full((1, 96), np.nan, np.float32))


def bomb(side):
    """A PNG of a few bytes whose header claims `side` x `side` pixels."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def test_a_query_that_is_no_image_is_named(index, photos, tmp_path):
    (tmp_path / "note.png").write_text("no pixels")
    (tmp_path / "bomb.png").write_bytes(bomb(60_000))
    (tmp_path / "half.png").write_bytes((photos / "train/up/0.png").read_bytes()[:100])
    for name, reason in (
        ("note.png", "not an image"),
        ("bomb.png", "megapixels"),
        ("half.png", "damaged"),
        ("missing.png", "No such file"),
        ("", "directory"),
    ):
        with pytest.raises(UserError, match=f"{name}.*{reason}"):
            index.search([photos / "train/up/1.png", tmp_path / name])


def test_thumbnails_show_the_images_and_need_no_file(index, photos, tmp_path):
    photos.rename(tmp_path / "elsewhere")
    for entry in index.entries:
        shown = Image.open(io.BytesIO(index.thumbnail(entry)))
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(Image.open(tmp_path / "elsewhere" / entry.id)))


def test_large_and_deep_pictures_become_small_and_visible(tmp_path, encoder, read):
    steps = np.linspace(1000, 3000, 300 * 200).reshape(200, 300).astype(np.uint16)
    colours = np.zeros((50, 400, 3), np.uint8)
    colours[:, 200:] = (200, 30, 30)
    (tmp_path / "mixed").mkdir()
    Image.fromarray(steps).save(tmp_path / "mixed" / "deep.png")
    Image.fromarray(colours).save(tmp_path / "mixed" / "wide.png")
    index = Index.build(tmp_path / "of-mixed", encoder, read(tmp_path / "mixed"))
    deep, wide = (Image.open(io.BytesIO(index.thumbnail(entry))) for entry in index.entries)
    assert (deep.size, deep.mode, wide.size, wide.mode) == ((128, 85), "L", (128, 16), "RGB")
    levels = np.asarray(deep)
    assert levels.min() < 10
    assert levels.max() > 245
    np.testing.assert_allclose(np.asarray(wide)[8, 120], (200, 30, 30), atol=12)
    assert index.search(tmp_path / "mixed" / "deep.png", 1)[0][0].similarity == pytest.approx(1, abs=1e-5)


def test_several_labels_are_the_names_of_those_that_are_yes(tmp_path, photos, encoder, read):
    rows = ["path,cat,dog", "train/up/0.png,1,1", "train/up/1.png,0,1", "train/up/2.png,0,0", "train/up/3.png,,1"]
    (photos / "table.csv").write_text("\n".join(rows))
    config = SourceConfig(data=str(photos / "table.csv"), label_column="cat,dog", val_share=0.0, test_share=0.0)
    index = Index.build(tmp_path / "of-table", encoder, load(config))
    assert [entry.labels for entry in index.entries] == [("cat", "dog"), ("dog",), (), ("dog",)]
    assert [entry.path for entry in index.entries] == [str(photos / f"train/up/{number}.png") for number in range(4)]


def test_images_inside_another_file_have_no_path(tmp_path, encoder, read):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "arrays.npz", train_images=pixels)
    index = Index.build(tmp_path / "of-arrays", encoder, read(tmp_path / "arrays.npz"))
    assert [(entry.id, entry.path) for entry in index.entries] == [(f"train/{n:06d}", None) for n in range(5)]
    assert index.search(pixels[3], 1)[0][0].entry.id == "train/000003"


def test_the_index_stands_alone(index, tmp_path, photos):
    """It can be moved, and brings its encoder."""
    moved = (tmp_path / "index").rename(tmp_path / "copy")
    again = Index.open(moved)
    assert again.encoder.hash == index.encoder.hash
    assert again.search(photos / "train/up/2.png", 1)[0][0].entry.id == "train/up/2.png"


def test_a_run_stands_for_its_index(index, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    index.directory.rename(run / "index")
    assert Index.open(run).directory == Index.open(str(run / "index")).directory == run / "index"


def test_another_encoder_is_refused(index, make_encoder, tmp_path):
    other = load_encoder(make_encoder(tmp_path / "other", seed=1))
    with pytest.raises(UserError, match=f"{index.encoder.hash[:16]}.*not with {other.hash[:16]}.*mean nothing"):
        Index.open(index.directory, encoder=other)
    for name in ("config.json", "model.safetensors"):
        (index.directory / "encoder" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(UserError, match="is not the encoder that made the index"):
        Index.open(index.directory).search(np.zeros((16, 16), np.uint8))


def test_an_encoder_without_a_directory_of_its_own_is_refused(tmp_path, photos, encoder, read):
    drawn = as_encoder(encoder.backbone, mean=(0.4,), std=(0.3,), bits=8, provenance={}, trained=True)
    for number, wrong in enumerate((drawn, untrained(encoder, 0))):
        with pytest.raises(UserError, match="save_encoder"):
            Index.build(tmp_path / f"none-{number}", wrong, read(photos))


def test_a_directory_with_something_in_it_is_refused(index, encoder, photos, read):
    with pytest.raises(UserError, match=r"isn't empty: it has encoder.*add images"):
        Index.build(index.directory, encoder, read(photos))


def test_importing_the_room_loads_nothing_heavy():
    code = "import sys, fewlabel.retrieval; print([name for name in ('torch', 'faiss') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
    assert fewlabel.retrieval.Index is Index
