"""Sources of files with several images and with tags: rows, ids, groups, labels and windows."""

import gzip
import io
import os
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from fewlabel.data.config import SourceConfig
from fewlabel.data.decode import DecodeError, decode, read_header
from fewlabel.data.folder import find_images
from fewlabel.data.loading import load
from fewlabel.data.origin import column
from fewlabel.data.scan import read_cell
from fewlabel.data.store import mean_and_std, open_store
from fewlabel.data.views import TwoViews
from fewlabel.errors import UserError

WHOLE = {"val_share": 0.0, "test_share": 0.0}


def grey(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4096, shape or (20, 24)).astype(np.uint16)


def whole(data: Path, **options: object):
    return load(SourceConfig(data=str(data), **{**WHOLE, **options}), least=1)


@pytest.fixture
def study(tmp_path, write_dicom):
    """Twelve scans of six patients, two each, one of them of three frames, named as scanners do."""
    for number in range(12):
        tags = {"PatientID": f"Secret{number // 2}", "PatientName": "Secret^Name", "StudyInstanceUID": f"1.2.{number}"}
        tags |= {"Modality": "CR", "ImageLaterality": "LR"[number % 2], "PixelSpacing": [0.5, 0.25], "BitsStored": 12}
        pixels = grey(number, 3, 20, 24) if number == 5 else grey(number)
        write_dicom(tmp_path / "study" / f"{number:02d}" / "IM00001", pixels, **tags)
    (tmp_path / "study/DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    return tmp_path / "study"


def test_a_folder_of_dicom_without_endings(study):
    source = whole(study)
    ids = column(source["train"], "id")
    assert len(ids) == 14
    assert ids[5:8] == [f"05/IM00001#frame={number}" for number in (1, 2, 3)]
    assert (source.channels, source.bits, source.windowed, source.window) == (1, 16, True, "auto")
    assert column(source["train"], "patient")[:3] == ["patient of 00/IM00001"] * 2 + ["patient of 02/IM00001"]
    assert column(source["train"], "group") == column(source["train"], "patient")
    assert column(source["train"], "study")[1] == "study of 01/IM00001"
    assert set(column(source["train"], "series")) == {None}
    assert column(source["train"], "modality")[0] == "CR"
    assert column(source["train"], "spacing")[0] == [0.5, 0.25]
    assert "Secret" not in repr(
        [column(source["train"], name) for name in source["train"].column_names if name != "image"]
    )
    assert source.class_names is None
    assert len(set(source.contents["train"])) == 14


def test_patients_stay_together_and_are_counted(study, capsys):
    source = load(SourceConfig(data=str(study), val_share=0.2, test_share=0.2))
    groups = {split: set(column(part, "group")) for split, part in source.items()}
    assert sum(map(len, groups.values())) == 6
    assert source.group_counts == {split: len(names) for split, names in groups.items()}
    counts = ", ".join(f"{len(groups[split])} in {split}" for split in ("train", "val", "test"))
    assert f"study: groups that stay together: {counts}." in capsys.readouterr().err


def test_groups_and_labels_by_tag(study):
    source = whole(study, group_column="study", label_column="laterality")
    assert source.class_names == ["L", "R"]
    assert column(source["train"], "label")[:4] == [0, 1, 0, 1]
    assert len(set(column(source["train"], "group"))) == 12
    with pytest.raises(UserError, match="--label-column 'view_position': no DICOM file of study says"):
        whole(study, label_column="view_position")
    with pytest.raises(UserError, match="--group-column is 'hospital', but study is a folder"):
        whole(study, group_column="hospital")


def test_a_folder_of_one_patient_has_no_groups_unless_asked(tmp_path, write_dicom, capsys):
    for number in range(4):
        write_dicom(tmp_path / "anonymous" / f"{number}.dcm", grey(number), PatientID="ANON")
    assert whole(tmp_path / "anonymous").group_counts is None
    assert "all DICOM files name the same patient" in capsys.readouterr().err
    assert whole(tmp_path / "anonymous", group_column="patient").group_counts == {"train": 1}


@pytest.mark.parametrize(("choice", "expected"), [("first", ["#frame=1"]), ("middle", ["#frame=2"])])
def test_one_frame_of_many(study, choice, expected):
    ids = column(whole(study, frames=choice)["train"], "id")
    assert [identity for identity in ids if "#" in identity] == [f"05/IM00001{end}" for end in expected]


def test_a_table_names_files_and_single_frames(study):
    table = study.parent / "table.csv"
    table.write_text(
        "path,label\nstudy/05/IM00001#frame=2,up\nstudy/05/IM00001#frame=3,down\nstudy/00/IM00001,up\nstudy/01/IM00001,\n"
    )
    source = whole(table)
    assert column(source["train"], "label") == [
        -1 if name is None else ["down", "up"].index(name) for name in ("up", None, "up", "down")
    ]
    assert column(source["train"], "group") == ["patient of study/00/IM00001"] * 2 + ["patient of study/05/IM00001"] * 2
    (study.parent / "photos.csv").write_text("path\nphoto.png\n")
    with pytest.raises(UserError, match="'laterality', but photos has no such column and no DICOM files"):
        whole(study.parent / "photos.csv", label_column="laterality")


def test_the_window_is_part_of_the_fingerprint_where_it_counts(study, tmp_path, write_images):
    fingerprints = {
        whole(study, window=window).fingerprint for window in (None, "auto", "full", "percentile", "40,400")
    }
    assert len(fingerprints) == 4
    write_images(tmp_path / "photos", ["0.png", "1.png"])
    assert len({whole(tmp_path / "photos", window=window).fingerprint for window in ("auto", "full")}) == 1


def test_pages_of_a_tiff_are_images_of_one_group(tmp_path):
    pages = [Image.fromarray(grey(number)) for number in range(3)]
    folder = tmp_path / "pages"
    folder.mkdir()
    pages[0].save(folder / "a.tif", save_all=True, append_images=pages[1:])
    Image.fromarray(grey(9)).save(folder / "b.tif")
    source = whole(folder)
    assert column(source["train"], "id") == ["a.tif#frame=1", "a.tif#frame=2", "a.tif#frame=3", "b.tif"]
    assert column(source["train"], "group") == ["a.tif"] * 3 + [None]
    assert source.group_counts == {"train": 2}
    for number in range(3):
        shown = read_cell({"bytes": None, "path": str(folder / f"a.tif#frame={number + 1}")})
        np.testing.assert_array_equal(shown[:, :, 0], grey(number))
    with pytest.raises(DecodeError, match="no image 4 in this file"):
        read_cell({"bytes": None, "path": str(folder / "a.tif#frame=4")})


def test_smaller_copies_in_a_tiff_are_no_images(tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    small = Image.fromarray(grey(1, 10, 12))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    Image.fromarray(grey(0)).save(folder / "a.tif", save_all=True, append_images=[small])
    Image.fromarray(grey(2)).save(folder / "b.tif")
    assert column(whole(folder)["train"], "id") == ["a.tif", "b.tif"]


def nifti(values: np.ndarray, affine: np.ndarray, **header: float) -> bytes:
    image = nibabel.Nifti1Image(values, affine)
    for name, value in header.items():
        image.header[name] = value
    return image.to_bytes()


@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASR", "PIR", "SAL"])
def test_slices_are_turned_as_radiologists_look_at_them(codes):
    from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

    values = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
    affine = inv_ornt_aff(ornt_transform(axcodes2ornt(tuple("RAS")), axcodes2ornt(tuple(codes))), (4, 5, 6))
    affine = np.linalg.inv(affine) if nibabel.aff2axcodes(affine) != tuple(codes) else affine
    assert nibabel.aff2axcodes(affine) == tuple(codes)
    # The same slice, its axes brought into the order of body axes by nibabel itself.
    plane = values[:, :, 2:3]
    towards = apply_orientation(plane, axcodes2ornt(tuple(codes), (("R", "L"), ("A", "P"), ("S", "I"))))
    # Axes now run to the left, the back and the feet.
    _, front_back, head_feet = towards.shape
    if head_feet == 1:
        expected = towards[:, :, 0].T
    elif front_back == 1:
        expected = towards[:, 0].T
    else:
        expected = towards[0].T
    shown = decode(nifti(values, affine), frame=3, window="full")
    np.testing.assert_array_equal(shown[:, :, 0], expected)
    header = read_header(io.BytesIO(nifti(values, affine)))
    assert (header.height, header.width, header.bits) == (*expected.shape, 8)


@pytest.mark.parametrize("packed", [False, True])
def test_nifti_windows(tmp_path, packed):
    values = np.random.default_rng(0).normal(0, 100, (8, 9, 5, 2)).astype(np.float32)
    folder = tmp_path / "volumes"
    folder.mkdir()

    def write(name: str, **header: float) -> str:
        content = nifti(values, np.diag([-1.0, -1.0, 1.0, 1.0]), **header)
        path = folder / (f"{name}.nii.gz" if packed else f"{name}.nii")
        path.write_bytes(gzip.compress(content) if packed else content)
        return str(path)

    own = write("own", cal_min=-50, cal_max=150)
    shown = read_cell({"bytes": None, "path": f"{own}#frame=7"})
    np.testing.assert_array_equal(shown[:, :, 0], np.rint(np.clip((values[:, :, 1, 1].T + 50.0) / 200, 0, 1) * 65535))
    free = write("free")
    low, high = np.percentile(values, (0.5, 99.5))
    shown = read_cell({"bytes": None, "path": f"{free}#frame=2"}).astype(int)[:, :, 0]
    assert np.abs(shown - np.clip((values[:, :, 1, 0].T - low) / (high - low), 0, 1) * 65535).max() <= 1
    source = whole(folder)
    assert len(source["train"]) == 20
    assert source.group_counts == {"train": 2}
    assert column(source["train"], "spacing")[0] == [1, 1]


def test_scaled_and_colour_volumes():
    stored = np.arange(24, dtype=np.int16).reshape(4, 6, 1)
    image = nibabel.Nifti1Image(stored, np.diag([-1.0, -1.0, 1.0, 1.0]))
    image.header.set_slope_inter(2, -10)
    shown = decode(image.to_bytes(), window="15.5,31")
    values = np.asarray(nibabel.Nifti1Image.from_bytes(image.to_bytes()).dataobj)[:, :, 0].T
    np.testing.assert_array_equal(shown[:, :, 0], np.rint(np.clip(values / 30, 0, 1) * 65535))
    colours = np.zeros((3, 4, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["G"][:, :, 1] = np.arange(12).reshape(3, 4)
    shown = decode(nifti(colours, np.diag([-1.0, -1.0, 1.0, 1.0])), frame=2)
    np.testing.assert_array_equal(shown[:, :, 1], np.arange(12).reshape(3, 4).T)
    assert not shown[:, :, [0, 2]].any()


def test_bad_volumes_are_refused(monkeypatch):
    good = nifti(np.ones((8, 8, 4), np.int16), np.eye(4))
    with pytest.raises(DecodeError, match="ends before its last slice"):
        decode(good[:-10])
    bomb = bytearray(good)
    bomb[42:48] = np.array([30_000, 30_000, 30_000], "<i2").tobytes()
    with pytest.raises(DecodeError, match="30,000 x 30,000 pixels"):
        decode(bytes(bomb))
    bomb[42:48] = np.array([5_000, 5_000, 30_000], "<i2").tobytes()
    with pytest.raises(DecodeError, match="more than the 2 GiB allowed"):
        decode(gzip.compress(bytes(bomb)))
    bomb[42:48] = np.array([5_000, 5_000, 30], "<i2").tobytes()
    with pytest.raises(DecodeError, match="it claims 1,500,000,352 bytes"):
        decode(gzip.compress(bytes(bomb)))
    with pytest.raises(DecodeError, match="no slice 5: the volume has 4"):
        decode(good, frame=5)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(DecodeError, match=r"need the package nibabel: pip install 'fewlabel\[nifti\]'"):
        decode(good)


def test_what_can_not_be_read_or_written_down_is_told(tmp_path, write_images, capsys):
    folder = tmp_path / "photos"
    write_images(folder, ["a.png", "b.png"])
    unnamed = os.fsencode(folder) + b"/caf\xe9.png"
    Path(os.fsdecode(unnamed)).write_bytes((folder / "a.png").read_bytes())
    (folder / "notes").mkdir()
    (folder / "notes" / "back").symlink_to(folder)
    found = find_images(folder)
    assert [str(path) for path in found.images] == ["a.png", "b.png"]
    assert found.unnamed == [b"caf\xe9.png"]
    source = whole(folder)
    assert len(source["train"]) == 2
    assert r"caf\xe9.png" in capsys.readouterr().err


def test_a_pipe_among_the_images_keeps_nobody_waiting(tmp_path, write_images):
    write_images(tmp_path / "photos", ["a.png", "b.png"])
    os.mkfifo(tmp_path / "photos" / "pipe.png")
    os.mkfifo(tmp_path / "photos" / "pipe")
    source = whole(tmp_path / "photos", max_bad_share=0.5)
    assert source.bad == [("pipe.png", "no plain file")]


def test_unreadable_folders_are_told(tmp_path, write_images, monkeypatch):
    folder = tmp_path / "photos"
    write_images(folder, ["a.png", "closed/b.png"])
    scandir = os.scandir

    def closed(path: object):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    # Root may read everything, so what others meet is made here.
    monkeypatch.setattr(os, "scandir", closed)
    found = find_images(folder)
    assert found.unreadable == [("closed", "Permission denied")]


@pytest.mark.parametrize("kind", ["png", "tiff", "dicom"])
def test_low_bits_reach_the_features(tmp_path, write_dicom, kind):
    """Two images whose high bytes are equal come through cache and normalisation as different ones."""
    from fewlabel.backbones.pixels import as_batch
    from fewlabel.backbones.registry import create

    generator = np.random.default_rng(0)
    folder = tmp_path / "low"
    folder.mkdir()
    for number in range(4):
        pixels = (0x1200 + generator.integers(0, 256, (32, 32))).astype(np.uint16)
        if kind == "dicom":
            write_dicom(folder / f"{number}.dcm", pixels)
        else:
            Image.fromarray(pixels).save(folder / f"{number}.{kind}")
    source = whole(folder, window="full")
    store = open_store(source, "train", 32, cache_dir=tmp_path / "cache", workers=1, max_bad_share=0.0)
    batch = store.batch(torch.arange(4)).pixels
    assert batch.dtype == torch.uint16
    assert len(np.unique(batch.numpy() >> 8)) == 1
    mean, std = mean_and_std(store, 0)
    assert std[0] == pytest.approx(np.std(batch.numpy() / 65535), rel=1e-6)
    torch.manual_seed(0)
    backbone = create("timm/test_resnet", image_size=32, in_chans=1).eval()
    normal = (as_batch(batch, 32, 1, torch.device("cpu")) - mean[0]) / std[0]
    assert normal.std() == pytest.approx(1, rel=0.05)
    views = TwoViews("xray", 32, mean, std)
    first, _ = views(batch, torch.ones(4), torch.Generator().manual_seed(0))
    assert (first.amax(dim=(1, 2, 3)) - first.amin(dim=(1, 2, 3))).min() > 1
    with torch.inference_mode():
        features = torch.nn.functional.normalize(backbone(normal), dim=1)
        flat = torch.nn.functional.normalize(backbone(normal * 0), dim=1)
    distances = (features[:, None] - features[None]).norm(dim=2)[~torch.eye(4, dtype=torch.bool)]
    assert distances.min() > 1e-3
    assert (features - flat).norm(dim=1).min() > 1e-3
