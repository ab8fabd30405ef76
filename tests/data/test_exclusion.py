"""Lists of images to leave out: which rows count, where they are found, and what a load makes of them."""

import hashlib
from pathlib import Path

import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest

from fewlabel.data import Source, load
from fewlabel.data.config import SourceConfig
from fewlabel.data.exclusion import count_reasons, list_beside
from fewlabel.data.origin import BadImage, column
from fewlabel.errors import UserError

PATHS = [f"{label}/{number:02d}.png" for label in ("cat", "dog, or 'wolf'") for number in range(15)]


@pytest.fixture
def photos(tmp_path, write_images) -> Path:
    write_images(tmp_path / "photos", PATHS)
    return tmp_path / "photos"


def contents_of(source: Source) -> dict[str, str]:
    return {
        identity: content.hex()
        for split, part in source.items()
        for identity, content in zip(column(part, "id"), source.contents[split], strict=True)
    }


def write_list(path: Path, contents: dict[str, str], reasons: dict[str, str]) -> Path:
    ids = list(contents)
    columns = {
        "id": ids,
        "content": list(contents.values()),
        "width": [12] * len(ids),
        "excluded_because": [reasons.get(identity) for identity in ids],
    }
    table = pyarrow.table(
        columns,
        schema=pyarrow.schema(
            [
                ("id", pyarrow.string()),
                ("content", pyarrow.string()),
                ("width", pyarrow.int64()),
                ("excluded_because", pyarrow.string()),
            ]
        ),
    )
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path)
    return path


def splits_of(source: Source) -> dict[str, str]:
    return {identity: split for split, part in source.items() for identity in column(part, "id")}


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_listed_images_are_left_out_and_no_other_changes_its_split(photos, tmp_path, ending, capfd) -> None:
    whole = load(str(photos))
    reasons = {"cat/03.png": "uniform: one grey", "dog, or 'wolf'/11.png": "truncated: at byte 9"}
    path = write_list(tmp_path / f"list{ending}", contents_of(whole), reasons)
    source = load(SourceConfig(data=str(photos), exclude=str(path)))
    expected = {identity: split for identity, split in splits_of(whole).items() if identity not in reasons}
    assert splits_of(source) == expected
    assert source.excluded == [BadImage(identity, reason) for identity, reason in sorted(reasons.items())]
    assert source.exclusion is not None
    assert source.exclusion.path == path
    assert source.fingerprint != whole.fingerprint
    # As if they had never been there, but for the division.
    for split, part in source.items():
        assert len(part) == len(source.contents[split])
    assert "leaves out 2 of 30 images of photos: 1 truncated, 1 uniform" in " ".join(capfd.readouterr().err.split())


def test_a_list_beside_the_source_is_found_and_can_be_ignored(photos, tmp_path, monkeypatch) -> None:
    whole = load(str(photos))
    write_list(tmp_path / "photos.exclude.csv", contents_of(whole), {"cat/03.png": "blurred"})
    assert [image.id for image in load(str(photos)).excluded] == ["cat/03.png"]
    assert [image.id for image in load(f"{photos}/").excluded] == ["cat/03.png"]
    monkeypatch.chdir(photos)
    assert [image.id for image in load(".").excluded] == ["cat/03.png"]
    ignored = load(SourceConfig(data=str(photos), exclude="none"))
    assert (ignored.excluded, ignored.exclusion) == ([], None)
    assert ignored.fingerprint == whole.fingerprint


def test_where_a_list_lies(tmp_path) -> None:
    (tmp_path / "set.npz").touch()
    (tmp_path / "photos").mkdir()
    (tmp_path / "other").symlink_to(tmp_path / "photos")
    assert list_beside(str(tmp_path / "set.npz")) == tmp_path / "set.npz.exclude.csv"
    assert list_beside(str(tmp_path / "other")) == tmp_path / "photos.exclude.csv"
    assert list_beside("hf:owner/name") is None


def test_a_changed_image_is_told_and_used(photos, tmp_path, encode, random_image, capfd) -> None:
    path = write_list(tmp_path / "list.csv", contents_of(load(str(photos))), dict.fromkeys(PATHS[:3], "blurred"))
    (photos / PATHS[1]).write_bytes(encode(random_image(99)))
    source = load(SourceConfig(data=str(photos), exclude=str(path)))
    assert [image.id for image in source.excluded] == [PATHS[0], PATHS[2]]
    assert PATHS[1] in splits_of(source)
    assert f"have changed since it was made, and are used: {PATHS[1]}" in " ".join(capfd.readouterr().err.split())


def test_unreadable_images_on_the_list_do_not_count_as_bad(photos, tmp_path) -> None:
    contents = contents_of(load(str(photos)))
    for path in PATHS[:3]:
        (photos / path).write_bytes(b"no image")
    (photos / "cat/gone.png").symlink_to(photos / "nowhere.png")
    with pytest.raises(UserError, match=r"4 of 31 images of photos can't be read"):
        load(str(photos))
    broken = dict.fromkeys(PATHS[:3], hashlib.blake2b(b"no image", digest_size=16).hexdigest())
    contents |= broken | {"cat/gone.png": ""}
    path = write_list(tmp_path / "list.csv", contents, dict.fromkeys([*broken, "cat/gone.png"], "undecodable"))
    source = load(SourceConfig(data=str(photos), exclude=str(path)))
    assert (len(source.bad), len(source.excluded)) == (0, 4)


def test_a_list_of_another_source_is_refused_naming_both(photos, tmp_path, write_images) -> None:
    write_images(tmp_path / "others", [f"x/{path}" for path in PATHS])
    path = write_list(tmp_path / "list.csv", contents_of(load(str(tmp_path / "others"))), {})
    with pytest.raises(UserError, match=r"list\.csv is a list for another source than photos.*names x/cat.*cat/00"):
        load(SourceConfig(data=str(photos), exclude=str(path)))
    # The same names with other images are another source too.
    changed = dict.fromkeys(contents_of(load(str(photos))), "00" * 16)
    with pytest.raises(UserError, match=r"none is there as it was \(cat/00\.png has changed\)"):
        load(SourceConfig(data=str(photos), exclude=str(write_list(tmp_path / "same.csv", changed, {}))))


def test_ids_that_look_like_numbers_or_break_lines(tmp_path, encode, random_image) -> None:
    folder = tmp_path / "named"
    folder.mkdir()
    for number, name in enumerate(["007.png", "7.png", "8.png", "NA.png", "a\nb.png", "a,b.png", '"c".png']):
        (folder / name).write_bytes(encode(random_image(number)))
    whole = load(SourceConfig(data=str(folder), val_share=0, test_share=0))
    reasons = dict.fromkeys(["007.png", "NA.png", "a\nb.png", "a,b.png", '"c".png'], "dark")
    path = write_list(tmp_path / "list.csv", contents_of(whole), reasons)
    source = load(SourceConfig(data=str(folder), val_share=0, test_share=0, exclude=str(path)))
    assert {image.id: image.reason for image in source.excluded} == reasons


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file"),
        (b"id,content\na,b\n", "excluded_because"),
        (b"\xff\xfe\x00", "can't be read as a list"),
        (b"id,content,excluded_because\na,,x\na,,y\n", "lists a 2 times"),
    ],
)
def test_what_is_no_list_is_refused(photos, tmp_path, content, message) -> None:
    path = tmp_path / "list.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load(SourceConfig(data=str(photos), exclude=str(path)))
    with pytest.raises(UserError, match=r"ends in \.csv or \.parquet"):
        load(SourceConfig(data=str(photos), exclude=str(tmp_path / "list.txt")))


def test_leaving_out_everything_is_refused(photos, tmp_path) -> None:
    contents = contents_of(load(str(photos)))
    path = write_list(tmp_path / "list.csv", contents, dict.fromkeys(contents, "blurred"))
    with pytest.raises(UserError, match=r"0 readable images beside the 30 that a list leaves out"):
        load(SourceConfig(data=str(photos), exclude=str(path)))


def test_a_list_without_rows_leaves_nothing_out(photos, tmp_path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("id,content,excluded_because\n")
    assert load(SourceConfig(data=str(photos), exclude=str(path))).excluded == []


def test_kinds_are_counted_by_what_stands_before_the_colon() -> None:
    assert count_reasons(["dark: 0.1", "uniform: a: b", "dark: 0.2"]) == {"dark": 2, "uniform": 1}


def test_a_record_names_the_list_by_its_absolute_path(photos, tmp_path, monkeypatch) -> None:
    (tmp_path / "list.csv").touch()
    monkeypatch.chdir(tmp_path)
    config = SourceConfig(data="photos", exclude="list.csv").resolved()
    assert (config.data, config.exclude) == (str(photos), str(tmp_path / "list.csv"))
    (tmp_path / "none").touch()
    assert SourceConfig(data="photos", exclude="none").resolved().exclude == "none"
