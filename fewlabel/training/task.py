"""What is trained: a network with its loss."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from fewlabel.data.store import ImageBatch

__all__ = ["Task"]


class Task(nn.Module, ABC):
    """What differs between kinds of training. One loop (`fit`) serves them all.

    Everything that later steps depend on is in the parameters and buffers, so that checkpoints hold it.
    """

    views_per_image: int = 1
    """Passes of the network that each image of a batch costs, for the throughput shown."""

    @abstractmethod
    def forward(self, batch: "ImageBatch", generator: torch.Generator) -> dict[str, Tensor]:
        """The loss of a batch.

        Args:
            batch: raw pixels, aspect ratios and positions in the store, on the module's device.
            generator: of the same device, seeded for this step and process; the source of all randomness.

        Returns:
            `loss`: a scalar.
        """

    def after_step(self, step: int) -> None:
        """Do what follows the optimiser step that made it `step` steps in all."""

    def is_done(self) -> bool:
        """Whether training may end before its plan does; asked after each evaluation, on every process alike."""
        return False
