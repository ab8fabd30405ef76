"""The options that all convolutional families from timm share."""

from dataclasses import dataclass, replace
from typing import Any

from fewlabel.backbones.family import SMALL_IMAGE, check_rate
from fewlabel.backbones.timm_call import TimmCall

__all__ = ["ConvolutionalOptions", "convolutional_call"]


@dataclass(frozen=True)
class ConvolutionalOptions:
    """Options of a convolutional network."""

    small_stem: bool | None = None
    """Start at full resolution, for small images (see `stem.use_small_stem`). None: up to 64 px."""

    drop_path_rate: float = 0.0
    """Probability that the last residual branch is skipped in training; earlier ones less, linearly
    (stochastic depth, Huang et al. 2016)."""

    def completed(self, member: str, image_size: int) -> "ConvolutionalOptions":
        """With the stem decided. Any image size works."""
        check_rate("drop_path_rate", self.drop_path_rate)
        small_stem = image_size <= SMALL_IMAGE if self.small_stem is None else self.small_stem
        return replace(self, small_stem=small_stem)


def convolutional_call(
    member: str, image_size: int, in_chans: int, options: ConvolutionalOptions, **extra: Any
) -> TimmCall:
    """The timm call for `member`; every stochastic rate is stated, so that timm's defaults don't matter.

    `image_size` makes no difference beyond `options.small_stem`. `extra` are further arguments for timm.
    """
    arguments = {"in_chans": in_chans, "drop_rate": 0.0, "drop_path_rate": options.drop_path_rate, **extra}
    return TimmCall(member, arguments, small_stem=bool(options.small_stem))
