"""What a user can say about findings; importing this loads no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from fewlabel.cleaning.kinds import DEFAULT_EXCLUDED, Kind
from fewlabel.errors import UserError

__all__ = ["ConvertConfig", "FindingsConfig", "ThresholdsConfig"]

_MOST_BITS: Final = 12
"""More would take long and say little."""


@dataclass(frozen=True)
class ThresholdsConfig:
    """From where on an image is conspicuous. What isn't given is derived from the collection and told.

    Raises:
        UserError: a value out of its range.
    """

    least_side: float | None = None
    """Shorter side, in pixels, below which an image is too small."""
    size_factor: float | None = None
    """How many times larger or smaller than the median (as the root of the area) an image's size is odd."""
    longest_ratio: float | None = None
    """Longer side by shorter side above which the aspect ratio is odd."""
    blur: float | None = None
    """Sharpness below which an image is blurred; see docs/cleaning.md for how it is measured."""
    dark: float | None = None
    """Level (black 0, white 1) that the brightest hundredth of an image must reach, or it is too dark."""
    bright: float | None = None
    """Level (black 0, white 1) that the darkest twentieth of an image must stay under, or it is too bright."""
    contrast: float | None = None
    """Range of the levels (0 to 1) below which the contrast is low."""
    uniform: float | None = None
    """Levels, of the 256 or 65,536 that the image's depth has, that the widest channel must span, or the image is
    uniform."""
    odd_share: float = 0.1
    """Share of the images up to which a mode (grey, colour, alpha, ...) or a bit depth is odd."""
    hash_bits: int = 8
    """Bits of 64 in which the perceptual hashes of near duplicates may differ, 0 to 12; each more takes longer."""
    similarity: float | None = None
    """Similarity of two pictures (0 to 1) from which they are near duplicates."""
    semantic: float = 0.98
    """Cosine of two images' features from which they are semantic duplicates; with --encoder."""

    def __post_init__(self) -> None:
        """Check ranges, so that a typing error shows before any image is read."""
        for name in ("dark", "bright", "contrast", "odd_share", "similarity", "semantic"):
            self._check(name, 0, 1, "from 0 to 1")
        for name in ("least_side", "blur", "uniform"):
            self._check(name, 0, float("inf"), "0 or more")
        for name in ("size_factor", "longest_ratio"):
            self._check(name, 1, float("inf"), "1 or more")
        self._check("hash_bits", 0, _MOST_BITS, f"from 0 to {_MOST_BITS}")
        if self.semantic == 0:
            raise UserError("--semantic is 0; it must be above 0 and at most 1, as in --semantic 0.98.")

    def _check(self, name: str, least: float, most: float, range_: str) -> None:
        value = getattr(self, name)
        if value is not None and not least <= value <= most:
            raise UserError(f"--{name.replace('_', '-')} is {value}; it must be {range_}.")


@dataclass(frozen=True)
class FindingsConfig:
    """Which findings leave an image out."""

    exclude_kinds: tuple[Kind, ...] = DEFAULT_EXCLUDED
    """Kinds of findings whose images `--apply` and `--convert` leave out; of duplicates one stays."""


@dataclass(frozen=True)
class ConvertConfig:
    """Cleaned copies of the images that are not left out.

    Raises:
        UserError: a value out of its range.
    """

    convert: Path | None = None
    """Write copies into this folder, which must be new or empty, with a table of labels, groups and splits."""
    convert_format: Literal["png", "jpeg", "webp", "same"] = "png"
    """Of the copies; same: JPEG and WebP stay, all else becomes PNG. What has 16 bits a channel becomes PNG always."""
    convert_mode: Literal["keep", "grey", "rgb"] = "keep"
    """Channels of the copies: as they are, one, or three."""
    longest_side: int | None = None
    """Shrink copies whose longer side has more pixels than this."""

    def __post_init__(self) -> None:
        """Check ranges, so that a typing error shows before any image is read."""
        if self.longest_side is not None and self.longest_side < 1:
            raise UserError(f"--longest-side is {self.longest_side}; it must be 1 or more, in pixels.")
