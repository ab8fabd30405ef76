"""Features kept on disk: extracted once, keyed by all that shapes them, and never trusted when damaged."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file

from fewlabel.backbones import create, load_encoder, save_encoder
from fewlabel.backbones.pixels import as_batch
from fewlabel.data import load, open_store
from fewlabel.data.config import SourceConfig
from fewlabel.errors import UserError
from fewlabel.training import feature_store
from fewlabel.training.config import TrainingConfig
from fewlabel.training.feature_store import features_of
from fewlabel.training.features import extract_features
from fewlabel.training.processes import make_accelerator

FINGERPRINT = "0123456789abcdef0123456789abcdef"


def make_encoder(directory, channels=3):
    """An encoder of 32 px with batch statistics of its own."""
    torch.manual_seed(0)
    backbone = create("timm/test_resnet", image_size=32, in_chans=channels)
    with torch.no_grad():
        backbone.train()(torch.rand(8, channels, 32, 32))
    arguments = {"mean": [0.4] * channels, "std": [0.2] * channels, "bits": 8, "provenance": {}}
    return load_encoder(save_encoder(directory, backbone, **arguments))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Forty colour images of 20 px."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(40):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return load(SourceConfig(data=str(folder), val_share=0.2, test_share=0))


def stores_of(source, side=16):
    options = {"cache_dir": Path("never-written"), "workers": 1, "max_bad_share": 0.0}
    return {split: open_store(source, split, side, **options) for split in source}


@pytest.fixture(scope="module")
def stores(source):
    return stores_of(source)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("encoder") / "encoder")


@pytest.fixture(scope="module")
def accelerator():
    return make_accelerator(TrainingConfig(), "fp32")


@pytest.fixture
def extracted(monkeypatch):
    """How many images went through the encoder."""
    counts = []

    def counting(encoder, store, indices, accelerator):
        counts.append(len(indices))
        return extract_features(encoder, store, indices, accelerator)

    monkeypatch.setattr(feature_store, "extract_features", counting)
    return counts


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def train_file(folder):
    (file,) = folder.rglob("train-*.safetensors")
    return file


def test_features_are_extracted_once_and_found_by_id(tmp_path, encoder, stores, accelerator, extracted):
    first = features_of(encoder, stores, FINGERPRINT, accelerator, cache_dir=tmp_path)
    assert extracted == [32, 8]
    for split, store in stores.items():
        expected = extract_features(encoder, store, torch.arange(len(store)), accelerator)
        assert first[split].ids == store.ids
        assert first[split].values.dtype == torch.float32
        assert first[split].values.shape == (len(store), encoder.num_features)
        assert torch.equal(first[split].values, expected)
    again = features_of(encoder, stores, FINGERPRINT, accelerator, cache_dir=tmp_path)
    assert extracted == [32, 8]
    assert all(torch.equal(again[split].values, first[split].values) for split in stores)
    folder = f"features/{encoder.hash[:16]}-{FINGERPRINT[:16]}"
    assert files_in(tmp_path) == [
        f"{folder}/{split}-16px-no.{ending}" for split in ("train", "val") for ending in ("lock", "safetensors")
    ]


def test_several_chunks_are_put_together_in_order(tmp_path, encoder, stores, accelerator, extracted, monkeypatch):
    whole = features_of(encoder, stores, FINGERPRINT, accelerator, cache_dir=tmp_path / "whole")
    monkeypatch.setattr(feature_store, "_CHUNK", 10)
    parts = features_of(encoder, stores, FINGERPRINT, accelerator, cache_dir=tmp_path / "parts")
    assert extracted == [32, 8, 10, 10, 10, 2, 8]
    for split in stores:
        torch.testing.assert_close(parts[split].values, whole[split].values)


def test_whatever_shapes_the_features_has_its_own_file(
    tmp_path, encoder, source, stores, accelerator, extracted, monkeypatch
):
    def run(encoder=encoder, stores=stores, fingerprint=FINGERPRINT):
        features_of(encoder, {"train": stores["train"]}, fingerprint, accelerator, cache_dir=tmp_path)
        return len(extracted)

    assert run() == run() == 1
    grey = make_encoder(tmp_path / "grey", channels=1)
    assert run(encoder=grey) == run(encoder=grey) == 2
    assert run(fingerprint=FINGERPRINT[:16] + "another" * 2) == 3
    assert run() == 4
    smaller = stores_of(source, side=12)
    assert run(stores=smaller) == run(stores=smaller) == 5
    assert run(stores={"train": stores["val"]}) == 6
    # The file of the same name holds other images now, and goes the way of a damaged one.
    assert run() == 7
    monkeypatch.setattr(type(accelerator), "mixed_precision", "bf16")
    assert run() == run() == 8
    monkeypatch.setattr(feature_store, "_VERSION", 2)
    assert run() == 9


def forge(file, change):
    """Rewrite `file` with what `change(values, ids)` returns, and a checksum to match."""
    tensors = load_file(file)
    ids = json.loads(bytes(tensors["ids"].tolist()))
    values, ids = change(tensors["values"].clone(), ids)
    with feature_store.safe_open(file, "pt") as opened:
        key = {name: text for name, text in opened.metadata().items() if name != "checksum"}
    file.unlink()
    feature_store._FeatureFile(file, key).write(ids, values.contiguous())


def spoil_one(values, ids):
    values[3, 1] = torch.nan
    return values, ids


FORGERIES = {
    "gap": lambda values, ids: (values[:-1], ids[:-1]),
    "repeated": lambda values, ids: (values, [*ids[:-1], ids[0]]),
    "twice": lambda values, ids: (torch.cat([values, values[:1]]), [*ids, ids[0]]),
    "unknown": lambda values, ids: (values, [*ids[:-1], "unknown.png"]),
    "fewer rows": lambda values, ids: (values[:-1], ids),
    "narrower": lambda values, ids: (values[:, 1:], ids),
    "double": lambda values, ids: (values.double(), ids),
    "not finite": spoil_one,
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_file_that_is_not_of_these_images_is_made_anew(tmp_path, encoder, stores, accelerator, extracted, forgery):
    first = features_of(encoder, stores, FINGERPRINT, accelerator, cache_dir=tmp_path)
    forge(train_file(tmp_path), FORGERIES[forgery])
    for _ in range(2):
        again = features_of(encoder, stores, FINGERPRINT, accelerator, cache_dir=tmp_path)
        assert extracted == [32, 8, 32]
        assert torch.equal(again["train"].values, first["train"].values)


@pytest.mark.parametrize("place", ["truncated", "empty", "values", "ids", "key", "checksum"])
def test_a_damaged_file_is_made_anew(tmp_path, encoder, stores, accelerator, extracted, place):
    first = features_of(encoder, stores, FINGERPRINT, accelerator, cache_dir=tmp_path)
    file = train_file(tmp_path)
    content = bytearray(file.read_bytes())
    places = {
        # The lowest bit of a float's fraction: the value stays plausible.
        "values": content.rindex(first["train"].values[-1].numpy().tobytes()),
        "ids": content.index(b".png") - 1,
        "key": content.index(encoder.hash.encode()) + 40,
        "checksum": content.index(b'"checksum":"') + 13,
    }
    match place:
        case "truncated":
            content = content[:-1]
        case "empty":
            content = bytearray()
        case _:
            content[places[place]] ^= 1
    file.write_bytes(content)
    for _ in range(2):
        again = features_of(encoder, stores, FINGERPRINT, accelerator, cache_dir=tmp_path)
        assert extracted == [32, 8, 32]
        assert torch.equal(again["train"].values, first["train"].values)


def test_rows_go_by_id_and_not_by_place(tmp_path, encoder, stores, accelerator, extracted):
    first = features_of(encoder, stores, FINGERPRINT, accelerator, cache_dir=tmp_path)
    forge(train_file(tmp_path), lambda values, ids: (values.flip(0), ids[::-1]))
    again = features_of(encoder, stores, FINGERPRINT, accelerator, cache_dir=tmp_path)
    assert extracted == [32, 8]
    assert again["train"].ids == stores["train"].ids
    assert torch.equal(again["train"].values, first["train"].values)


def test_features_that_are_not_finite_are_refused_and_not_kept(tmp_path, stores, accelerator):
    spoilt = make_encoder(tmp_path / "spoilt")
    with torch.no_grad():
        next(spoilt.backbone.parameters()).fill_(torch.inf)
    with pytest.raises(UserError, match="32 of 32 images have no finite features"):
        features_of(spoilt, stores, FINGERPRINT, accelerator, cache_dir=tmp_path / "cache")
    assert {path.suffix for path in (tmp_path / "cache").rglob("*") if path.is_file()} == {".lock"}


def test_batch_statistics_stay_and_a_feature_depends_on_its_image_alone(tmp_path, stores, accelerator):
    encoder = make_encoder(tmp_path / "encoder")
    # A caller that fine-tunes leaves the backbone in training mode.
    encoder.backbone.train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    found = features_of(encoder, stores, FINGERPRINT, accelerator, cache_dir=tmp_path / "cache")
    after = encoder.state_dict()
    assert any("running_mean" in name for name in before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert encoder.backbone.training
    alone = extract_features(encoder, stores["train"], torch.tensor([5]), accelerator)
    backwards = extract_features(encoder, stores["train"], torch.arange(32).flip(0), accelerator, batch_size=7)
    torch.testing.assert_close(found["train"].values[5:6], alone)
    torch.testing.assert_close(found["train"].values, backwards.flip(0))


def test_a_grey_encoder_of_another_size_sees_colour_images(tmp_path, stores, accelerator):
    encoder = make_encoder(tmp_path / "encoder", channels=1)
    found = features_of(encoder, stores, FINGERPRINT, accelerator, cache_dir=tmp_path / "cache")
    pixels = stores["val"].batch(torch.arange(8)).pixels
    assert pixels.shape == (8, 3, 16, 16)
    grey = (pixels.float() / 255 * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(as_batch(pixels, 16, 1, torch.device("cpu")), grey)
    seen = torch.nn.functional.interpolate(grey, (32, 32), mode="bilinear", antialias=True)
    with torch.no_grad():
        expected = encoder.backbone((seen - 0.4) / 0.2)
    torch.testing.assert_close(found["val"].values, expected)


def test_a_full_disk_and_a_cache_that_is_a_file(tmp_path, encoder, stores, accelerator, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't be written"):
        features_of(encoder, stores, FINGERPRINT, accelerator, cache_dir=tmp_path / "file")

    def full(path, content):
        with path.open("wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left on device"):
        features_of(encoder, stores, FINGERPRINT, accelerator, cache_dir=tmp_path / "cache")
    assert {path.suffix for path in (tmp_path / "cache").rglob("*") if path.is_file()} == {".lock"}


def start(function, *arguments):
    """Run `function` in a process of its own, on one thread: those of OpenMP don't survive a fork."""

    def run():
        torch.set_num_threads(1)
        function(*arguments)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def test_a_kill_while_writing_leaves_no_half_file(tmp_path, encoder, stores, accelerator, extracted):
    def killed():
        def half(path, content):
            with path.open("wb") as file:
                file.write(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

        Path.write_bytes = half
        features_of(encoder, stores, FINGERPRINT, accelerator, cache_dir=tmp_path)

    process = start(killed)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert not list(tmp_path.rglob("*.safetensors"))
    assert len(list(tmp_path.rglob(".*.tmp"))) == 1
    features_of(encoder, stores, FINGERPRINT, accelerator, cache_dir=tmp_path)
    assert extracted == [32, 8]
    assert not list(tmp_path.rglob(".*.tmp"))


def test_of_runs_at_once_one_extracts(tmp_path, encoder, stores, accelerator, monkeypatch):
    def noting(encoder, store, indices, accelerator):
        with (tmp_path / "log").open("a") as log:
            log.write(f"{len(indices)}\n")
        return extract_features(encoder, store, indices, accelerator)

    def one(number):
        found = features_of(encoder, stores, FINGERPRINT, accelerator, cache_dir=tmp_path)
        (tmp_path / f"sum-{number}").write_text(str(found["train"].values.double().sum().item()))

    monkeypatch.setattr(feature_store, "extract_features", noting)
    for process in [start(one, number) for number in range(3)]:
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "log").read_text().split() == ["32", "8"]
    assert len({(tmp_path / f"sum-{number}").read_text() for number in range(3)}) == 1


def test_processes_of_one_run_share_the_work_and_get_the_same(tmp_path, encoder, stores, accelerator):
    expected = features_of(encoder, stores, FINGERPRINT, accelerator, cache_dir=tmp_path / "one")

    def one_of_two(rank):
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
        # Else Accelerate takes as many threads as there are cores.
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "OMP_NUM_THREADS": "1"}
        AcceleratorState._reset_state(True)
        torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=rank, world_size=2)
        both = Accelerator(cpu=True)
        assert both.num_processes == 2
        for _ in range(2):
            found = features_of(encoder, stores, FINGERPRINT, both, cache_dir=tmp_path / f"two-{min(rank, 1)}")
            feature_store.extract_features = None
            for split in stores:
                assert found[split].ids == stores[split].ids
                torch.testing.assert_close(found[split].values, expected[split].values)

    for process in [start(one_of_two, rank) for rank in range(2)]:
        process.join(60)
        assert process.exitcode == 0
    # The second has another disk, so it lives from what the first one finds.
    assert list((tmp_path / "two-0").rglob("*.safetensors"))
    assert not (tmp_path / "two-1").exists()
