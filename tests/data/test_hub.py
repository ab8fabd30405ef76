"""Sets in the hub's formats; `fetch`, the one call that reaches for the hub, is turned to a local folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pytest

from fewlabel.data import hub, load
from fewlabel.data.config import SourceConfig
from fewlabel.data.decode import decode
from fewlabel.data.hub import shrink
from fewlabel.data.origin import Hints, column
from fewlabel.errors import UserError

Encode = Callable[..., bytes]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SIZES = {"train": 8, "validation": 4}


@pytest.fixture
def repository(tmp_path: Path, encode: Encode, random_image: Callable[..., np.ndarray]) -> Path:
    """A clone of a hub repository: data/<split>-00000-of-00001.parquet with columns img and fine_label."""
    root = tmp_path / "clone"
    for split, size in SIZES.items():
        images = [
            {"bytes": encode(random_image(seed + 100 * size, 60, 40), "JPEG"), "path": None} for seed in range(size)
        ]
        features = datasets.Features({"img": datasets.Image(), "fine_label": datasets.ClassLabel(names=["ant", "bee"])})
        part = datasets.Dataset.from_dict({"img": images, "fine_label": [0, 1] * (size // 2)}, features=features)
        (root / "data").mkdir(parents=True, exist_ok=True)
        part.to_parquet(root / "data" / f"{split}-00000-of-00001.parquet")
    return root


@pytest.fixture
def asked(repository: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Turn the hub to `repository`, and note what is asked of it."""
    calls: list[tuple[Any, ...]] = []

    def fetch(path: str, subset: str | None, revision: str | None, streaming: bool) -> Any:
        calls.append((path, subset, revision, streaming))
        return datasets.load_dataset(str(repository), streaming=streaming)

    monkeypatch.setattr(hub, "fetch", fetch)
    monkeypatch.setattr(hub, "_commit", lambda repository, revision: COMMIT)
    return calls


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no network in tests")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_hub_set_is_read_at_its_newest_commit(asked: list[tuple[Any, ...]]) -> None:
    source = load("hf:owner/insects:small")
    assert asked == [("owner/insects", "small", COMMIT, False)]
    assert source.revision == COMMIT
    assert source.class_names == ["ant", "bee"]
    assert column(source["val"], "id") == [f"val/{index:06d}" for index in range(4)]
    assert column(source["val"], "label") == [0, 1, 0, 1]
    assert len(source["train"]) + len(source["test"]) == 8
    assert source["train"][0]["image"].size == (40, 60)


def test_classic_name_brings_columns_and_hints(asked: list[tuple[Any, ...]]) -> None:
    source = load("cifar100")
    assert asked[0][0] == "uoft-cs/cifar100"
    assert source.name == "cifar100"
    assert source.hints == Hints(32, "natural")
    assert source.class_names == ["ant", "bee"]


def test_streaming_keeps_shrunken_copies_alone(asked: list[tuple[Any, ...]], tmp_path: Path) -> None:
    whole = load("hf:owner/insects")
    source = load(SourceConfig(data="hf:owner/insects", streaming=True, streaming_side=16))
    assert asked[-1] == ("owner/insects", None, COMMIT, True)
    assert source.median_side == 16
    assert source["train"][0]["image"].size == (16, 24)
    for split, part in source.items():
        assert column(part, "label") == column(whole[split], "label")
        assert column(part, "id") == column(whole[split], "id")
    small, large = (np.asarray(s["val"][0]["image"].resize((4, 6)), float) for s in (source, whole))
    assert np.abs(small - large).mean() < 8


def test_streaming_is_for_the_hub(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--streaming reads from the hub"):
        load(SourceConfig(data="digits", streaming=True))
    with pytest.raises(UserError, match="pathmnist is one small file"):
        load(SourceConfig(data="pathmnist", streaming=True))


def test_local_clone_and_saved_set(repository: Path, tmp_path: Path) -> None:
    source = load(str(repository))
    assert {"train", "val", "test"} == set(source)
    assert source.name == "clone"
    datasets.load_dataset(str(repository)).save_to_disk(tmp_path / "saved")
    saved = load(str(tmp_path / "saved"))
    assert saved.fingerprint == source.fingerprint


def test_home_of_medmnist_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 28, 28, 3), np.uint8)
    labels = np.arange(8)[:, None] % 2
    parts = {f"{split}_{kind}": values for split in ("train", "val", "test")
             for kind, values in (("images", images), ("labels", labels))}  # fmt: skip
    np.savez(tmp_path / "pathmnist.npz", **parts)
    calls: list[Any] = []

    def download(repository: str, file: str, **options: Any) -> str:
        calls.append((repository, file, options["revision"]))
        return str(tmp_path / "pathmnist.npz")

    monkeypatch.setattr(hub, "_commit", lambda repository, revision: revision)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    source = load("pathmnist")
    assert calls[0][1] == "data/pathmnist.npz"
    assert len(calls[0][2]) == 40
    assert source.revision == calls[0][2]
    assert (source.name, source.hints) == ("pathmnist", Hints(28, "histology"))


@pytest.mark.usefixtures("unreachable")
@pytest.mark.parametrize("data", ["cifar10", "hf:owner/insects", "pathmnist"])
def test_offline_the_error_says_how_to_use_a_local_copy(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"can't be reached.*hf download .*--data"):
        load(data)


@pytest.mark.usefixtures("unreachable")
def test_offline_a_cached_set_is_used(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_commit", lambda repository, revision: None)
    (datasets.config.HF_DATASETS_CACHE / "owner___insects").mkdir(parents=True)
    source = load("hf:owner/insects")
    assert source.revision is None
    assert asked == [("owner/insects", None, None, False)]


@pytest.mark.parametrize("address", ["hf:insects", "hf:owner/name/more", "hf:"])
def test_malformed_addresses(address: str) -> None:
    with pytest.raises(UserError, match="no address on the hub"):
        load(address)


def test_splits_without_train_are_refused(repository: Path) -> None:
    data = repository / "data"
    (data / "train-00000-of-00001.parquet").rename(data / "test-00000-of-00001.parquet")
    with pytest.raises(UserError, match="none to train on"):
        load(str(repository))


def test_shrink_keeps_depth_shape_and_what_it_can_not_read(encode: Encode) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (40, 80), dtype=np.uint16)
    small = decode(shrink(encode(deep), 20))
    assert small.shape == (20, 40, 1)
    assert small.dtype == np.uint16
    assert shrink(b"no image", 20) == b"no image"
    assert shrink(encode(deep), 40) == encode(deep)
    assert shrink(encode(np.zeros((99, 50, 3), np.uint8), "JPEG"), 20).startswith(b"\xff\xd8")
