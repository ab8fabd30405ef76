"""The decoded store: its squares, its cache file, and what happens when that is damaged."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewlabel.data import ImageStore, Source, load, mean_and_std, open_store, store
from fewlabel.data.config import SourceConfig
from fewlabel.data.decode import decode
from fewlabel.errors import UserError

Encode = Callable[..., bytes]
Write = Callable[..., None]
MODES = ["memory", "file", "workers"]


@pytest.fixture
def folder(tmp_path: Path, write_images: Write) -> Path:
    """Thirty images of 10 x 12 in two classes, with a group each."""
    write_images(tmp_path / "images", [f"{'ab'[i % 2]}/p{i // 2:02d}-{i}.png" for i in range(30)])
    return tmp_path / "images"


@pytest.fixture
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force one of the three ways to hold the squares."""
    if request.param != "memory":
        monkeypatch.setattr(store, "_MEMORY_LIMIT", 0)
    if request.param == "workers":
        monkeypatch.setattr(store, "_DISK_SHARE", 0.0)
    return str(request.param)


def load_all(folder: Path, **options: object) -> Source:
    return load(SourceConfig(data=str(folder), val_share=0, test_share=0, **options))  # type: ignore[arg-type]


def opened(source: Source, cache: Path, side: int = 8, max_bad_share: float = 0.05) -> ImageStore:
    return open_store(source, "train", side, cache_dir=cache, workers=2, max_bad_share=max_bad_share)


@pytest.mark.parametrize("mode", MODES, indirect=True)
def test_batches_hold_the_squashed_images(folder: Path, tmp_path: Path, mode: str) -> None:
    source = load_all(folder, group_pattern=r"(p\d+)")
    images = opened(source, tmp_path / "cache")
    assert len(images) == 30
    indices = torch.tensor([29, 3, 3, 0])
    batch = images.batch(indices)
    assert batch.pixels.dtype == torch.uint8
    assert batch.pixels.shape == (4, 3, 8, 8)
    assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
    assert batch.index.tolist() == [29, 3, 3, 0]
    for pixels, index in zip(batch.pixels, indices.tolist(), strict=True):
        row = source["train"][index]
        assert images.ids[index] == row["id"]
        assert images.labels is not None
        assert images.groups is not None
        assert (int(images.labels[index]), images.groups[index]) == (row["label"], row["group"])
        expected = np.asarray(row["image"].resize((8, 8), Image.Resampling.BILINEAR), int)
        assert np.abs(pixels.permute(1, 2, 0).numpy() - expected).max() <= 1
    assert batch.aspect.tolist() == pytest.approx([10 / 12] * 4)
    assert ((tmp_path / "cache").exists()) == (mode != "memory")
    assert any((tmp_path / "cache").glob("*.bin")) == (mode == "file")
    for bad in (-1, 30):
        with pytest.raises(IndexError):
            images.batch(torch.tensor([bad]))


@pytest.mark.parametrize("mode", MODES, indirect=True)
def test_undecodable_images_are_named_and_left_out(folder: Path, tmp_path: Path, mode: str) -> None:
    whole = (folder / "a" / "p00-0.png").read_bytes()
    (folder / "a" / "p00-0.png").write_bytes(whole[:-40])
    source = load_all(folder)
    assert not source.bad
    for _ in range(2):
        images = opened(source, tmp_path / "cache")
        assert [bad.id for bad in images.bad] == ["a/p00-0.png"]
        assert len(images) == len(images.ids) == len(images.aspect) == 29
        np.testing.assert_array_equal(
            images.batch(torch.tensor([0])).pixels[0],
            opened(source, tmp_path / "other").batch(torch.tensor([0])).pixels[0],
        )
        assert images.ids[0] == "a/p01-2.png"
    assert (folder / "a" / "p00-0.png").exists()
    with pytest.raises(UserError, match=r"1 of 30 images .* 1\.0% allowed:\n  a/p00-0\.png: damaged or truncated"):
        opened(source, tmp_path / "cache", max_bad_share=0.01)


@pytest.mark.parametrize("mode", ["file"], indirect=True)
def test_the_file_is_used_again(folder: Path, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = load_all(folder)
    first = opened(source, tmp_path).batch(torch.arange(30)).pixels
    monkeypatch.setattr("fewlabel.data.squares.read_cell", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(opened(load_all(folder), tmp_path).batch(torch.arange(30)).pixels, first)
    with pytest.raises(pytest.fail.Exception):
        opened(source, tmp_path, side=6)


@pytest.mark.parametrize("mode", ["file"], indirect=True)
@pytest.mark.parametrize("damage", ["short", "long", "changed", "no record", "broken record", "gone"])
def test_a_damaged_cache_is_built_again(folder: Path, tmp_path: Path, mode: str, damage: str) -> None:
    source = load_all(folder)
    cache = tmp_path / "cache"
    expected = opened(source, cache).batch(torch.arange(30)).pixels
    (squares,), (record,) = cache.glob("*.bin"), cache.glob("*.json")
    content = squares.read_bytes()
    match damage:
        case "short":
            squares.write_bytes(content[:-5])
        case "long":
            squares.write_bytes(content + b"\0")
        case "changed":
            squares.write_bytes(b"\0" * len(content))
        case "no record":
            record.unlink()
        case "broken record":
            record.write_text("{")
        case "gone":
            squares.unlink()
    assert torch.equal(opened(source, cache).batch(torch.arange(30)).pixels, expected)
    assert squares.read_bytes() == content
    assert not list(cache.glob(".*"))


@pytest.mark.parametrize("mode", ["file"], indirect=True)
def test_a_changed_image_gets_another_file(folder: Path, tmp_path: Path, mode: str, encode: Encode) -> None:
    opened(load_all(folder), tmp_path / "cache")
    (folder / "a" / "p00-0.png").write_bytes(encode(np.zeros((12, 10, 3), np.uint8)))
    images = opened(load_all(folder), tmp_path / "cache")
    assert images.batch(torch.tensor([0])).pixels.sum() == 0
    assert len(list((tmp_path / "cache").glob("*.bin"))) == 2


def build(folder: Path, cache: Path, results: "multiprocessing.Queue[int]") -> None:
    store._MEMORY_LIMIT = 0  # type: ignore[misc]
    results.put(int(opened(load_all(folder), cache).batch(torch.arange(30)).pixels.sum()))


def test_processes_that_build_at_once_agree(folder: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[int] = context.Queue()
    processes = [context.Process(target=build, args=(folder, tmp_path / "cache", results)) for _ in range(3)]
    for process in processes:
        process.start()
    sums = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert len(sums) == 1
    assert len(list((tmp_path / "cache").glob("*.bin"))) == 1


@pytest.mark.parametrize("mode", ["file"], indirect=True)
def test_a_full_disk_leaves_no_half_file(
    folder: Path, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fewlabel.data.cache.SquareWriter.append", full)
    with pytest.raises(UserError, match=r"No space left on device.*Free some space"):
        opened(load_all(folder), tmp_path / "cache")
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".lock"}


@pytest.mark.parametrize("mode", MODES, indirect=True)
def test_depth_and_channels_are_the_source_s(tmp_path: Path, mode: str, encode: Encode) -> None:
    images = tmp_path / "images"
    images.mkdir()
    deep = np.random.default_rng(0).integers(0, 65536, (8, 8), dtype=np.uint16)
    (images / "0-deep.png").write_bytes(encode(deep))
    (images / "1-grey.png").write_bytes(encode(np.full((8, 8), 255, np.uint8)))
    (images / "2-colour.png").write_bytes(encode(np.full((8, 8, 3), (0, 1, 255), np.uint8)))
    held = opened(load_all(images), tmp_path / "cache")
    pixels = held.batch(torch.arange(3)).pixels
    assert (held.bits, held.channels) == (16, 3)
    assert pixels.dtype == torch.uint16
    np.testing.assert_array_equal(pixels[0].numpy(), np.stack([deep] * 3))
    assert (pixels[1].numpy() == 65535).all()
    assert pixels[2, :, 0, 0].tolist() == [0, 257, 65535]


@pytest.mark.parametrize("bits", [8, 16])
def test_mean_and_deviation_equal_those_of_all_pixels(tmp_path: Path, encode: Encode, bits: int) -> None:
    images = tmp_path / "images"
    images.mkdir()
    kind, white = (np.uint8, 255) if bits == 8 else (np.uint16, 65535)
    arrays = np.random.default_rng(0).integers(0, white // 3, (70, 6, 6)).astype(kind)
    for index, array in enumerate(arrays):
        (images / f"{index:03d}.png").write_bytes(encode(array))
    mean, deviation = mean_and_std(opened(load_all(images), tmp_path / "cache", side=6), seed=0)
    assert mean == pytest.approx([arrays.mean() / white])
    assert deviation == pytest.approx([arrays.std() / white])


def test_a_constant_channel_can_be_divided_by(tmp_path: Path, encode: Encode) -> None:
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(encode(np.full((6, 6, 3), (0, 128, 255), np.uint8)))
    mean, deviation = mean_and_std(opened(load_all(tmp_path), tmp_path / "cache", side=6), seed=0)
    assert mean == pytest.approx([0, 128 / 255, 1])
    assert min(deviation) == pytest.approx(1 / 255)


def test_a_missing_split_and_a_vanished_image(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = load_all(folder)
    with pytest.raises(UserError, match=r"no split 'val', only train.*--val-share"):
        open_store(source, "val", 8, cache_dir=tmp_path, workers=1, max_bad_share=0.1)
    monkeypatch.setattr(store, "_MEMORY_LIMIT", 0)
    monkeypatch.setattr(store, "_DISK_SHARE", 0.0)
    images = opened(source, tmp_path / "cache")
    (folder / images.ids[4]).unlink()
    with pytest.raises(UserError, match=r"a/p04-8\.png was readable .* No such file"):
        images.batch(torch.tensor([4]))


def test_a_cache_folder_that_is_a_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_MEMORY_LIMIT", 0)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="can't be written"):
        opened(load_all(folder), tmp_path / "file")


def test_bombs_are_bad_images_like_others(folder: Path) -> None:
    bomb = Image.new("1", (30_000, 30_000))
    bomb.save(folder / "a" / "bomb.png")
    assert (folder / "a" / "bomb.png").stat().st_size < 2**20
    source = load_all(folder)
    assert [bad.id for bad in source.bad] == ["a/bomb.png"]
    assert "megapixels" in source.bad[0].reason
    assert decode((folder / source["train"][0]["id"]).read_bytes()).shape == (12, 10, 3)
