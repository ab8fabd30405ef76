"""Several labels an image: from arrays, tables and hub sets to the store, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from fewlabel.data import Source, load, open_store, require_labels
from fewlabel.data.config import SourceConfig
from fewlabel.data.origin import column, labels_of
from fewlabel.errors import UserError

Write = Callable[..., None]
Encode = Callable[..., bytes]
Pixels = Callable[..., np.ndarray]


def by_id(source: Source) -> dict[str, list[int]]:
    found = {}
    for part in source.values():
        labels = labels_of(part)
        assert labels is not None
        found |= dict(zip(column(part, "id"), labels.tolist(), strict=True))
    return found


@pytest.fixture
def table(tmp_path: Path, write_images: Write) -> Callable[..., SourceConfig]:
    """A source of 12 images and a table of columns of their labels."""
    names = [f"{place:02d}.png" for place in range(12)]
    write_images(tmp_path, names)

    def write(ending: str = ".csv", label_column: str | None = None, **columns: list[Any]) -> SourceConfig:
        path = tmp_path / f"table{ending}"
        rows = datasets.Dataset.from_dict({"path": names, **columns})
        if ending == ".csv":
            rows.to_csv(path, index=False)
        else:
            rows.to_parquet(path)
        return SourceConfig(data=str(path), label_column=label_column or ",".join(columns))

    return write


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("no", "yes", "unknown"),
    [
        (0, 1, None),
        (0.0, 1.0, None),
        (0.0, 1.0, float("nan")),
        (False, True, None),
        ("No", "yes", None),
        ("0", "1", ""),
    ],
)
def test_columns_of_a_table_are_labels(
    table: Callable[..., SourceConfig], ending: str, no: Any, yes: Any, unknown: Any
) -> None:
    source = load(table(ending, effusion=[yes, no, no] * 4, edema=[no, yes, unknown] * 4))
    assert source.class_names == ["effusion", "edema"]
    assert source.multi_label
    expected = [[1, 0], [0, 1], [0, -1]] * 4
    assert by_id(source) == {f"{place:02d}.png": row for place, row in enumerate(expected)}
    assert require_labels(source) == ["effusion", "edema"]
    features = source["train"].features["label"]
    assert features == {name: datasets.ClassLabel(names=["no", "yes"]) for name in ("effusion", "edema")}


def test_a_store_holds_the_labels_and_knows_the_labelled(table: Callable[..., SourceConfig], tmp_path: Path) -> None:
    source = load(table(a=[1, None, 0] * 4, b=[None, None, 1] * 4))
    store = open_store(source, "train", 8, cache_dir=tmp_path, workers=1, max_bad_share=0)
    assert store.labels is not None
    expected = {place: [[1, -1], [-1, -1], [0, 1]][place % 3] for place in range(12)}
    assert store.labels.tolist() == [expected[int(name[:2])] for name in store.ids]
    assert store.labelled.tolist() == [place for place, name in enumerate(store.ids) if int(name[:2]) % 3 != 1]


def test_the_fingerprint_covers_each_label_and_not_the_order_of_the_columns(
    table: Callable[..., SourceConfig],
) -> None:
    split = ["train"] * 8 + ["val"] * 2 + ["test"] * 2

    def fingerprint(label_column: str, **columns: list[int | None]) -> str:
        return load(table(label_column=label_column, split=split, **columns)).fingerprint

    a, b, other = [0, 1] * 6, [1, 0, 0] * 4, [1, 0, None] * 4
    plain = fingerprint("a,b", a=a, b=b)
    assert fingerprint("b, a", a=a, b=b) == plain
    assert fingerprint("a,b", a=a, b=other) != plain
    assert fingerprint("a,b", a=b, b=a) != plain
    assert fingerprint("a,c", a=a, c=b) != plain


def test_a_column_whose_name_has_a_comma_is_one_column(table: Callable[..., SourceConfig]) -> None:
    source = load(table(label_column="a,b", **{"a,b": ["x", "y"] * 6, "a": [0, 1] * 6, "b": [0, 1] * 6}))
    assert source.class_names == ["x", "y"]
    assert not source.multi_label


@pytest.mark.parametrize(
    ("label_column", "columns", "message"),
    [
        ("a,b,a", {}, r"'a,b,a' names 'a' 2 times"),
        (
            "a,oedema",
            {"edema": [0, 1] * 6},
            r"'oedema' is no column of .*did you mean edema\? It has path, a, b, edema",
        ),
        ("a,b", {"b": [0, 2] * 6}, r"'b' of .* holds 2 \(row 2\).*0 or 1"),
        ("a,b", {"b": [0.0, -1.0] * 6}, r"holds -1.0 \(row 2\).*nothing where it is unknown"),
        ("a,b", {"b": ["no", "maybe"] * 6}, r"holds 'maybe'"),
        ("a,b", {"b": [None] * 12}, r"label column b is empty in every row"),
        ("a,b", {"a": [None] * 12, "b": [None] * 12}, r"label columns a, b are empty"),
    ],
)
def test_what_is_wrong_with_label_columns(
    table: Callable[..., SourceConfig], label_column: str, columns: dict[str, list[Any]], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load(table(".parquet", label_column, **({"a": [0, 1] * 6, "b": [1, 0] * 6} | columns)))


def test_labels_that_never_vary_are_not_enough(table: Callable[..., SourceConfig]) -> None:
    source = load(table(a=[1] * 12, b=[0] * 11 + [None]))
    with pytest.raises(UserError, match="none of the labels a, b is yes on some and no on others"):
        require_labels(source)


def test_npz_of_several_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"{split}_images": rng.integers(0, 256, (20, 6, 6), np.uint8) for split in ("train", "val", "test")}
    labels = {f"{split}_labels": rng.integers(0, 2, (20, 14), np.uint8) for split in ("train", "val", "test")}
    np.savez(tmp_path / "chestmnist.npz", **arrays, **labels)
    source = load(str(tmp_path / "chestmnist.npz"))
    assert source.class_names == [str(place) for place in range(14)]
    assert source.hints.views == "xray"
    for split, part in source.items():
        np.testing.assert_array_equal(labels_of(part), labels[f"{split}_labels"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"train": np.full((6, 3), 2)}, r"train_labels of shape \(6, 3\) holds 2"),
        ({"train": np.zeros((6, 3)) - 0.5}, "float64"),
        ({"train": np.zeros((6, 3), int), "test": np.zeros((6, 2), int)}, "3 in train, 2 in test"),
        ({"train": np.zeros((6, 3), int), "test": np.zeros((6, 1), int)}, "3 in train, 1 in test"),
    ],
)
def test_bad_npz_labels(tmp_path: Path, labels: dict[str, np.ndarray], message: str) -> None:
    images = {f"{split}_images": np.zeros((6, 5, 5), np.uint8) for split in labels}
    np.savez(tmp_path / "bad.npz", **images, **{f"{split}_labels": part for split, part in labels.items()})
    with pytest.raises(UserError, match=message):
        load(str(tmp_path / "bad.npz"))


def test_lists_of_classes_are_labels(tmp_path: Path, encode: Encode, random_image: Pixels) -> None:
    lists = [[0, 2], [], None, [1]] * 3
    features = datasets.Features(
        {"image": datasets.Image(), "findings": datasets.List(datasets.ClassLabel(names=["ant", "bee", "cat"]))}
    )
    images = [{"bytes": encode(random_image(seed)), "path": None} for seed in range(12)]
    part = datasets.Dataset.from_dict({"image": images, "findings": lists}, features=features)
    datasets.DatasetDict({"train": part}).save_to_disk(tmp_path / "saved")
    source = load(str(tmp_path / "saved"))
    assert source.class_names == ["ant", "bee", "cat"]
    expected = [[1, 0, 1], [0, 0, 0], [-1, -1, -1], [0, 1, 0]] * 3
    assert by_id(source) == {f"whole/{place:06d}": row for place, row in enumerate(expected)}

    # A column of one class an image comes first, unless the lists are asked for.
    both = part.add_column("kind", [0, 1] * 6, feature=datasets.ClassLabel(names=["x", "y"]))
    both.save_to_disk(tmp_path / "both")
    assert load(str(tmp_path / "both")).class_names == ["x", "y"]
    asked = load(SourceConfig(data=str(tmp_path / "both"), label_column="findings"))
    assert by_id(asked) == by_id(source)


def test_other_lists_are_left_out(table: Callable[..., SourceConfig], capsys: pytest.CaptureFixture[str]) -> None:
    assert load(table(".parquet", label=[["a", "b"], ["a"]] * 6)).class_names is None
    assert "--label-column a,b,c" in " ".join(capsys.readouterr().err.split())


def test_splits_are_stratified_by_the_rarest_label(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((600, 4)) < [0.5, 0.3, 0.05, 0.02]).astype(int)
    np.savez(tmp_path / "set.npz", train_images=rng.integers(0, 256, (600, 4, 4), np.uint8), train_labels=labels)
    source = load(str(tmp_path / "set.npz"))
    rarest = int(labels.sum(axis=0).argmin())
    for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        part = labels_of(source[split])
        assert part is not None
        assert len(part) == pytest.approx(600 * share, abs=1)
        assert part[:, rarest].sum() == pytest.approx(labels[:, rarest].sum() * share, abs=1.5)
        assert part.mean(axis=0) == pytest.approx(labels.mean(axis=0), abs=0.12)
