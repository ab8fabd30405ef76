"""Features of a source, extracted once by an encoder and kept for every later step."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fewlabel.backbones import Encoder
from fewlabel.console import track
from fewlabel.data.store import ImageStore
from fewlabel.files import atomic_path, locked
from fewlabel.training.features import extract_features

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Features", "features_of"]

_VERSION: Final = 1
"""Raised when the same encoder and images would give other features than before, so that older files are not used."""

_CHUNK: Final = 2048
"""Images between two steps of the progress bar."""


@dataclass(frozen=True)
class Features:
    """Features of the images of one split."""

    ids: list[str]
    """In the order of the store."""
    values: Tensor
    """(N, D) float32 on the CPU: a row for each id."""


def features_of(
    encoder: Encoder,
    stores: Mapping[str, ImageStore],
    fingerprint: str,
    accelerator: "Accelerator",
    *,
    cache_dir: Path,
) -> dict[str, Features]:
    """Features of all images of `stores` by `encoder`: found in `cache_dir`, else extracted and put there.

    They are those of `extract_features`: whole images without augmentation, in evaluation mode. Each split has a file
    for its encoder, source, squares' side and precision, renamed into place complete; it is used if its checksum is
    right and it holds each image of the store exactly once, and made anew otherwise. Runs that want the same file at
    once wait for the first. Every process of `accelerator` must call this, and gets the same.

    Args:
        encoder: moved to the device of `accelerator` where something must be extracted.
        stores: the splits by name.
        fingerprint: the source's.
        accelerator: its processes share the work, in its precision.
        cache_dir: features go to `features/` in it.

    Raises:
        UserError: an image has no finite features, or `cache_dir` can't be written.
    """
    folder = cache_dir / "features" / f"{encoder.hash[:16]}-{fingerprint[:16]}"
    found = {}
    for split, store in stores.items():
        key = {
            "version": str(_VERSION),
            "encoder": encoder.hash,
            "source": fingerprint,
            "split": split,
            "side": str(store.side),
            "precision": accelerator.mixed_precision,
        }
        file = _FeatureFile(folder / f"{split}-{store.side}px-{key['precision']}.safetensors", key)
        found[split] = Features(store.ids, _find_or_extract(encoder, store, file, accelerator, split))
    return found


class _FeatureFile:
    """A safetensors file of `values` (N, D) and the JSON list of their `ids`, with `key` and a checksum as metadata."""

    def __init__(self, path: Path, key: dict[str, str]) -> None:
        self._path, self._key = path, key

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one run at a time extract; the others wait, then find the file.

        Raises:
            UserError: the folder can't be written.
        """
        with locked(self._path.with_suffix(".lock")):
            # Whoever holds the lock is the only writer, so these are of one that was killed.
            for stale in self._path.parent.glob(f".{self._path.name}.*.tmp"):
                stale.unlink()
            yield

    def read(self, ids: list[str], width: int) -> Tensor | None:
        """The values (N, `width`) of `ids`; None where the file is missing, damaged or not of exactly these."""
        try:
            with safe_open(self._path, "pt") as file:
                metadata, values, names = file.metadata(), file.get_tensor("values"), file.get_tensor("ids")
            if metadata != self._metadata(values, names):
                return None
            listed = json.loads(names.numpy().tobytes())
        except (OSError, SafetensorError, ValueError):
            return None
        if values.shape != (len(listed), width) or values.dtype != torch.float32 or not values.isfinite().all():
            return None
        rows = {identity: row for row, identity in enumerate(listed)}
        if not len(rows) == len(listed) == len(ids) or rows.keys() != set(ids):
            return None
        ordered: Tensor = values[[rows[identity] for identity in ids]]
        return ordered

    def write(self, ids: list[str], values: Tensor) -> None:
        names = torch.frombuffer(bytearray(json.dumps(ids), "utf-8"), dtype=torch.uint8)
        content = save({"values": values, "ids": names}, self._metadata(values, names))
        with atomic_path(self._path) as temporary:
            temporary.write_bytes(content)

    def _metadata(self, values: Tensor, names: Tensor) -> dict[str, str]:
        checksum = hashlib.blake2b(names.numpy().data, digest_size=16)
        checksum.update(values.contiguous().numpy().data)
        return self._key | {"checksum": checksum.hexdigest()}


def _find_or_extract(
    encoder: Encoder, store: ImageStore, file: _FeatureFile, accelerator: "Accelerator", split: str
) -> Tensor:
    """The features of `store` (N, D), read by the main process or extracted by all."""
    from accelerate.utils import broadcast, broadcast_object_list

    main = accelerator.is_main_process
    with file.locked() if main else nullcontext():
        values = file.read(store.ids, encoder.num_features) if main else None
        if broadcast_object_list([values is not None])[0]:
            if values is None:
                values = torch.empty(len(store), encoder.num_features)
            shared: Tensor = broadcast(values.to(accelerator.device)).cpu()
            return shared
        encoder.to(accelerator.device)
        chunks = torch.split(torch.arange(len(store)), _CHUNK)
        values = torch.cat(
            [
                extract_features(encoder, store, chunk, accelerator)
                for chunk in track(chunks, f"Extracting features of {split}", total=len(chunks))
            ]
        )
        if main:
            file.write(store.ids, values)
        return values
