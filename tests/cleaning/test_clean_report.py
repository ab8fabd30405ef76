"""The report of a cleaning: what it says and shows is what was found."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewlabel.cleaning.choice import excluded
from fewlabel.cleaning.config import FindingsConfig, ThresholdsConfig
from fewlabel.cleaning.examine import examine
from fewlabel.cleaning.findings import find
from fewlabel.cleaning.report import look_at, write_report
from fewlabel.cleaning.thresholds import derive_thresholds
from fewlabel.cleaning.verdict import Outcome, sentences
from fewlabel.data.config import SourceConfig


def photo(seed: int, side: int = 40) -> Image.Image:
    generator = np.random.default_rng(seed)
    patches = Image.fromarray(generator.integers(40, 216, (6, 6), dtype=np.uint8)).resize((side, side), Image.BICUBIC)
    grain = generator.integers(-12, 13, (side, side))
    return Image.fromarray((np.asarray(patches, int) + grain).clip(0, 255).astype(np.uint8))


@pytest.fixture
def folder(tmp_path) -> Path:
    root = tmp_path / "<photos>"
    root.mkdir()
    for number in range(30):
        photo(number).save(root / f"{number:02d}.png")
    return root


def outcome_of(folder: Path, *kinds) -> Outcome:
    collection = examine(SourceConfig(data=str(folder), val_share=0, test_share=0))
    thresholds = derive_thresholds(collection, ThresholdsConfig())
    findings = find(collection, thresholds, ThresholdsConfig())
    chosen = kinds or FindingsConfig().exclude_kinds
    return Outcome(collection, findings, thresholds, excluded(collection, findings.all, chosen))


def page_of(outcome: Outcome, folder: Path) -> str:
    pictures = look_at(outcome, workers=1, window="auto")
    write_report(outcome, pictures, folder, subtitle="today", done=["Done & <said>."], about={"source": "<here>"})
    return (folder / "report.html").read_text(encoding="utf-8")


def headings(page: str) -> list[str]:
    return re.findall(r"<h3>(.*?)</h3>", page)


def test_names_and_words_are_escaped(folder, tmp_path) -> None:
    Image.new("L", (40, 40), 3).save(folder / "<b>&'\"<script>.png")
    page = page_of(outcome_of(folder), tmp_path / "out")
    assert "<script" not in page
    assert "&lt;b&gt;&amp;" in page
    assert "Done &amp; &lt;said&gt;." in page


def test_a_picture_is_shown_once_however_many_are_the_same(folder, tmp_path) -> None:
    for number in range(20):
        Image.new("L", (40, 40), 77).save(folder / f"grey {number}.png", compress_level=number % 10)
    Image.new("L", (40, 40), 78).save(folder / "other grey.png")
    outcome = outcome_of(folder)
    assert [outcome.collection.ids[finding.row] for finding in outcome.worst("uniform")] == [
        "grey 0.png",
        "other grey.png",
    ]
    page = page_of(outcome, tmp_path / "out")
    assert "Uniform: 21" in headings(page)
    assert "19 more of the same pixels" in page
    # The group of copies shows six of its images, and says how many more there are.
    assert "And 14 more." in page


def test_the_farthest_are_shown_first(folder) -> None:
    for number in range(20):
        # Ever longer, and never twice the same.
        photo(100 + number).resize((40 * (4 + number), 40)).save(folder / f"long {number:02d}.png")
    outcome = outcome_of(folder)
    shown = [outcome.collection.ids[finding.row] for finding in outcome.worst("odd_aspect")]
    assert shown == [f"long {number:02d}.png" for number in range(19, 7, -1)]


def test_what_can_not_be_decoded_is_named_with_its_reason(folder, tmp_path) -> None:
    for number in range(45):
        (folder / f"broken {number:02d}.png").write_bytes(b"no image %d" % number)
    page = page_of(outcome_of(folder), tmp_path / "out")
    assert "Undecodable: 45" in headings(page)
    assert len(re.findall(r"<li>broken \d\d\.png: not an image", page)) == 40
    assert "All 45 are in the manifest." in page


def test_images_that_vanish_before_they_are_drawn_leave_no_gap(folder, tmp_path) -> None:
    Image.new("L", (40, 40), 3).save(folder / "uniform.png")
    outcome = outcome_of(folder)
    (folder / "uniform.png").unlink()
    page = page_of(outcome, tmp_path / "out")
    assert "<li>uniform.png: " in page


def test_the_first_sentence(folder) -> None:
    assert sentences(outcome_of(folder)) == ["Nothing conspicuous was found in the 30 images of <photos>."]
    shutil.copy(folder / "00.png", folder / "00 copy.png")
    said = sentences(outcome_of(folder))
    assert said[0] == "Of the 31 images of <photos>, 1 (3.2%) is better left out: exact duplicates (1)."
    said = sentences(outcome_of(folder, "blurred"))
    assert said[0] == "None of the 31 images of <photos> has to be left out."
    assert said[1].startswith("1 more")
    (folder / "empty.png").touch()
    said = sentences(outcome_of(folder))
    assert said[0] == "Of the 32 images of <photos>, 2 (6.2%) are better left out: empty (1), exact duplicates (1)."


def test_counts_are_of_images_and_of_those_left_out(folder) -> None:
    for name in ("a", "b", "c"):
        shutil.copy(folder / "00.png", folder / f"copy {name}.png")
    outcome = outcome_of(folder)
    assert [tuple(count) for count in outcome.counts] == [("exact_duplicate", 4, 3)]


def test_deep_images_are_shown_by_their_own_range(folder, tmp_path) -> None:
    dim = np.linspace(100, 140, 1600).reshape(40, 40).astype(np.uint16)
    Image.fromarray(dim).save(folder / "dim.png")
    outcome = outcome_of(folder)
    row = outcome.collection.ids.index("dim.png")
    pictures = look_at(outcome, workers=1, window="auto")
    assert pictures[row].dtype == np.uint16
    assert "dim.png" in page_of(outcome, tmp_path / "out")
