"""The index's own copy of the encoder that made it: neighbours of another one's features mean nothing."""

import shutil
from pathlib import Path
from typing import Final

from fewlabel.backbones.encoder import Encoder, load_encoder
from fewlabel.backbones.encoder_config import CONFIG, WEIGHTS
from fewlabel.backbones.weights import hash_of_files
from fewlabel.errors import UserError
from fewlabel.files import atomic_directory
from fewlabel.retrieval.description import Description

__all__ = ["copy_encoder", "load_copy", "require_same"]

_FOLDER: Final = "encoder"


def copy_encoder(encoder: Encoder, index: Path) -> None:
    """Copy the directory that `encoder` was loaded from into the directory `index`.

    Raises:
        UserError: it has none of its own, or that has changed meanwhile.
    """
    if encoder.directory is None or not encoder.trained:
        raise UserError(
            "An index takes an encoder that was loaded from its directory: write this one with save_encoder."
        )
    with atomic_directory(index / _FOLDER) as temporary:
        for name in (CONFIG, WEIGHTS, "README.md"):
            if (encoder.directory / name).is_file():
                shutil.copyfile(encoder.directory / name, temporary / name)
        if hash_of_files(temporary, (CONFIG, WEIGHTS)) != encoder.hash:
            raise UserError(f"{encoder.directory} has changed since the encoder was loaded from it: run again.")


def load_copy(index: Path, description: Description) -> Encoder:
    """The encoder that made the index.

    Raises:
        UserError: the copy is damaged, or another one.
    """
    encoder = load_encoder(index / _FOLDER)
    if encoder.hash != description.encoder.hash:
        raise UserError(
            f"{index / _FOLDER} is not the encoder that made the index ({encoder.hash[:16]}, expected "
            f"{description.encoder.hash[:16]}): copy the whole index again, or build it anew."
        )
    return encoder


def require_same(encoder: Encoder, index: Path, description: Description) -> None:
    """Refuse another encoder than the one that made the index.

    Raises:
        UserError: it is another one.
    """
    made_by = description.encoder
    if encoder.hash != made_by.hash:
        raise UserError(
            f"The index {index} was made with the encoder {made_by.hash[:16]} ({made_by.backbone}) and not with "
            f"{encoder.hash[:16]} ({encoder.config.name}): neighbours of mixed encoders mean nothing. Leave the "
            "encoder out, as the index brings its own, or build another index with this one."
        )
