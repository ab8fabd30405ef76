"""Counting the catalogue from the registry."""

from collections.abc import Iterator
from dataclasses import replace

from fewlabel.backbones.catalogue import Entry
from fewlabel.backbones.cost import count_flops, count_parameters
from fewlabel.backbones.family import Family
from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.options import SMALL_IMAGE, read_options
from fewlabel.backbones.registry import create

__all__ = ["census"]


def census(family: Family) -> Iterator[Entry]:
    """The entry of `family`, then those of its members, some tenths of a second each."""
    members = {name: _entry(family, name) for name in family.members}
    meaning = (
        f"{family.small} up to {SMALL_IMAGE} px, {family.large} above" if family.small != family.large else family.large
    )
    yield replace(members[family.large], name=family.name, summary=f"{family.summary} ({meaning})")
    yield from members.values()


def _entry(family: Family, name: str) -> Entry:
    member = family.members[name]
    with without_weights():
        backbone = create(name, image_size=member.image_size)
    options = read_options(family.options, backbone.options, name)
    return Entry(
        name=name,
        family=family.name,
        summary=member.note,
        paper=family.paper,
        source=backbone.source,
        image_size=member.image_size,
        any_size=family.step(options) == 1,
        num_features=backbone.num_features,
        parameters=count_parameters(backbone),
        flops=count_flops(backbone),
    )
