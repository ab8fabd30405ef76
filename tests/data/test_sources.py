"""Every kind of source, and what is wrong with bad ones."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest

from fewlabel.data import Source, load, require_labels
from fewlabel.data.config import SourceConfig
from fewlabel.data.names import CLASSICS
from fewlabel.data.origin import Hints, column
from fewlabel.errors import UserError

Encode = Callable[..., bytes]
Write = Callable[..., None]
Pixels = Callable[..., np.ndarray]


def all_ids(source: Source) -> set[str]:
    return {identity for part in source.values() for identity in column(part, "id")}


def labels_of(source: Source) -> dict[str, int]:
    return {
        identity: label
        for part in source.values()
        for identity, label in zip(column(part, "id"), column(part, "label"), strict=True)
    }


def test_configuration_imports_nothing_heavy() -> None:
    code = (
        "import sys, fewlabel.data.config, fewlabel.data; "
        "print([name for name in ('torch', 'datasets', 'numpy', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_of_the_room_can_be_had() -> None:
    from fewlabel import data

    assert all(hasattr(data, name) for name in data.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        data.nothing  # noqa: B018


def test_digits_are_the_real_ones() -> None:
    from sklearn.datasets import load_digits

    source = load("digits")
    assert {split: len(part) for split, part in source.items()} == {"train": 1258, "val": 180, "test": 359}
    assert source.hints == Hints(image_size=12, views="digits", epochs=6)
    assert (source.channels, source.bits, source.median_side) == (1, 8, 8)
    assert source.class_names == [str(digit) for digit in range(10)]
    row = source["train"][0]
    position = int(row["id"].removeprefix("digits/"))
    digits = load_digits()
    assert row["label"] == digits.target[position]
    expected = np.rint(digits.images[position] * 255 / 16)
    np.testing.assert_array_equal(np.asarray(row["image"]), expected)


def test_class_folders(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path / "pets", [f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(10)])
    (tmp_path / "pets" / "notes.txt").write_text("passed over")
    (tmp_path / "pets" / "cat" / "._0.png").write_bytes(b"macOS double")
    source = load(str(tmp_path / "pets"))
    assert source.class_names == ["cat", "dog"]
    assert source.name == "pets"
    assert not source.bad
    assert labels_of(source) == {f"{k}/{i}.png": n for n, k in enumerate(("cat", "dog")) for i in range(10)}
    assert list(source) == ["train", "val", "test"]
    assert all(column(part, "id") == sorted(column(part, "id")) for part in source.values())
    assert source["train"][0]["image"].size == (10, 12)


def test_split_folders_are_kept_and_missing_splits_come_from_train(tmp_path: Path, write_images: Write) -> None:
    paths = [f"{split}/{kind}/{i}.png" for split in ("Training", "test") for kind in "ab" for i in range(10)]
    write_images(tmp_path, [*paths, "unlabelled/x/1.png", "other/2.png"])
    source = load(str(tmp_path))
    assert set(column(source["test"], "id")) == {path for path in paths if path.startswith("test")}
    assert len(source["val"]) == 2
    assert all(identity.startswith("Training/") for identity in column(source["val"], "id"))
    assert labels_of(source)["unlabelled/x/1.png"] == -1
    assert "unlabelled/x/1.png" in column(source["train"], "id")
    assert "other/2.png" not in all_ids(source)
    assert require_labels(source) == ["a", "b"]


def test_train_and_validation_folders_leave_the_test_split_to_train(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path, [f"{split}/{k}/{i}.png" for split in ("train", "valid") for k in "ab" for i in range(5)])
    source = load(str(tmp_path))
    assert all(identity.startswith("valid/") for identity in column(source["val"], "id"))
    assert len(source["val"]) == 10
    assert all(identity.startswith("train/") for identity in column(source["test"], "id"))


@pytest.mark.parametrize(
    "paths",
    [
        [f"{i}.png" for i in range(6)],
        [f"2019/05/{i}.png" for i in range(3)] + [f"2020/06/{i}.png" for i in range(3)],
        [f"all/{i}.png" for i in range(6)],
        ["top.png"] + [f"{kind}/{i}.png" for kind in "ab" for i in range(3)],
    ],
    ids=["flat", "nested", "single", "mixed"],
)
def test_other_folders_are_unlabelled(tmp_path: Path, write_images: Write, paths: list[str]) -> None:
    write_images(tmp_path, paths)
    source = load(str(tmp_path))
    assert all_ids(source) == set(paths)
    assert source.class_names is None
    assert "label" not in source["train"].column_names
    with pytest.raises(UserError, match=r"no labels.*sub-folder"):
        require_labels(source)


def test_linked_folders_are_followed_once(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path / "real", [f"{i}.png" for i in range(5)])
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real")
    assert all_ids(load(str(tmp_path / "source"))) == {f"link/{i}.png" for i in range(5)}


@pytest.mark.parametrize("shape", [(20, 7, 9), (20, 7, 9, 3), (20, 7, 9, 1)])
def test_npz(tmp_path: Path, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"{split}_images": rng.integers(0, 256, shape, np.uint8) for split in ("train", "val", "test")}
    labels = {f"{split}_labels": rng.permutation(np.arange(20) % 4)[:, None] for split in ("train", "val", "test")}
    np.savez(tmp_path / "pneumoniamnist_64.npz", **arrays, **labels)
    source = load(str(tmp_path / "pneumoniamnist_64.npz"))
    assert {split: len(part) for split, part in source.items()} == {"train": 20, "val": 20, "test": 20}
    assert source.channels == (3 if shape[-1] == 3 else 1)
    assert source.hints.views == "xray"
    assert source.median_side == 7
    row = source["val"][3]
    assert row["id"] == "val/000003"
    assert row["label"] == labels["val_labels"][3, 0]
    np.testing.assert_array_equal(np.asarray(row["image"]), arrays["val_images"][3].squeeze())


def test_an_npz_that_unpacks_to_more_than_memory_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", train_images=np.zeros((64, 256, 256), np.uint8))
    assert (tmp_path / "bomb.npz").stat().st_size < 2**16
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 2**10, "SC_PAGE_SIZE": 2**10}.__getitem__)
    with pytest.raises(UserError, match=r"train_images\.npy unpacks to .* memory here"):
        load(str(tmp_path / "bomb.npz"))


def test_npz_of_16_bits_without_labels(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 65536, (10, 6, 6), np.uint16)
    np.savez(tmp_path / "deep.npz", train_images=images)
    source = load(str(tmp_path / "deep.npz"))
    assert (source.bits, source.channels, source.class_names) == (16, 1, None)
    np.testing.assert_array_equal(np.asarray(source["test"][0]["image"]), images[int(source["test"][0]["id"][-6:])])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((4, 5, 5), np.uint8)}, "train_images"),
        ({"train_images": np.zeros((4, 5, 5), np.float32)}, "float32"),
        ({"train_images": np.zeros((4, 5, 5, 5), np.uint8)}, "expected greyscale"),
        (
            {"train_images": np.zeros((4, 5, 5), np.uint8), "train_labels": np.zeros(3, int)},
            "4 train_images but 3",
        ),
        ({"train_images": np.array([{"pickled": 1}])}, "allow_pickle"),
    ],
)
def test_bad_npz(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match=message):
        load(str(tmp_path / "bad.npz"))
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(UserError, match=r"can't be read as an \.npz"):
        load(str(tmp_path / "text.npz"))


def write_table(path: Path, rows: dict[str, list[object]]) -> None:
    table = datasets.Dataset.from_dict(rows)
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
    else:
        table.to_parquet(path)


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_tables_of_paths(tmp_path: Path, write_images: Write, ending: str) -> None:
    names = [f"images/{i:02d}.png" for i in range(12)]
    write_images(tmp_path, names)
    classes = ["benign", "NA", "benign", None] * 3
    rows = {
        "Filename": [*names[:11], str(tmp_path / names[11])],
        "class": classes,
        "patient_id": [f"p{i // 2}" for i in range(12)],
    }
    write_table(tmp_path / f"list{ending}", rows)  # type: ignore[arg-type]
    source = load(str(tmp_path / f"list{ending}"))
    assert source.class_names == ["NA", "benign"]
    numbers = [{"NA": 0, "benign": 1, None: -1}[label] for label in classes]
    assert labels_of(source) == dict(zip(names, numbers, strict=True))
    groups = {s: set(column(part, "group")) for s, part in source.items()}
    assert not groups["train"] & groups["test"]
    assert set.union(*groups.values()) == {f"p{i}" for i in range(6)}


@pytest.mark.parametrize("form", ["bytes", "struct", "hub"])
def test_parquet_of_encoded_images(tmp_path: Path, encode: Encode, random_image: Pixels, form: str) -> None:
    encoded = [encode(random_image(i)) for i in range(10)]
    cells = encoded if form == "bytes" else [{"bytes": content, "path": None} for content in encoded]
    table = datasets.Dataset.from_dict({"picture": cells, "y": [5, 3] * 5, "split": ["train"] * 8 + ["val"] * 2})
    if form == "hub":
        table = table.cast_column("picture", datasets.Image())
    table.to_parquet(tmp_path / "set.parquet")
    config = SourceConfig(data=str(tmp_path / "set.parquet"), image_column="picture")
    source = load(config)
    assert source.class_names == ["3", "5"]
    assert column(source["val"], "id") == ["val/000000", "val/000001"]
    np.testing.assert_array_equal(np.asarray(source["val"][1]["image"]), random_image(9))


def test_table_errors(tmp_path: Path, write_images: Write) -> None:
    names = [f"{i}.png" for i in range(8)]
    write_images(tmp_path, names)
    write_table(tmp_path / "a.csv", {"scan": names, "score": [0.5 + i for i in range(8)]})  # type: ignore[arg-type]
    data = str(tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"known to hold images; it has scan, score.*--image-column"):
        load(data)
    with pytest.raises(UserError, match=r"--label-column 'diagnosis' is no column .* scan, score"):
        load(SourceConfig(data=data, image_column="scan", label_column="diagnosis"))
    with pytest.raises(UserError, match="holds float values"):
        load(SourceConfig(data=data, image_column="scan", label_column="score"))
    with pytest.raises(UserError, match=r"is .*float.*, but images are paths"):
        load(SourceConfig(data=data, image_column="score"))
    write_table(tmp_path / "b.csv", {"path": [*names, "0.png"]})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"lists 0\.png 2 times"):
        load(str(tmp_path / "b.csv"))
    (tmp_path / "c.parquet").write_text("no table")
    with pytest.raises(UserError, match=r"can't be read as a \.parquet table"):
        load(str(tmp_path / "c.parquet"))
    write_table(tmp_path / "d.csv", {"path": ["away/1.png", "away/2.png"]})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"2 of 2 images .*\n  away/1\.png: No such file"):
        load(str(tmp_path / "d.csv"))


def test_group_pattern(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path, [f"patient{i}_{view}.png" for i in range(10) for view in "ab"])
    config = SourceConfig(data=str(tmp_path), group_pattern=r"patient(\d+)")
    source = load(config)
    groups = {split: set(column(part, "group")) for split, part in source.items()}
    assert sum(map(len, groups.values())) == 10
    assert column(source["test"], "group") == [
        i.split("_")[0].removeprefix("patient") for i in column(source["test"], "id")
    ]
    with pytest.raises(UserError, match=r"matches 2 of 20 images .*patient1_a"):
        load(SourceConfig(data=str(tmp_path), group_pattern="patient(0)"))
    with pytest.raises(UserError, match="too few groups"):
        load(SourceConfig(data=str(tmp_path), group_pattern="(patient)"))


def test_groups_torn_by_the_source_and_repeated_images_are_reported(
    tmp_path: Path, write_images: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path, [f"{split}/p{i}.png" for split in ("train", "val", "test") for i in range(4)])
    shutil.copy(tmp_path / "train/p0.png", tmp_path / "test/p9.png")
    load(SourceConfig(data=str(tmp_path), group_pattern=r"/(p\d)"))
    said = " ".join(capsys.readouterr().err.split())
    assert "4 groups are both in train and in val" in said
    assert "1 equal images are both in train and in test" in said


def test_fingerprint_follows_content_and_nothing_else(tmp_path: Path, write_images: Write) -> None:
    names = [f"{kind}/{i}.png" for kind in "ab" for i in range(5)]
    for place in ("one", "two"):
        write_images(tmp_path / place / "set", names)
    one, two = (load(str(tmp_path / place / "set")).fingerprint for place in ("one", "two"))
    assert one == two
    (tmp_path / "two" / "set" / "a" / "0.png").touch()
    assert load(str(tmp_path / "two" / "set")).fingerprint == one
    assert load(SourceConfig(data=str(tmp_path / "two" / "set"), split_seed=1)).fingerprint != one
    shutil.move(tmp_path / "two/set/a/0.png", tmp_path / "two/set/b/00.png")
    assert load(str(tmp_path / "two" / "set")).fingerprint != one
    shutil.copy(tmp_path / "one/set/a/1.png", tmp_path / "one/set/a/0.png")
    assert load(str(tmp_path / "one" / "set")).fingerprint != one


def test_one_colour_or_deep_image_makes_the_source_so(tmp_path: Path, write_images: Write, encode: Encode) -> None:
    write_images(tmp_path, [f"{i}.png" for i in range(5)], channels=1)
    assert (load(str(tmp_path)).channels, load(str(tmp_path)).bits) == (1, 8)
    (tmp_path / "deep.tif").write_bytes(encode(np.zeros((9, 9), np.uint16), "TIFF"))
    (tmp_path / "colour.jpg").write_bytes(encode(np.zeros((9, 9, 3), np.uint8), "JPEG"))
    assert (load(str(tmp_path)).channels, load(str(tmp_path)).bits) == (3, 16)


def test_bad_images_are_named_skipped_and_kept(
    tmp_path: Path, write_images: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path, [f"{i:02d}.png" for i in range(30)])
    (tmp_path / "text.jpg").write_text("a text file named .jpg")
    source = load(str(tmp_path))
    assert [image.id for image in source.bad] == ["text.jpg"]
    assert "not an image" in source.bad[0].reason
    assert sum(map(len, source.values())) == 30
    assert (tmp_path / "text.jpg").exists()
    assert "1 of 31 images" in capsys.readouterr().err
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"2 of 32 images .*5\.0% allowed:\n  empty\.jpg: .*\n  text\.jpg: "):
        load(str(tmp_path))
    assert len(load(SourceConfig(data=str(tmp_path), max_bad_share=0.1)).bad) == 2


def test_what_can_not_be_a_source(tmp_path: Path, write_images: Write) -> None:
    with pytest.raises(UserError, match=r"no file or folder '/none/such'.*cifar10"):
        load("/none/such")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no images \(it is empty\)"):
        load(str(tmp_path / "empty"))
    (tmp_path / "empty" / "scan.mha").write_text("x")
    with pytest.raises(UserError, match=r"only 1 \.mha.*\.jpg"):
        load(str(tmp_path / "empty"))
    write_images(tmp_path / "single", ["0.png"])
    with pytest.raises(UserError, match="1 readable image; a source needs at least 4"):
        load(str(tmp_path / "single"))
    (tmp_path / "table.txt").write_text("x")
    with pytest.raises(UserError, match=r"no folder, \.npz file or table"):
        load(str(tmp_path / "table.txt"))


def test_splits_of_no_share_are_not_made(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path, ["0.png", "1.png"])
    source = load(SourceConfig(data=str(tmp_path), val_share=0, test_share=0))
    assert {split: len(part) for split, part in source.items()} == {"train": 2}


def test_labels_of_one_class_are_not_enough(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path, [f"{k}/{i}.png" for k in ("a", "unlabelled") for i in range(8)])
    source = load(str(tmp_path))
    assert set(column(source["train"], "label")) == {0, -1}
    with pytest.raises(UserError, match="all of one class"):
        require_labels(source)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_share": 0.5, "test_share": 0.5}, "leave nothing"),
        ({"test_share": -0.1}, "--test-share is -0.1"),
        ({"max_bad_share": 1.5}, "--max-bad-share"),
        ({"workers": 0}, "--workers is 0"),
        ({"group_pattern": "("}, "no regular expression"),
        ({"group_pattern": "patient"}, "no group"),
        ({"group_pattern": "(a)", "group_column": "b"}, "give one of them"),
    ],
)
def test_configuration_is_checked_at_once(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SourceConfig(**options)  # type: ignore[arg-type]


def test_an_existing_path_comes_before_a_name(
    tmp_path: Path, write_images: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "mnist", [f"{i}.png" for i in range(5)])
    monkeypatch.chdir(tmp_path)
    assert all_ids(load("mnist")) == {f"{i}.png" for i in range(5)}


def test_classic_names_are_complete() -> None:
    medical = "path chest derma oct pneumonia retina breast blood tissue organa organc organs"
    others = "mnist cifar10 cifar100 food101 stanford_dogs tf_flowers cats_vs_dogs"
    assert set(CLASSICS) == {f"{name}mnist" for name in medical.split()} | set(others.split())
    assert {home.hints.views for home in CLASSICS.values()} == {
        "digits", "natural", "histology", "xray", "dermoscopy", "fundus",
    }  # fmt: skip
