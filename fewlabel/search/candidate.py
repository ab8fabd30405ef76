"""What a trial tries. Imports nothing heavy: reports and pages read it too."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from fewlabel.errors import UserError

if TYPE_CHECKING:
    from fewlabel.backbones.scale import Scale

__all__ = ["Candidate", "Slot"]


@dataclass(frozen=True)
class Candidate:
    """A scale of the backbone, and training settings where they are searched too."""

    depth: float = 1.0
    """Multiplies the number of blocks of each stage."""
    width: float = 1.0
    """Multiplies channels or token widths."""
    resolution: float = 1.0
    """Multiplies the side of the image."""
    lr: float | None = None
    """Peak learning rate. None, here and below: as every trial of the study has it."""
    temperature: float | None = None
    """Of the contrastive loss."""
    weight_decay: float | None = None
    view_strength: float | None = None
    """Strength of the views' colour distortion."""

    @property
    def scale(self) -> "Scale":
        """The multipliers as backbones take them.

        Raises:
            UserError: one outside the range of `Scale`.
        """
        from fewlabel.backbones.scale import Scale

        return Scale(self.depth, self.width, self.resolution)

    def as_json(self) -> dict[str, float]:
        """Names to numbers; settings that aren't searched are absent."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The candidate that `as_json` wrote.

        Raises:
            UserError: a name that no candidate has, or a value that is no number.
        """
        known = [field.name for field in fields(cls)]
        for name, value in values.items():
            if name not in known:
                raise UserError(f"A candidate has no {name!r}: it has {', '.join(known)}. Another version wrote this.")
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise UserError(f"A candidate's {name} is {value!r}: a number was expected.")
        return cls(**{name: float(value) for name, value in values.items()})


@dataclass(frozen=True)
class Slot:
    """A training that a study wants, whoever does it and however often it is tried."""

    key: str
    """Unique in its study: `base`, `depth`, `grid/1.20-1.10-1.15`, `phi/2`, `trial/17`."""
    stage: int
    """A stage's slots begin once all of the stage before are settled."""
    candidate: Candidate | None = None
    """None: the sampler chooses."""
    phi: float | None = None
    """The exponent of a compound candidate's coefficients (EfficientNet, arXiv:1905.11946, eq. 3)."""
    protected: bool = False
    """Whether it is trained to its end whatever its intermediate values: the report needs it."""
