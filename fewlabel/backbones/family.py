"""What a family of backbones declares about itself: one file in `families/` declares one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from fewlabel.backbones.options import SMALL_IMAGE
from fewlabel.backbones.scale import Scale
from fewlabel.backbones.timm_call import TimmCall

__all__ = ["Family", "Member", "Notes"]


@dataclass(frozen=True)
class Member:
    """One architecture of a family."""

    image_size: int
    """The side in pixels that it was designed for."""
    note: str
    """What tells it from its siblings, in a few words."""


@dataclass(frozen=True)
class Notes:
    """What a reader should know of a family: the text of its section in docs/backbones.md (Markdown)."""

    idea: str
    """The idea, in three sentences."""
    equation: str
    """The equation that matters, as TeX."""
    use: str
    """What to use it for, and what not."""
    scaling: str
    """What depth and width multiply, and how they round."""
    pitfalls: tuple[str, ...]
    """What goes wrong, and what this implementation does about it; a sentence or two each."""
    errata: tuple[str, ...] = ()
    """Wrong forms that readers will know from elsewhere, and the right one."""


@dataclass(frozen=True)
class Family:
    """A family of architectures: all that the registry, the catalogue and the documentation need to know."""

    name: str
    title: str
    paper: str
    """Authors, year and where to find it."""
    summary: str
    """The idea in one sentence."""
    notes: Notes
    members: Mapping[str, Member]
    small: str
    """The member that the family's name stands for up to `SMALL_IMAGE` pixels."""
    large: str
    """The member that the family's name stands for above."""
    options: type[Any]
    """A dataclass that follows `options.Options`."""
    build: Callable[[str, int, int, Scale, Any], nn.Module | TimmCall]
    """(member, image_size, in_chans, scale, completed options) -> the network without a classifier, or the timm call
    that makes it. `image_size` is scaled already; of `scale` the depth and the width are to be built. The network
    maps (B, in_chans, image_size, image_size) to (B, `head_hidden_size`), and may have `no_weight_decay() ->
    set[str]`. Raises UserError for sizes that it can't be built for beyond those that `step` excludes."""
    convolutional: bool | None
    """Whether it is a convolutional network with batch norm rather than a network of tokens: it is then trained in the
    channels-last memory format and with the larger default learning rate. None: judged by each network's layers."""
    step: Callable[[Any], int] = lambda options: 1
    """Completed options -> the number of pixels that an image's side must be a multiple of."""
    scaling_step: Callable[[Any], int] | None = None
    """Likewise for a side that `Scale.resolution` makes; None: as `step`."""

    def member(self, image_size: int) -> str:
        """The member that the family's name stands for at `image_size` pixels."""
        return self.small if image_size <= SMALL_IMAGE else self.large
