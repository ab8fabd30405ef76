"""Which images an exclusion leaves out, and why."""

from collections.abc import Collection as Items
from collections.abc import Iterable

from fewlabel.cleaning.collection import Collection
from fewlabel.cleaning.finding import Finding
from fewlabel.cleaning.kinds import Kind

__all__ = ["excluded"]


def excluded(collection: Collection, findings: Iterable[Finding], kinds: Items[Kind]) -> dict[int, str]:
    """The reason, "kind: detail", for each row that is left out: its first finding of one of `kinds`.

    The one of its duplicates that stays is not left out for that kind, and neither is what the source doesn't list.
    """
    reasons: dict[int, str] = {}
    for finding in findings:
        if finding.kind in kinds and not finding.stays and collection.listed[finding.row]:
            reasons.setdefault(finding.row, f"{finding.kind}: {finding.detail}" if finding.detail else finding.kind)
    return reasons
