"""MedMNIST-style .npz files: arrays `train_images`, `train_labels`, `val_...`, `test_...`."""

import io
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
    (N, 1).

    Images are uint8, or uint16 where greyscale, of any size; labels may be missing. Labels of several columns
    (several findings an image, as in ChestMNIST) are left out with a message: there is no single class.
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
            return _read(path, arrays)
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} can't be read as an .npz file of arrays: {error}.") from error


def _read(path: Path, arrays: Any) -> Origin:
    splits = [split for split in _SPLITS if f"{split}_images" in arrays]
    labels = {split: _labels(path, arrays, split) for split in splits if f"{split}_labels" in arrays}
    known = [part for part in labels.values() if part is not None]
    labelled = len(known) == len(splits)
    if not labelled:
        reason = "an image has several of them" if len(known) < len(labels) else "not every split has them"
        if labels:
            console.print(f"{path.name}: labels left out, as {reason}.", style="yellow", markup=False)
    classes = np.unique(np.concatenate(known)) if labelled else np.empty(0)
    parts = {}
    for split in splits:
        images = _images(path, arrays, split)
        encoded = [{"bytes": encode_png(image), "path": None} for image in images]
        ids = [f"{split}/{index:06d}" for index in range(len(encoded))]
        if labelled:
            part_labels = labels[split]
            assert part_labels is not None
            if len(part_labels) != len(encoded):
                raise UserError(f"{path}: {len(encoded)} {split}_images but {len(part_labels)} {split}_labels.")
            numbers = np.searchsorted(classes, part_labels).tolist()
            parts[split] = make_part(encoded, ids, numbers, [str(name) for name in classes])
        else:
            parts[split] = make_part(encoded, ids)
    return Origin(path.stem, parts, hints_of(path.stem))


def _labels(path: Path, arrays: Any, split: str) -> npt.NDArray[Any] | None:
    """Class numbers (N,), or None where an image has several labels."""
    labels: npt.NDArray[Any] = arrays[f"{split}_labels"]
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim not in (1, 2):
        raise UserError(
            f"{path}: {split}_labels is {labels.dtype} of shape {labels.shape}; expected whole numbers of shape (N, 1)."
        )
    if labels.ndim == 2 and labels.shape[1] != 1:
        return None
    return labels.reshape(-1)


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
