"""MedMNIST-style .npz files: arrays `train_images`, `train_labels`, `val_...`, `test_...`."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fewlabel.console import console
from fewlabel.data.names import hints_of
from fewlabel.data.origin import Origin, make_part
from fewlabel.errors import UserError

__all__ = ["encode_png", "read_npz"]

_SPLITS = ("train", "val", "test")


def encode_png(image: npt.NDArray[Any]) -> bytes:
    """A (H, W) uint8 or uint16, or (H, W, 3) uint8 array as PNG; fast rather than small."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def read_npz(path: Path) -> Origin:
    """Read a file in the format of MedMNIST v2 (Yang et al. 2023): images (N, H, W) or (N, H, W, 3), labels
    (N, 1), or (N, K) of 0 and 1 where an image has several (findings, as in ChestMNIST).

    Images are uint8, or uint16 where greyscale, of any size; labels may be missing. Classes and labels are named by
    their numbers, as the file has no other names.
    One array at a time is in memory beside the encoded images. Objects in the file are never unpickled.

    Raises:
        UserError: it is no such file, or an array has another shape or type.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if "train_images" not in arrays:
                raise UserError(
                    f"{path} holds {', '.join(arrays.files) or 'nothing'}; expected MedMNIST's names: "
                    "train_images and, as far as known, train_labels, val_images, val_labels, test_images, "
                    "test_labels."
                )
            _check_memory(path, arrays.zip)
            return _read(path, arrays)
    except (OSError, ValueError, EOFError, TypeError, AttributeError, MemoryError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} can't be read as an .npz file of arrays: {error}.") from error


def _check_memory(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse arrays that memory can't hold: a compressed file can unpack to a thousand times its size."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for member in archive.infolist():
        if member.file_size > memory:
            raise UserError(
                f"{path}: {member.filename} unpacks to {member.file_size / 2**30:,.0f} GiB, more than the "
                f"{memory / 2**30:,.0f} GiB of memory here. Give the images as files in a folder."
            )


def _read(path: Path, arrays: Any) -> Origin:
    splits = [split for split in _SPLITS if f"{split}_images" in arrays]
    labels = {split: _labels(path, arrays, split) for split in splits if f"{split}_labels" in arrays}
    if labels and len(labels) < len(splits):
        console.print(f"{path.name}: labels left out, as not every split has them.", style="yellow", markup=False)
        labels = {}
    names: list[str] = []
    if labels:
        labels, names = _numbered(path, labels)
    parts = {}
    for split in splits:
        images = _images(path, arrays, split)
        encoded = [{"bytes": encode_png(image), "path": None} for image in images]
        ids = [f"{split}/{index:06d}" for index in range(len(encoded))]
        if labels and len(labels[split]) != len(encoded):
            raise UserError(f"{path}: {len(encoded)} {split}_images but {len(labels[split])} {split}_labels.")
        parts[split] = make_part(encoded, ids, labels.get(split), names)
    return Origin(path.stem, parts, hints_of(path.stem))


def _labels(path: Path, arrays: Any, split: str) -> npt.NDArray[np.int64]:
    """Class values (N,), or several labels (N, K)."""
    labels: npt.NDArray[Any] = arrays[f"{split}_labels"]
    if labels.dtype.kind not in "iub" or labels.ndim not in (1, 2):
        raise UserError(
            f"{path}: {split}_labels is {labels.dtype} of shape {labels.shape}; expected whole numbers of shape "
            "(N, 1), or 0 and 1 of shape (N, K) for K labels an image."
        )
    labels = labels.astype(np.int64)
    if labels.ndim == 1 or labels.shape[1] == 1:
        return labels.reshape(-1)
    strange = labels[(labels != 0) & (labels != 1)]
    if len(strange):
        raise UserError(
            f"{path}: {split}_labels of shape {labels.shape} holds {strange[0]}; where an image has several labels "
            "each is 0 (no) or 1 (yes)."
        )
    return labels


def _numbered(
    path: Path, labels: dict[str, npt.NDArray[np.int64]]
) -> tuple[dict[str, npt.NDArray[np.int64]], list[str]]:
    """Labels as a part has them, and the names of the classes or labels: the file has numbers alone."""
    shapes = {split: part.shape[1:] for split, part in labels.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{shape[0] if shape else 1} in {split}" for split, shape in shapes.items())
        raise UserError(f"{path}: the labels of an image are {found}; every split needs as many.")
    first = next(iter(labels.values()))
    if first.ndim == 2:
        return labels, [str(place) for place in range(first.shape[1])]
    classes = np.unique(np.concatenate(list(labels.values())))
    return {split: np.searchsorted(classes, part) for split, part in labels.items()}, [str(name) for name in classes]


def _images(path: Path, arrays: Any, split: str) -> npt.NDArray[Any]:
    images: npt.NDArray[Any] = arrays[f"{split}_images"]
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[:, :, :, 0]
    grey, colour = images.ndim == 3, images.ndim == 4 and images.shape[3] == 3
    if not ((grey and images.dtype in (np.uint8, np.uint16)) or (colour and images.dtype == np.uint8)):
        raise UserError(
            f"{path}: {split}_images is {images.dtype} of shape {images.shape}; expected greyscale (N, H, W) "
            "of uint8 or uint16, or colour (N, H, W, 3) of uint8."
        )
    return images
