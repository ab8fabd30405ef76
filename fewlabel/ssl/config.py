"""What a user can say about SimCLR; importing this loads no torch."""

from dataclasses import dataclass
from typing import Literal

from fewlabel.errors import UserError

__all__ = ["SimCLRConfig"]


@dataclass(frozen=True)
class SimCLRConfig:
    """The contrastive loss and the projection head, which is thrown away after pretraining.

    Defaults are those of the SimCLR paper (arXiv 2002.05709, sections 4.2 and 5.1).

    Raises:
        UserError: a value out of its range.
    """

    positives: Literal["image", "group"] = "image"
    """What the two views show: one image, or two images of one group (of one patient, say; --group-column or
    --group-pattern), where a group has several."""
    temperature: float = 0.1
    """Divides the cosine similarities, from 0.01 to 10: the lower, the more the most similar images count."""
    projection_dim: int = 128
    """Width of the projections that the loss compares."""
    projection_hidden: int | None = None
    """Width of the projection head's hidden layers. Default: the backbone's feature width."""
    projection_layers: int = 2
    """Linear layers in the projection head: 2 as in SimCLR, 3 as in SimCLR v2."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0.01 <= self.temperature <= 10:
            raise UserError(f"--temperature is {self.temperature}; it must be from 0.01 to 10, e.g. 0.1.")
        for name, least in (("projection_dim", 2), ("projection_hidden", 1), ("projection_layers", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name.replace('_', '-')} is {value}; it must be {least} or more.")
