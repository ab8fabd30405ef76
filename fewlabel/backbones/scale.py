"""EfficientNet's compound scaling: one multiplier each for depth, width and resolution."""

import math
from dataclasses import dataclass, fields, replace

from timm.layers import make_divisible

from fewlabel.backbones.config import ArchitectureConfig
from fewlabel.errors import UserError

__all__ = ["Scale"]

LIMITS = (0.1, 10.0)
"""The least and the greatest multiplier; bounded, as an encoder's config.json is not trusted."""


@dataclass(frozen=True)
class Scale:
    """How much deeper, wider and finer than its published form a backbone is.

    What each multiplies is the family's own rule, as `Family.notes.scaling` says. A multiplier of 1 changes nothing.

    Raises:
        UserError: a multiplier outside 0.1 to 10.

    Source: Tan and Le, EfficientNet, arXiv:1905.11946, section 3.3.
    """

    depth: float = 1.0
    """Multiplies the number of blocks of each stage."""
    width: float = 1.0
    """Multiplies channels or token widths."""
    resolution: float = 1.0
    """Multiplies the side of the image."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, (least, greatest) = getattr(self, field.name), LIMITS
            if type(value) not in (int, float) or not least <= value <= greatest:
                raise UserError(f"The {field.name} multiplier is {value!r}: give a number from {least} to {greatest}.")

    @classmethod
    def compound(cls, phi: float, alpha: float = 1.2, beta: float = 1.1, gamma: float = 1.15) -> "Scale":
        """Depth alpha^phi, width beta^phi, resolution gamma^phi (eq. 3); the cost grows by alpha beta^2 gamma^2 a step.

        `phi` may be negative and no whole number. phi = k is not EfficientNet-Bk: those published are rounded by hand.

        Raises:
            UserError: a multiplier outside 0.1 to 10.
        """
        try:
            return cls(float(alpha**phi), float(beta**phi), float(gamma**phi))
        except (OverflowError, TypeError, ZeroDivisionError):
            raise UserError(
                f"phi {phi}, alpha {alpha}, beta {beta}, gamma {gamma} are no compound scaling: give positive numbers."
            ) from None

    @classmethod
    def of(cls, config: ArchitectureConfig) -> "Scale":
        """The compound scale of a command's phi, with the multipliers that were given in place of its own.

        Raises:
            UserError: a multiplier outside 0.1 to 10.
        """
        given = {
            "depth": config.scale_depth,
            "width": config.scale_width,
            "resolution": config.scale_resolution,
        }
        return replace(
            cls.compound(config.scale_phi), **{name: value for name, value in given.items() if value is not None}
        )

    def blocks(self, number: int, multiple: int = 1) -> int:
        """`number` blocks of a stage at this depth: the nearest multiple of `multiple`, halves up.

        Raises:
            UserError: it would round to none.
        """
        if self.depth == 1:
            return number
        rounded = math.floor(self.depth * number / multiple + 0.5) * multiple
        if not rounded:
            raise UserError(
                f"Depth {self.depth:g} rounds a stage of {number} blocks to nothing: "
                f"take at least {multiple / 2 / number:g}."
            )
        return rounded

    def channels(self, number: int, multiple: int = 8) -> int:
        """`number` channels at this width: the nearest multiple of `multiple`, never less than 90 % of the exact width.

        Raises:
            UserError: it would round to none.
        """
        if self.width == 1:
            return number
        if self.width * number < multiple / 2:
            raise UserError(
                f"Width {self.width:g} rounds a stage of {number} channels to nothing, as they come in multiples of "
                f"{multiple}: take at least {multiple / 2 / number:g}."
            )
        return int(make_divisible(self.width * number, multiple))

    def side(self, image_size: int, multiple: int = 1) -> int:
        """`image_size` at this resolution: the nearest multiple of `multiple`, halves up.

        Raises:
            UserError: it would round to nothing.
        """
        if self.resolution == 1:
            return image_size
        rounded = math.floor(self.resolution * image_size / multiple + 0.5) * multiple
        if not rounded:
            raise UserError(
                f"Resolution {self.resolution:g} rounds {image_size} px to nothing, as this backbone takes multiples "
                f"of {multiple} px: take at least {multiple / 2 / image_size:g}."
            )
        return rounded
