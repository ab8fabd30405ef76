"""A folder of DICOM files from pretraining to search, without a conversion; and what names a patient stays there."""

import json

import numpy as np
import pyarrow.parquet
import pydicom
import pytest

from fewlabel.__main__ import main
from fewlabel.retrieval import Index
from fewlabel.retrieval.check import check_index

SECRETS = {
    "PatientID": "SECRETID",
    "PatientName": "Secretname^Given",
    "PatientBirthDate": "19480229",
    "AccessionNumber": "SECRETACCESSION",
    "InstitutionName": "Secret Hospital",
    "ReferringPhysicianName": "Secretdoctor",
    "StudyInstanceUID": "1.2.826.0.1.4242.1",
    "SeriesInstanceUID": "1.2.826.0.1.4242.2",
    "StudyDate": "20010203",
}


@pytest.fixture(scope="module")
def scans(tmp_path_factory, write_dicom):
    """Forty scans of 20 patients, those of the right side brighter above; some are compressed, and one is broken."""
    folder = tmp_path_factory.mktemp("clinic") / "scans"
    for number in range(40):
        generator = np.random.default_rng(number)
        pixels = generator.integers(0, 1000, (24, 20)).astype(np.uint16)
        pixels[: 12 if number % 2 else 24, :] += 500 + 1000 * (number % 2)
        if number == 8:
            pixels = np.stack([pixels, pixels[::-1], pixels[:, ::-1]])
        tags = {**SECRETS, "PatientID": f"SECRETID{number // 2}", "StudyInstanceUID": f"1.2.826.0.1.4242.{number}"}
        path = folder / f"p{number // 2:02d}" / f"{number % 2}" / f"IM{number:04d}"
        tags |= {"ImageLaterality": "LR"[number % 2], "BitsStored": 12, "WindowCenter": 1500, "WindowWidth": 3000}
        write_dicom(path, pixels, **tags)
        if number % 5 == 0:
            dataset = pydicom.dcmread(path)
            dataset.compress(pydicom.uid.RLELossless)
            dataset.save_as(path)
    broken = folder / "p19" / "1" / "IM9999.dcm"
    broken.write_bytes(path.read_bytes()[:-100])
    return folder


@pytest.fixture(scope="module")
def workplace(scans, tmp_path_factory, pretrain):
    """All that the commands leave, with W&B's files."""
    place = tmp_path_factory.mktemp("workplace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        assert pretrain("--data", scans, "--max-steps", 2, "--out", place / "pretrain") == 0
        encoder = ["--encoder", str(place / "pretrain")]
        source = ["--data", str(scans)]
        few = ["--labels", "1", "--draws", "1"]
        labels = ["--label-column", "laterality"]
        assert main(["probe", *encoder, *source, *labels, *few, "--out", str(place / "probe")]) == 0
        assert main(["index", "build", *encoder, *source, "--out", str(place / "index")]) == 0
        quarantine = ["--apply", "quarantine", "--quarantine-dir", str(place / "quarantine")]
        assert main(["clean", str(scans), *quarantine, "--out", str(place / "clean")]) == 0
    return place


def test_patients_stay_on_one_side_and_are_counted(workplace):
    groups = json.loads((workplace / "pretrain/config.json").read_text())["source"]["groups"]
    assert sum(groups.values()) == 20
    assert groups["test"] >= 2


def test_laterality_is_learned_from_the_tags(workplace):
    assert json.loads((workplace / "probe/result.json").read_text())["metrics"]


@pytest.mark.parametrize(
    ("name", "patient", "frames"), [("p03/1/IM0007", "03/0/IM0006", 1), ("p04/0/IM0008", "04/0/IM0008", 3)]
)
def test_a_scan_finds_itself(workplace, scans, capsys, name, patient, frames):
    index = workplace / "index/index"
    assert main(["query", str(scans / name), "--index", str(index), "-k", "1", "--json"]) == 0
    queries = json.loads(capsys.readouterr().out)["queries"]
    assert len(queries) == frames
    for query in queries:
        (hit,) = query["neighbours"]
        assert hit["same_image"]
        assert not hit["moved"]
        assert hit["path"] == query["query"]
        assert hit["similarity"] == pytest.approx(1, abs=1e-4)
        assert hit["group"] == f"patient of p{patient}"


def test_the_index_is_sound_and_knows_its_window(workplace):
    index = workplace / "index/index"
    assert check_index(index).sound
    assert Index.open(index).description.encoder.window == "auto"


def test_another_window_than_the_encoders_is_told_and_one_of_an_index_refused(workplace, scans, capfd, refused):
    index, encoder = str(workplace / "index/index"), str(workplace / "pretrain")
    message = refused("index", "add", "--index", index, "--data", scans, "--window", "full")
    assert "--window is full, but the images of this index are shown by auto" in message
    arguments = ["index", "build", "--encoder", encoder, "--data", str(scans), "--window", "full"]
    assert main([*arguments, "--out", str(workplace / "other")]) == 0
    assert "this network's images were shown by auto" in " ".join(capfd.readouterr().err.split())


def test_what_names_a_patient_is_nowhere(workplace):
    files = [path for path in workplace.rglob("*") if path.is_file() and "quarantine" not in path.parts]
    assert any(path.suffix == ".wandb" for path in files)
    assert any(path.name == "report.html" for path in files)
    assert any(path.suffix == ".parquet" for path in files)
    logs = [path for path in workplace.rglob("*") if path.suffix in (".jsonl", ".log") and path.is_file()]
    assert any("quarantine" in path.parts for path in logs)
    for path in {*files, *logs}:
        content = path.read_bytes()
        if path.suffix == ".parquet":
            # As text: what is compressed would hide.
            content = repr(pyarrow.parquet.read_table(path).to_pydict()).encode()
        for secret in SECRETS.values():
            assert secret.split("^")[0].encode() not in content, f"{secret} in {path}"
