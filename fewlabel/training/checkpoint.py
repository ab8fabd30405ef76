"""Checkpoints: one safetensors file each, complete or absent, never a pickle."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from fewlabel.console import console
from fewlabel.errors import UserError
from fewlabel.files import atomic_path

__all__ = ["Checkpoint", "latest_checkpoint", "read_checkpoint", "restore", "save_latest", "write_checkpoint"]

KEPT = 2
"""Newest checkpoints to keep: the last one, and one more in case a disk spoils it."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the next step depends on, after `step` optimiser steps.

    Order, views and dropout are functions of the run's seed and the step, so these two are the state of
    every random generator and the position in the epoch.
    """

    step: int
    seed: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    wandb_id: str


def write_checkpoint(
    path: Path,
    *,
    step: int,
    seed: int,
    model: nn.Module,
    optimizer: Optimizer,
    scaler: dict[str, Any],
    wandb_id: str,
) -> Path:
    """Write the state after `step` steps to `path`, atomically.

    Raises:
        UserError: the file can't be written (a full disk, say); what was there before is untouched.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    state = optimizer.state_dict()
    plain: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                plain.setdefault(str(index), {})[name] = value
    rest = {
        "step": step,
        "seed": seed,
        "optimizer": {"groups": state["param_groups"], "plain": plain},
        "scaler": scaler,
        "wandb_id": wandb_id,
    }
    with atomic_path(path) as temporary:
        try:
            save_file(
                {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
                temporary,
                {"fewlabel": json.dumps(rest)},
            )
        except SafetensorError as error:
            raise OSError(str(error)) from error
    return path


def save_latest(folder: Path, **state: Any) -> Path:
    """Write `step-<number>.safetensors` into `folder` and drop all but the newest few of its kind."""
    path = write_checkpoint(folder / f"step-{state['step']:08d}.safetensors", **state)
    for old in _numbered(folder)[:-KEPT]:
        old.unlink()
    return path


def _numbered(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*.safetensors") if re.fullmatch(r"step-\d+", path.stem))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        UserError: it isn't one.
    """
    model: dict[str, Tensor] = {}
    state: dict[int, dict[str, Any]] = {}
    try:
        with safe_open(path, "pt") as file:
            rest = json.loads((file.metadata() or {})["fewlabel"])
            for key in file.keys():  # noqa: SIM118 - the handle is no mapping
                kind, _, name = key.partition(".")
                if kind == "model":
                    model[name] = file.get_tensor(key)
                else:
                    index, _, field = name.partition(".")
                    state.setdefault(int(index), {})[field] = file.get_tensor(key)
        for index, values in rest["optimizer"]["plain"].items():
            state.setdefault(int(index), {}).update(values)
        optimizer = {"state": state, "param_groups": rest["optimizer"]["groups"]}
        return Checkpoint(rest["step"], rest["seed"], model, optimizer, rest["scaler"], rest["wandb_id"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path} is not a checkpoint of Fewlabel: {error}") from error


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest readable checkpoint of `folder`; None where there is none.

    Raises:
        UserError: there are checkpoints, and none can be read.
    """
    paths = _numbered(folder)
    for path in reversed(paths):
        try:
            return read_checkpoint(path)
        except UserError as error:
            console.print(f"{error} Trying the one before.", style="yellow", markup=False)
    if paths:
        raise UserError(f"No checkpoint in {folder} can be read. Start the run anew.")
    return None


def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: Optimizer, scaler: Any | None) -> None:
    """Put the state of `checkpoint` into a model, optimiser and gradient scaler built as for the run it came from.

    Raises:
        UserError: the model is another one.
    """
    try:
        model.load_state_dict(checkpoint.model)
        optimizer.load_state_dict(checkpoint.optimizer)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"The checkpoint of step {checkpoint.step} belongs to another model: {error}") from error
    # Moments in another memory order than their parameter are rounded otherwise: files keep the values alone.
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    if scaler is not None and checkpoint.scaler:
        scaler.load_state_dict(checkpoint.scaler)
