"""What a benchmark returns: one comparison a row."""

from typing import TypedDict

__all__ = ["Row", "at_least"]


class Row(TypedDict):
    """A comparison with what was asked of it."""

    name: str
    ours: float
    peer: float
    ratio: float
    """How many times better ours is."""
    unit: str
    """Of `ours` and `peer`."""
    target: str
    met: bool
    note: str
    """Precision, sizes and whatever else the figures depend on."""


def at_least(
    target: float, name: str, ours: float, peer: float, unit: str, *, lower_is_better: bool = False, note: str = ""
) -> Row:
    """A row whose ratio is to reach `target`."""
    ratio = peer / ours if lower_is_better else ours / peer
    return Row(
        name=name,
        ours=ours,
        peer=peer,
        ratio=ratio,
        unit=unit,
        target=f"at least {target:g}",
        met=ratio >= target,
        note=note,
    )
