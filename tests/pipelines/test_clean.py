"""`fewlabel clean` from end to end: what it finds, that it changes nothing unasked, and what it does when asked."""

import csv
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from fewlabel.__main__ import main
from fewlabel.backbones.encoder import save_encoder
from fewlabel.backbones.registry import create
from fewlabel.data import load
from fewlabel.data.config import SourceConfig
from fewlabel.data.origin import column


def picture(seed: int) -> Image.Image:
    """Coarse random patches under fine grain: like a photo, unlike any other."""
    generator = np.random.default_rng(seed)
    patches = Image.fromarray(generator.integers(40, 216, (6, 6), dtype=np.uint8)).resize((48, 48), Image.BICUBIC)
    grain = generator.integers(-12, 13, (48, 48))
    return Image.fromarray((np.asarray(patches, int) + grain).clip(0, 255).astype(np.uint8))


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two classes of 20 sound images each, and of each fault one more."""
    root = tmp_path / "photos"
    for number in range(40):
        folder = root / ("cat" if number < 20 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / f"{number:02d}.png")
    (root / "cat/empty.png").touch()
    (root / "cat/text.png").write_text("no image at all")
    whole = (root / "dog/20.png").read_bytes()
    (root / "dog/truncated.png").write_bytes(whole[: len(whole) // 2])
    Image.new("L", (48, 48), 90).save(root / "dog/uniform.png")
    shutil.copy(root / "cat/00.png", root / "cat/00 copy.png")
    shutil.copy(root / "cat/01.png", root / "dog/01 elsewhere.png")
    picture(99).filter(ImageFilter.GaussianBlur(3)).save(root / "cat/blurred.png")
    return root


OUT = {
    "cat/empty.png": "empty",
    "cat/text.png": "undecodable",
    "dog/truncated.png": "truncated",
    "dog/uniform.png": "uniform",
}
"""Left out whatever the splits; of the copies it depends on them which one goes."""


def state(root: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def clean(capfd, *arguments) -> dict:
    capfd.readouterr()
    assert main(["clean", *map(str, arguments), "--json"]) == 0
    result: dict = json.loads(capfd.readouterr().out)
    return result


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def reasons_in(path: Path) -> dict[str, str]:
    return {identity: row["excluded_because"] for identity, row in rows_of(path).items() if row["excluded_because"]}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The working folder, where runs go."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_it_finds_what_is_wrong_and_changes_nothing(photos, here, capfd):
    before = state(photos)
    result = clean(capfd, photos)
    assert state(photos) == before
    assert [path.name for path in photos.parent.iterdir() if path not in (photos, here)] == []
    found = result["findings"]
    assert {kind: found.get(kind) for kind in set(OUT.values())} == dict.fromkeys(OUT.values(), 1)
    assert (found["exact_duplicate"], found["label_conflict"], found["blurred"]) == (4, 2, 1)
    assert result["metrics"]["images"] == 47
    assert result["metrics"]["left_out"] == 7
    run = here / "runs" / result["run"]
    manifest = rows_of(run / "manifest.csv")
    assert len(manifest) == 47
    reasons = reasons_in(run / "manifest.csv")
    assert {identity: reasons[identity].partition(":")[0] for identity in OUT} == OUT
    # Both of the copies with different labels go, and one of those with the same.
    assert {"cat/01.png", "dog/01 elsewhere.png"} <= reasons.keys()
    assert len({"cat/00.png", "cat/00 copy.png"} & reasons.keys()) == 1
    assert manifest["cat/blurred.png"]["severity"] == "warning"
    page = (run / "report.html").read_text()
    assert "Of the 47 images of photos, 7 (14.9%) are better left out" in page
    assert page.count("<img") >= 8 + 6
    for word in ("http:", "https:", "<script"):
        assert word not in page
    config = json.loads((run / "config.json").read_text())
    assert config["config"]["source"]["data"] == str(photos)
    assert config["source"]["fingerprint"]


def test_the_terminal_says_it_in_words(photos, here, capfd):
    assert main(["clean", "--data", str(photos)]) == 0
    told = capfd.readouterr()
    assert "label" in told.out
    assert "exact duplicates" in told.out
    assert "Of the 47 images of photos, 7 (14.9%) are better left out" in told.err
    assert "Nothing was changed. To leave these images out of every command, add --apply exclude" in told.err


def test_the_list_is_what_every_command_leaves_out(photos, here, capfd, trained, pretrain):
    result = clean(capfd, photos, "--apply", "exclude")
    path = photos.with_name("photos.exclude.csv")
    assert result["exclusion"] == str(path)
    reasons = reasons_in(path)
    assert len(rows_of(path)) == 47
    source = load(str(photos))
    assert {image.id: image.reason for image in source.excluded} == reasons
    assert source.bad == []
    # The manifest says the same.
    again = load(SourceConfig(data=str(photos), exclude=str(here / "runs" / result["run"] / "manifest.parquet")))
    assert again.excluded == source.excluded
    assert again.fingerprint == source.fingerprint
    commands = {
        "pretrain": lambda out: pretrain("--data", photos, "--max-steps", 1, "--out", out),
        "probe": lambda out: main(
            ["probe", "--data", str(photos), "--encoder", str(trained), "--labels", "1.0", "--out", str(out)]
        ),
        "index": lambda out: main(
            ["index", "build", "--data", str(photos), "--encoder", str(trained), "--out", str(out)]
        ),
    }
    for command, start in commands.items():
        out = here / command
        assert start(out) == 0, command
        about = json.loads((out / "config.json").read_text())["source"]
        assert about["fingerprint"] == source.fingerprint
        assert about["exclusion"]["list"] == str(path)
        assert about["exclusion"]["images"] == len(reasons)
        assert {row["reason"]: row["images"] for row in about["excluded_because"]} == result["left_out_because"]
        with (out / "left_out.csv").open(newline="") as file:
            left_out = {row["id"]: (row["cause"], row["reason"]) for row in csv.DictReader(file)}
        assert left_out == {identity: ("excluded", reason) for identity, reason in reasons.items()}
    # To look again is not misled by the list, and doesn't replace it unasked.
    assert clean(capfd, photos)["metrics"]["left_out"] == 7
    assert main(["clean", str(photos), "--apply", "exclude"]) == 2
    assert "photos.exclude.csv exists" in capfd.readouterr().err
    chosen = ("--apply", "exclude", "--overwrite", "--exclude-kinds", "blurred", "empty")
    assert clean(capfd, photos, *chosen)["left_out_because"] == {"blurred": 1, "empty": 1}
    assert reasons_in(path).keys() == {"cat/blurred.png", "cat/empty.png"}


def test_there_and_back_again(photos, here, capfd):
    before = state(photos)
    result = clean(capfd, photos, "--apply", "quarantine")
    moved = result["quarantine"]
    assert (len(moved["moved"]), moved["refused"]) == (7, [])
    log = Path(moved["log"])
    assert log.parent == photos.with_name("photos.quarantine")
    assert len(state(photos)) == len(before) - 7
    assert clean(capfd, photos)["metrics"]["left_out"] == 0
    # Pictures of what was moved are in the report all the same.
    assert "left out" in (here / "runs" / result["run"] / "report.html").read_text()
    undone = clean(capfd, "--undo", log)
    assert (sorted(undone["restored"]), undone["refused"]) == (sorted(moved["moved"]), [])
    assert state(photos) == before


def test_an_undo_that_can_not_restore_all_says_which(photos, here, capfd):
    before = state(photos)
    log = clean(capfd, photos, "--apply", "quarantine")["quarantine"]["log"]
    changed = Path(log).with_suffix("") / "cat/text.png"
    changed.write_text("changed since")
    assert main(["clean", "--undo", log]) == 2
    told = " ".join(capfd.readouterr().err.split())
    assert "Moved back: 6 files" in told
    assert "'cat/text.png': it was changed in the quarantine" in told
    assert state(photos) == {name: file for name, file in before.items() if name != "cat/text.png"}


def test_cleaned_copies(photos, here, tmp_path, capfd):
    before = state(photos)
    out = tmp_path / "copies"
    options = ("--convert", out, "--convert-mode", "rgb", "--longest-side", 24)
    result = clean(capfd, photos, *options)
    assert result["copies"] == {"table": str(out / "images.csv"), "written": 40, "failed": []}
    assert state(photos) == before
    source = load(str(out / "images.csv"))
    assert (source.channels, source.median_side, sum(map(len, source.values()))) == (3, 24, 40)
    assert source.class_names == ["cat", "dog"]


def test_an_encoder_finds_what_it_can_not_tell_apart(photos, here, tmp_path, capfd):
    torch.manual_seed(0)
    backbone = create("timm/test_resnet", image_size=32, in_chans=1)
    encoder = save_encoder(tmp_path / "encoder", backbone, mean=(0.4,), std=(0.3,), bits=8, provenance={})
    found = clean(capfd, photos, "--encoder", encoder, "--semantic", "0.01")["findings"]
    # Untrained, and at so low a threshold, it tells nothing apart.
    assert found["semantic_duplicate"] >= 40
    strict = clean(capfd, photos, "--encoder", encoder, "--semantic", "1.0")["findings"]
    assert strict.get("semantic_duplicate", 0) < 40
    assert "semantic_duplicate" not in clean(capfd, photos)["findings"]


def test_where_every_file_is_broken_it_still_reports(tmp_path, here, capfd):
    for number in range(3):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / f"photos/{number}.jpg").write_bytes(random.Random(number).randbytes(100))
    result = clean(capfd, tmp_path / "photos")
    assert result["findings"] == {"undecodable": 3}
    assert result["source"]["fingerprint"] is None
    page = (here / "runs" / result["run"] / "report.html").read_text()
    assert "Of the 3 images of photos, 3 (100.0%) are better left out" in page
    assert "Too few of the images can be read" in page


def test_nothing_conspicuous_is_said_so(tmp_path, here, write_images, capfd):
    folder = tmp_path / "plain"
    folder.mkdir()
    for number in range(12):
        picture(number).save(folder / f"{number}.png")
    result = clean(capfd, folder)
    assert result["findings"] == {}
    page = (here / "runs" / result["run"] / "report.html").read_text()
    assert "Nothing conspicuous was found in the 12 images of plain." in page


def test_other_kinds_of_sources(tmp_path, here, capfd, refused):
    images = np.stack([np.asarray(picture(number)) for number in [*range(12), 3]])
    np.savez(tmp_path / "set.npz", train_images=images, train_labels=np.arange(13) % 2)
    result = clean(capfd, tmp_path / "set.npz", "--apply", "exclude")
    assert result["findings"]["exact_duplicate"] == 2
    assert result["exclusion"] == str(tmp_path / "set.npz.exclude.csv")
    left = load(str(tmp_path / "set.npz"))
    assert sum(map(len, left.values())) == 12 if "label_conflict" not in result["findings"] else 11
    assert "Only files of a folder can be moved" in refused("clean", tmp_path / "set.npz", "--apply", "quarantine")
    copies = clean(capfd, tmp_path / "set.npz", "--convert", tmp_path / "copies")
    assert copies["copies"]["written"] == 13 - copies["metrics"]["left_out"]


def test_links_loops_and_strange_names(photos, here, tmp_path, capfd):
    (photos / "loop").symlink_to(photos)
    (photos / "cat/self.png").symlink_to("self.png")
    (photos / "cat/gone.png").symlink_to("nowhere.png")
    Path(os.fsdecode(os.fsencode(photos) + b"/cat/\xff\xfe.png")).write_bytes((photos / "cat/02.png").read_bytes())
    (photos / "dog/a\nb [x] 'y'.png").write_bytes((photos / "dog/21.png").read_bytes()[:99])
    shutil.copy(photos / "cat/03.png", photos / "cat/photo.dat")
    before = state(photos)
    result = clean(capfd, photos, "--apply", "quarantine")
    found = result["findings"]
    assert (found["unreadable"], found["unreadable_name"], found["foreign_suffix"]) == (2, 1, 1)
    refused = {Path(refusal["file"]).name: refusal["reason"] for refusal in result["quarantine"]["refused"]}
    assert set(refused) == {"self.png", "gone.png"}
    assert undo_all(result) == before == state(photos)


def undo_all(result) -> dict[str, tuple[bytes, int]]:
    assert main(["clean", "--undo", result["quarantine"]["log"]]) == 0
    return state(Path(json.loads(Path(result["quarantine"]["log"]).read_text().splitlines()[0])["source"]))


def test_options_that_can_not_be(photos, here, tmp_path, refused, monkeypatch):
    assert "Which images?" in refused("clean")
    assert "both name a source" in refused("clean", photos, "--data", tmp_path)
    assert "leave the source out" in refused("clean", photos, "--undo", tmp_path / "log.jsonl")
    assert "--quarantine-dir" in refused("clean", photos, "--quarantine-dir", tmp_path / "q")
    assert "for --apply exclude" in refused("clean", photos, "--exclude-file", tmp_path / "list.csv")
    wrong = refused("clean", photos, "--apply", "exclude", "--exclude-file", tmp_path / "list.txt")
    assert ".csv or .parquet" in wrong
    inside = ("clean", photos, "--apply", "exclude", "--exclude-file", photos / "list.csv")
    assert "own folder" in refused(*inside)
    assert "own folder" in refused("clean", photos, "--out", photos / "run")
    assert "own folder" in refused("clean", photos, "--convert", photos / "copies")
    assert "lie in one another" in refused(
        "clean", photos, "--apply", "quarantine", "--quarantine-dir", photos / "aside"
    )
    assert "where with --exclude-file" in refused("clean", "digits", "--apply", "exclude")
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refused("clean", tmp_path / "empty")
    assert "There is no file or folder" in refused("clean", tmp_path / "nothing")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "is read-only. Choose a place with --out" in refused("clean", photos)
    assert list(here.iterdir()) == []


def test_the_images_of_the_splits_are_those_of_other_commands(photos, here, capfd):
    before = load(SourceConfig(data=str(photos), max_bad_share=0.5))
    result = clean(capfd, photos)
    manifest = rows_of(here / "runs" / result["run"] / "manifest.csv")
    for split, part in before.items():
        for identity in column(part, "id"):
            assert manifest[identity]["split"] == split
    assert result["source"]["fingerprint"] == before.fingerprint


def test_of_a_file_of_several_images_all_go_or_none(tmp_path, here, capfd):
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(8):
        pages = [picture(10 * number + page) for page in range(3)]
        pages[0].save(folder / f"{number}.tif", save_all=True, append_images=pages[1:])
    blank = Image.new("L", (48, 48), 9)
    picture(98).save(folder / "half.tif", save_all=True, append_images=[blank])
    # Of the three blank images one could stay as the copy that is kept, but none is worth it.
    blank.save(folder / "blank.tif", save_all=True, append_images=[blank])
    before = state(folder)
    result = clean(capfd, folder, "--group-pattern", r"(\w+)\.tif", "--apply", "quarantine")
    assert result["metrics"]["images"] == 8 * 3 + 2 + 2
    assert result["metrics"]["left_out"] == 3
    assert result["quarantine"]["moved"] == ["blank.tif"]
    (refused,) = result["quarantine"]["refused"]
    assert refused["file"].endswith("half.tif")
    assert "1 of its 2 images are to go" in refused["reason"]
    assert undo_all(result) == before
    copies = clean(capfd, folder, "--convert", tmp_path / "copies")["copies"]
    assert copies["written"] == 25
    assert (tmp_path / "copies/0-0001.png").exists()
    assert (tmp_path / "copies/half-0001.png").exists()
    listed = clean(capfd, folder, "--apply", "exclude")
    assert listed["left_out_because"] == {"uniform": 3}
    source = load(str(folder))
    assert {image.id for image in source.excluded} == {"half.tif#frame=2", "blank.tif#frame=1", "blank.tif#frame=2"}
