"""What was found in a collection, counted, chosen for a reader, and in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from fewlabel.cleaning.collection import Collection
from fewlabel.cleaning.duplicates import DuplicateGroup
from fewlabel.cleaning.finding import Finding
from fewlabel.cleaning.findings import Findings
from fewlabel.cleaning.kinds import KINDS, Kind
from fewlabel.cleaning.thresholds import Threshold
from fewlabel.data.exclusion import count_reasons

__all__ = ["COPIES", "GROUPS", "MEMBERS", "KindCount", "Outcome", "sentences"]

_PICTURES: Final = 12
"""Images shown of a kind."""

GROUPS: Final = 24
"""Groups of copies shown."""

MEMBERS: Final = 6
"""Images shown of a group."""

COPIES: Final[tuple[Kind, ...]] = (
    "exact_duplicate",
    "near_duplicate",
    "semantic_duplicate",
    "label_conflict",
    "across_splits",
    "across_groups",
)
"""Kinds that are about an image and its copies."""


class KindCount(NamedTuple):
    """How often a kind was found."""

    kind: Kind
    images: int
    left_out: int
    """Of these, for this or another finding."""


@dataclass(frozen=True)
class Outcome:
    """What a report tells of."""

    collection: Collection
    findings: Findings
    thresholds: Mapping[Kind, Threshold]
    excluded: Mapping[int, str]
    """The reason for each row that is, or would be, left out."""

    @property
    def by_kind(self) -> dict[Kind, list[Finding]]:
        """The findings of each kind that was found, in the order of `KINDS`."""
        found: dict[Kind, list[Finding]] = {kind: [] for kind in KINDS}
        for finding in self.findings.all:
            found[finding.kind].append(finding)
        return {kind: findings for kind, findings in found.items() if findings}

    @property
    def counts(self) -> list[KindCount]:
        """How often each kind was found."""
        rows = {kind: {finding.row for finding in found} for kind, found in self.by_kind.items()}
        return [KindCount(kind, len(found), len(found & self.excluded.keys())) for kind, found in rows.items()]

    @cached_property
    def kinds_of_groups(self) -> dict[int, set[Kind]]:
        """What is said of the images of each group of copies, by its number."""
        kinds: dict[int, set[Kind]] = {}
        for finding in self.findings.all:
            if finding.duplicate_group is not None:
                kinds.setdefault(finding.duplicate_group, set()).add(finding.kind)
        return kinds

    @property
    def first_groups(self) -> list[DuplicateGroup]:
        """The groups that the page shows: where labels, splits or groups are at odds first, then the larger ones."""
        odd = {"label_conflict", "across_splits", "across_groups"}

        def rank(group: DuplicateGroup) -> tuple[int, int]:
            return -len(odd & self.kinds_of_groups.get(group.number, set())), -len(group.rows)

        return sorted(self.findings.groups, key=rank)[:GROUPS]

    def worst(self, kind: Kind) -> list[Finding]:
        """The findings of a kind that the page shows: those farthest beyond the threshold, each picture once."""

        def distance(finding: Finding) -> float:
            if finding.value is None or finding.threshold is None:
                return 0.0
            return -abs(finding.value - finding.threshold)

        once: dict[bytes | int, Finding] = {}
        for finding in [] if kind in COPIES else sorted(self.by_kind[kind], key=distance):
            # What can't be decoded has no pixels to be the same.
            once.setdefault(self.collection.pixels[finding.row] or finding.row, finding)
        return list(once.values())[:_PICTURES]

    @property
    def shown(self) -> list[int]:
        """The rows of which the page has pictures."""
        rows = [finding.row for kind in self.by_kind for finding in self.worst(kind)]
        rows += [row for group in self.first_groups for row in group.rows[:MEMBERS]]
        return [row for row in dict.fromkeys(rows) if self.collection.pixels[row]]


def sentences(outcome: Outcome) -> list[str]:
    """What was found, in plain words: how many images are better left out, why, and what else is worth a look."""
    collection, found = outcome.collection, outcome.findings.all
    total = int(collection.listed.sum())
    out = len(outcome.excluded)
    others = {finding.row for finding in found if not finding.stays} - outcome.excluded.keys()
    beside = sum(not collection.listed[row] for row in others)
    if not found:
        return [f"Nothing conspicuous was found in the {total:,} images of {collection.name}."]
    better = f"{out:,} ({out / max(total, 1):.1%}) {'is' if out == 1 else 'are'} better left out"
    first = f"Of the {total:,} images of {collection.name}, {better}"
    if not out:
        first = f"None of the {total:,} images of {collection.name} has to be left out"
    counts = [f"{_title(kind)} ({count:,})" for kind, count in count_reasons(list(outcome.excluded.values())).items()]
    said = [f"{first}{': ' if counts else ''}{', '.join(counts)}."]
    if len(others) > beside:
        said.append(
            f"{len(others) - beside:,} more are worth a look, and stay unless --exclude-kinds names their kind."
        )
    if beside:
        said.append(f"{beside:,} files or folders beside the images are told of below: nothing reads them.")
    groups = outcome.findings.groups
    if groups:
        images = sum(len(group.rows) for group in groups)
        together = f"{len(groups):,} groups" if len(groups) > 1 else "one group"
        said.append(f"{images:,} images are copies of one another, exact or near, in {together}.")
    if collection.source is None:
        said.append("Too few of the images can be read for the splits that training needs.")
    return said


def _title(kind: str) -> str:
    return {str(known): meaning.title for known, meaning in KINDS.items()}[kind]
