"""Weights on disk: safetensors alone, never a pickle."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fewlabel.errors import UserError

__all__ = ["hash_of_files", "load_weights", "save_weights"]


def save_weights(path: Path, module: nn.Module) -> None:
    """Write the state of `module`, on whatever device, as the new file `path`.

    Raises:
        OSError: the disk is full.
    """
    # Copies: safetensors refuses tensors that share memory or lie in another order than their shape.
    weights = {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in module.state_dict().items()
    }
    # safetensors makes its file readable by its owner alone, whatever the umask.
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(weights, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(str(error)) from error
    path.chmod(mode)


def load_weights(path: Path, whole: str) -> dict[str, Tensor]:
    """The tensors in `path`, a part of the directory of what the message calls the `whole`.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: the {whole} is incomplete. Copy the whole directory again.") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}). Copy it again or train anew.") from error


def hash_of_files(directory: Path, names: Sequence[str]) -> str:
    """SHA-256 over the SHA-256 of each of the files."""
    digest = hashlib.sha256()
    for name in names:
        with (directory / name).open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()
