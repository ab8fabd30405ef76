"""The best model of a study as a configuration to pretrain it with."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fewlabel.files import write_json
from fewlabel.search.candidate import Candidate
from fewlabel.search.table import winner_of

if TYPE_CHECKING:
    import optuna

__all__ = ["WINNER", "configured", "write_winner"]

WINNER: Final = "winner.json"

_SETTINGS: Final = {
    "lr": ("training", "lr"),
    "weight_decay": ("training", "weight_decay"),
    "temperature": ("simclr", "temperature"),
    "view_strength": ("views", "strength"),
}
"""Where pretraining's configuration has what a candidate may set beside the scale."""


def write_winner(study: "optuna.Study", pretrain: Mapping[str, Any], directory: Path) -> Path | None:
    """Write `winner.json` into `directory`, which `fewlabel pretrain --config` takes.

    Args:
        study: whose winner it is (`winner_of`).
        pretrain: the configuration of pretraining the base at full length, as plain values.
        directory: where it goes.

    Returns:
        The file; None where no trial has finished yet.
    """
    winner = winner_of(study)
    if winner is None:
        return None
    file = directory / WINNER
    write_json(file, {"command": "pretrain", "config": configured(pretrain, winner.candidate)})
    return file


def configured(pretrain: Mapping[str, Any], candidate: Candidate) -> dict[str, Any]:
    """`pretrain` with the scale and the settings of `candidate` in place of its own."""
    config = {name: dict(value) if isinstance(value, Mapping) else value for name, value in pretrain.items()}
    config["backbone"] |= {f"scale_{name}": getattr(candidate, name) for name in ("depth", "width", "resolution")}
    config["backbone"]["scale_phi"] = 0.0
    for name, (part, option) in _SETTINGS.items():
        value = getattr(candidate, name)
        if value is not None:
            config[part][option] = value
    return config | {"resume": None, "config": None}
