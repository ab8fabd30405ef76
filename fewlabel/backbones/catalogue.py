"""The catalogue: what can be named, counted and never assumed."""

from dataclasses import dataclass

from fewlabel.backbones.backbone import Backbone
from fewlabel.backbones.family import SMALL_IMAGE
from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.registry import all_families, create

__all__ = ["Entry", "count_parameters", "entries"]


@dataclass(frozen=True)
class Entry:
    """One name that `create` takes, built for 3 channels at its own image size."""

    name: str
    family: str
    summary: str
    source: str
    """`timm` or `own`."""
    image_size: int
    """Side in pixels that it was designed for."""
    num_features: int
    """Width of its features."""
    parameters: int


def count_parameters(backbone: Backbone) -> int:
    """Trainable numbers in `backbone`; it may be on the meta device."""
    return sum(parameter.numel() for parameter in backbone.parameters())


def entries() -> list[Entry]:
    """The registered families, each followed by its members; `timm/NAME` takes any other name of timm.

    A family's row has the figures of the member that it stands for above `SMALL_IMAGE` pixels. Networks are
    built on the meta device, some hundredths of a second each.
    """
    rows = []
    for family in all_families():
        members = [_entry(name, family.name, member.note, member.image_size) for name, member in family.members.items()]
        large = next(entry for entry in members if entry.name == family.large)
        meaning = (
            f"{family.small} up to {SMALL_IMAGE} px, {family.large} above"
            if family.small != family.large
            else family.large
        )
        rows += [
            Entry(
                family.name,
                family.name,
                f"{family.summary} ({meaning})",
                large.source,
                large.image_size,
                large.num_features,
                large.parameters,
            ),
            *members,
        ]
    return rows


def _entry(name: str, family: str, summary: str, image_size: int) -> Entry:
    with without_weights():
        backbone = create(name, image_size=image_size)
    return Entry(
        name,
        family,
        summary,
        backbone.source,
        image_size,
        backbone.num_features,
        count_parameters(backbone),
    )
