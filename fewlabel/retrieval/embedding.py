"""From images to the features that an index holds: those of a source, and those of a query, by the same way."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from fewlabel.backbones.encoder import Encoder
from fewlabel.backbones.pixels import as_batch
from fewlabel.data.config import SourceConfig
from fewlabel.data.decode import DecodeError
from fewlabel.data.origin import BadImage, column, labels_of, paths_of
from fewlabel.data.resize import resize
from fewlabel.data.scan import read_cell
from fewlabel.data.source import Source
from fewlabel.data.store import cache_folder, open_split
from fewlabel.data.window import AUTO
from fewlabel.errors import UserError
from fewlabel.retrieval.manifest import Entry
from fewlabel.training.config import TrainingConfig
from fewlabel.training.feature_store import features_of
from fewlabel.training.processes import make_accelerator

__all__ = ["Embedded", "Picture", "embed_pictures", "embed_source", "places_of"]

Picture = Path | str | Image.Image | npt.NDArray[Any]
"""A path of an image file; or an image as `Encoder.preprocess` takes it."""

_BATCH: Final = 64


@dataclass(frozen=True)
class Embedded:
    """Features of a source's different images."""

    contents: list[bytes]
    """Hash of each."""
    places: list[tuple[str, int]]
    """Split of the source, and row in it, where each is found."""
    features: npt.NDArray[np.float32]
    """(N, D), as the encoder gives them."""
    bad: list[BadImage]
    """Images that could not be decoded."""


def embed_source(encoder: Encoder, source: Source, side: int, reading: SourceConfig) -> Embedded:
    """The features of all images of `source`, extracted or found in the cache that every command shares.

    Args:
        encoder: moved to the GPU where there is one.
        source: its splits are read as `reading` says.
        side: of the squares in pixels.
        reading: threads, cache and how many bad images are borne.

    Raises:
        UserError: too many images can't be decoded, or have no finite features.
    """
    stores = {split: open_split(source, split, side, reading) for split in source}
    accelerator = make_accelerator(TrainingConfig(), "fp32")
    found = features_of(encoder, stores, source.fingerprint, accelerator, cache_dir=cache_folder(reading))
    first: dict[bytes, tuple[str, int]] = {}
    rows = []
    start = 0
    for split, store in stores.items():
        place = {identity: row for row, identity in enumerate(column(source[split], "id"))}
        for number, identity in enumerate(store.ids):
            content = source.contents[split][place[identity]]
            if content not in first:
                first[content] = (split, place[identity])
                rows.append(start + number)
        start += len(store)
    features = torch.cat([found[split].values for split in stores])[rows]
    bad = [image for store in stores.values() for image in store.bad]
    return Embedded(list(first), list(first.values()), features.numpy(), bad)


def embed_pictures(
    encoder: Encoder, pictures: Sequence[Picture], side: int, window: str = AUTO
) -> npt.NDArray[np.float32]:
    """The features (N, D) of `pictures`, by the way that an index's own images took; `window` is theirs.

    Raises:
        UserError: one is missing, no image, too large or of other channels; the message names it.
    """
    if not len(pictures):
        return np.empty((0, encoder.num_features), dtype=np.float32)
    features = []
    with torch.inference_mode():
        for start in range(0, len(pictures), _BATCH):
            squares = [_square(encoder, picture, side, window) for picture in pictures[start : start + _BATCH]]
            features.append(encoder(torch.cat(squares)).float().cpu())
    return torch.cat(features).numpy()


def _square(encoder: Encoder, picture: Picture, side: int, window: str) -> torch.Tensor:
    """One picture as (1, in_chans, side, side) float32 in [0, 1]."""
    device, channels = encoder.mean_values.device, encoder.backbone.in_chans
    if not isinstance(picture, Path | str):
        return as_batch([picture], side, channels, device)
    try:
        pixels = read_cell({"bytes": None, "path": str(picture)}, side, window)
    except DecodeError as error:
        raise UserError(f"{picture} can't be used: {error}.") from None
    return as_batch([resize(pixels, side, side)], side, channels, device)


def places_of(source: Source) -> list[Entry]:
    """A row for each image of `source`, in the order of its splits; the keys are not given yet and -1."""
    names = source.class_names or []
    entries = []
    for split, part in source.items():
        ids = column(part, "id")
        groups = column(part, "group") if "group" in part.column_names else [None] * len(ids)
        labels = labels_of(part)
        if labels is None:
            said: list[tuple[str, ...]] = [()] * len(ids)
        elif labels.ndim == 1:
            said = [(names[label],) if label >= 0 else () for label in labels.tolist()]
        else:
            said = [tuple(name for name, yes in zip(names, row, strict=True) if yes == 1) for row in labels.tolist()]
        for identity, path, group, label, content in zip(
            ids, paths_of(part), groups, said, source.contents[split], strict=True
        ):
            entries.append(Entry(identity, path, label, split, group, content.hex(), -1))
    return entries
