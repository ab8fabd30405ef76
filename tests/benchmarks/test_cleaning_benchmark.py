"""What the cleaning benchmark plants, and how it judges what is found."""

import filecmp
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from benchmarks.cleaning_truth import APART, SHARED, Question, score
from benchmarks.dirty_folder import COPIES, KINDS, Planted, near_copy, plant
from fewlabel.errors import UserError

COUNT, EACH = 150, 2


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with detail everywhere, in two classes."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for number in range(16):
        coarse = Image.fromarray(generator.integers(0, 256, (15, 12, 3), dtype=np.uint8))
        levels = np.asarray(coarse.resize((96, 120), Image.Resampling.BICUBIC)).astype(int)
        noisy = (levels + generator.integers(-25, 26, levels.shape)).clip(0, 255)
        file = folder / ("coats" if number % 2 else "hats") / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(noisy.astype(np.uint8)).save(file)
    return folder


@pytest.fixture(scope="module")
def planted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Planted]]:
    folder = tmp_path_factory.mktemp("planted") / "dirty"
    return folder, plant(photos, folder, COUNT, EACH, seed=1)


def test_every_kind_is_planted_as_often_as_asked(planted: tuple[Path, list[Planted]]) -> None:
    folder, faults = planted
    assert len(KINDS) == 20
    assert Counter(fault.kind for fault in faults) == dict.fromkeys(KINDS, EACH)
    assert sum(path.is_file() for path in folder.rglob("*")) == COUNT
    assert all((folder / fault.id).is_file() for fault in faults)


def test_planted_files_are_what_the_table_says(planted: tuple[Path, list[Planted]]) -> None:
    folder, faults = planted

    def named(kind: str) -> list[Planted]:
        return [fault for fault in faults if fault.kind == kind]

    for fault in named("undecodable"):
        with pytest.raises(UnidentifiedImageError):
            Image.open(folder / fault.id)
    for fault in named("truncated"):
        with Image.open(folder / fault.id) as image, pytest.raises(OSError, match="truncated"):
            image.load()
    assert all((folder / fault.id).stat().st_size == 0 for fault in named("empty"))
    for fault in named("wrong_suffix"):
        with Image.open(folder / fault.id) as image:
            assert (image.format == "JPEG") == fault.id.endswith(".png")
    for fault in named("odd_depth"):
        with Image.open(folder / fault.id) as image:
            assert image.mode == "I;16"
            assert len(np.unique(np.asarray(image) & 255)) > 100
    for kind in ("same_content", "label_conflict", "across_groups"):
        assert all(filecmp.cmp(folder / fault.id, folder / fault.original, shallow=False) for fault in named(kind))
    for fault in named("same_pixels"):
        with Image.open(folder / fault.id) as copy, Image.open(folder / fault.original) as original:
            assert np.array_equal(np.asarray(copy), np.asarray(original))
    places = {
        fault.kind: [(Path(path).parts[0], Path(path).parts[1]) for path in (fault.id, fault.original)]
        for fault in faults
        if fault.kind in COPIES
    }
    assert places["label_conflict"][0][1] != places["label_conflict"][1][1]
    assert places["across_splits"][0][0] != places["across_splits"][1][0]
    assert places["near_duplicate"][0] == places["near_duplicate"][1]


def test_equal_seeds_plant_equal_folders(photos: Path, planted: tuple[Path, list[Planted]], tmp_path: Path) -> None:
    folder, faults = planted
    again = plant(photos, tmp_path / "again", COUNT, EACH, seed=1)
    assert again == faults
    for path in filter(Path.is_file, folder.rglob("*")):
        assert filecmp.cmp(path, tmp_path / "again" / path.relative_to(folder), shallow=False)


def test_too_few_photos_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too few photos for 100,000 images"):
        plant(photos, tmp_path / "dirty", 100_000, EACH)
    assert not (tmp_path / "dirty").exists()


def test_near_copies_look_alike_and_are_not_the_same() -> None:
    generator = np.random.default_rng(3)
    image = Image.fromarray(generator.integers(0, 200, (8, 8, 3), dtype=np.uint8)).resize((128, 128))
    made = {}
    for _ in range(20):
        content, _, how = near_copy(image, generator)
        with Image.open(io.BytesIO(content)) as copy:
            made[how] = np.asarray(copy.resize(image.size).convert("L")).astype(float)
    assert set(made) == {"quality 40", "resized", "brightened", "cropped by 2 %"}
    original = np.asarray(image.convert("L")).astype(float)
    for how, levels in made.items():
        assert 0.85 < np.corrcoef(levels.ravel(), original.ravel())[0, 1] < 1, how


def test_score_counts_each_fault_once_and_leaves_out_what_cannot_be_judged() -> None:
    faults = [
        Planted("a", "dark", "", ""),
        Planted("b", "dark", "", ""),
        Planted("c", "uniform", "", ""),
        Planted("d", "blurred", "", ""),
    ]
    question = Question("dark", ("dark",), ("dark",), besides=("uniform",))
    found = score(question, faults, ["a", "c", "d", "sound"])
    assert (found.recall, found.precision) == (1 / 2, 1 / 3)
    assert (found.missed, found.false) == (("b",), ("d", "sound"))
    assert score(question, faults, []).precision == 1


def test_score_judges_only_what_was_planted_in_the_way_asked() -> None:
    faults = [Planted("a", "odd_mode", "L", ""), Planted("b", "odd_mode", "CMYK", "")]
    question = Question("grey", ("odd_mode",), ("odd_mode",), how="L")
    assert score(question, faults, ["a", "b"]).precision == 1
    assert score(question, faults, ["b"]).recall == 0


def test_score_judges_copies_by_pairs() -> None:
    faults = [
        Planted("a-near", "near_duplicate", "resized", "a"),
        Planted("b-near", "near_duplicate", "resized", "b"),
        Planted("a-copy", "same_content", "copied", "a"),
        Planted("white", "uniform", "", ""),
        Planted("snow", "bright", "", ""),
    ]
    question = Question("near", ("near_duplicate",), ("near",), besides=("same_content",), relation="pairs")
    groups = [["a", "a-near", "a-copy"], ["b", "c"], ["white", "snow"]]
    found = score(question, faults, [], groups)
    assert found.recall == 1 / 2
    # The pair of the two copies of one image is the one that was not planted.
    assert found.false == (("a-copy", "a-near"), ("b", "c"))
    assert found.precision == 1 / 3


def test_every_planted_kind_is_asked_for() -> None:
    asked = {kind for question in (*SHARED, *APART) for kind in question.planted}
    assert asked == set(KINDS)
    assert all(question.peer for question in SHARED)
    assert not any(question.peer for question in APART)
