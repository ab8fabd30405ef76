"""What a user can say about where a run is kept."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["RunConfig"]


@dataclass(frozen=True)
class RunConfig:
    """The run directory and its W&B project."""

    out: Path | None = None
    """Run directory to make. Default: runs/<command>-<time>-<slug>."""
    project: str = "fewlabel"
    """W&B project. Runs stay on this machine unless you ran `wandb login`."""
