"""What is conspicuous in a collection, image by image."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fewlabel.cleaning.collection import Collection
from fewlabel.cleaning.config import ThresholdsConfig
from fewlabel.cleaning.copy_findings import copy_findings
from fewlabel.cleaning.duplicates import DuplicateGroup, find_copies
from fewlabel.cleaning.finding import Finding
from fewlabel.cleaning.kinds import KINDS, Kind
from fewlabel.cleaning.measures import MEASURES
from fewlabel.cleaning.thresholds import Threshold

__all__ = ["Finding", "Findings", "find"]

_COVERED: Final[Mapping[Kind, tuple[Kind, ...]]] = {
    "low_contrast": ("uniform", "dark", "bright"),
    "blurred": ("uniform",),
    "odd_size": ("too_small", "odd_aspect"),
}
"""What goes without saying where one of the others is said."""

_FAMILIES: Final = {
    "1": "grey",
    "L": "grey",
    "MONOCHROME1": "grey",
    "MONOCHROME2": "grey",
    "P": "with a palette",
    "PALETTE COLOR": "with a palette",
    "LA": "with alpha",
    "La": "with alpha",
    "PA": "with alpha",
    "RGBA": "with alpha",
    "RGBa": "with alpha",
    "CMYK": "in the inks of print",
}
"""By `Collection.modes`; all others are grey or in colour by their channels."""

_FAINT: Final[tuple[Kind, ...]] = ("uniform", "dark", "bright", "low_contrast")

_GREY: Final = 1.5 / 255
"""Difference of two channels that rounding leaves of a grey."""


@dataclass(frozen=True)
class Findings:
    """Everything that is conspicuous in a collection."""

    all: Sequence[Finding]
    """By rows, and of one row in the order of `KINDS`."""
    groups: Sequence[DuplicateGroup]
    similarity: float
    """From which two pictures counted as near duplicates."""

    def counts(self) -> dict[Kind, int]:
        """How many images have a finding of each kind, in the order of `KINDS`, without those of no image."""
        found = Counter(finding.kind for finding in self.all)
        return {kind: found[kind] for kind in KINDS if found[kind]}


def find(
    collection: Collection,
    thresholds: Mapping[Kind, Threshold],
    config: ThresholdsConfig,
    semantic: NDArray[np.int64] | None = None,
) -> Findings:
    """Judge every image of a collection.

    Args:
        collection: what was examined.
        thresholds: as `derive_thresholds` gives them.
        config: where they come from.
        semantic: (N,) the number of each row's group of images that an encoder hardly tells apart, as
            `retrieval.duplicates.link_vectors` gives it; -1 for a row without features. None: none was asked.
    """
    copies = find_copies(collection, config)
    groups = copies.group(semantic)
    findings = [
        *_file_findings(collection),
        *_measured(collection, thresholds),
        *_odd(collection, thresholds, config.odd_share),
        *copy_findings(collection, copies, groups, semantic),
    ]
    order = {kind: place for place, kind in enumerate(KINDS)}
    findings.sort(key=lambda finding: (finding.row, order[finding.kind]))
    return Findings(findings, groups, copies.threshold)


def _file_findings(collection: Collection) -> Iterator[Finding]:
    for row, faults in enumerate(collection.faults):
        for fault in faults:
            yield Finding(fault.kind, row, fault.detail)


def _measured(collection: Collection, thresholds: Mapping[Kind, Threshold]) -> Iterator[Finding]:
    beyond = {
        kind: threshold.beyond(collection.measures[threshold.measure]) & collection.decoded
        for kind, threshold in thresholds.items()
    }
    for kind, threshold in thresholds.items():
        values, found = collection.measures[threshold.measure], beyond[kind]
        for other in _COVERED.get(kind, ()):
            found = found & ~beyond[other]
        title = MEASURES[threshold.measure].title
        for row in np.flatnonzero(found).tolist():
            value = float(values[row])
            limit = threshold.passed(value)
            sign = "below" if value < limit else "above"
            yield Finding(kind, row, f"{title} {value:.4g}, {sign} {limit:.4g}", value, limit)


def _odd(collection: Collection, thresholds: Mapping[Kind, Threshold], share: float) -> Iterator[Finding]:
    """Images of a mode or a depth that few have, where most have another."""
    rows = np.flatnonzero(collection.decoded).tolist()
    faint = np.zeros(len(collection), bool)
    for kind in _FAINT:
        faint |= thresholds[kind].beyond(collection.measures[thresholds[kind].measure])
    modes = [_family(collection, row, bool(faint[row])) for row in rows]
    bits = [f"{int(collection.measures['bits'][row])} bits" for row in rows]
    kinds: tuple[tuple[Kind, list[str]], ...] = (("odd_mode", modes), ("odd_depth", bits))
    for kind, values in kinds:
        counts = Counter(values)
        for row, value in zip(rows, values, strict=True):
            if counts[value] <= share * len(rows):
                usual, count = counts.most_common(1)[0]
                yield Finding(kind, row, f"{value}, where {count / len(rows):.1%} are {usual}")


def _family(collection: Collection, row: int, faint: bool) -> str:
    """How an image holds its pixels; one with three channels that are equal is grey, unless it is too faint to tell."""
    named = _FAMILIES.get(collection.modes[row])
    if named is not None:
        return named
    colour = collection.measures["colour"][row] > _GREY or faint
    return "in colour" if collection.measures["channels"][row] > 1 and colour else "grey"
