"""Recall and precision of what a tool found in a folder of `dirty_folder`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

from benchmarks.dirty_folder import Planted

__all__ = ["APART", "SHARED", "Question", "Score", "score"]

_FLAT: Final = ("dark", "bright", "low_contrast", "uniform")
_EXACT: Final = ("same_content", "same_pixels", "label_conflict", "across_groups")
_NEAR: Final = ("near_duplicate", "across_splits")


@dataclass(frozen=True)
class Question:
    """What is asked of both tools, or of ours alone."""

    title: str
    planted: tuple[str, ...]
    """Kinds of faults that should be found."""
    ours: tuple[str, ...]
    """Our findings that count as finding them."""
    peer: str = ""
    """cleanvision's issue; empty where it has none."""
    besides: tuple[str, ...] = ()
    """Faults that are rightly found as this one too, or can't be judged: they count neither way."""
    how: str = ""
    """Only what was planted so; the rest of the kind counts neither way."""
    relation: str = ""
    """"pairs": pairs of images are to be found; "both": the copy and its original; else the image itself."""


SHARED: Final = (
    Question("dark", ("dark",), ("dark",), "dark", besides=("uniform",)),
    Question("bright", ("bright",), ("bright",), "light", besides=("uniform",)),
    Question("odd aspect ratio", ("odd_aspect",), ("odd_aspect",), "odd_aspect_ratio"),
    Question(
        "too small or of odd size",
        ("too_small", "odd_size"),
        ("too_small", "odd_size"),
        "odd_size",
        besides=("odd_aspect",),
    ),
    Question("blurred", ("blurred",), ("blurred",), "blurry", besides=(*_FLAT, "too_small", "odd_size")),
    Question("uniform", ("uniform",), ("uniform",), "low_information", besides=_FLAT),
    Question("grey among colour", ("odd_mode",), ("odd_mode",), "grayscale", besides=("odd_depth",), how="L"),
    Question("exact duplicates", _EXACT, ("exact_duplicate",), "exact_duplicates", besides=_NEAR, relation="pairs"),
    Question("near duplicates", _NEAR, ("near_duplicate",), "near_duplicates", besides=_EXACT, relation="pairs"),
)
"""Faults for which both have a name."""

APART: Final = (
    Question("undecodable", ("undecodable",), ("undecodable",)),
    Question("truncated", ("truncated",), ("truncated",)),
    Question("empty", ("empty",), ("empty",)),
    Question("wrong suffix", ("wrong_suffix",), ("wrong_suffix",)),
    # A strip of a crop, and a crop of a few pixels, may show a plain spot of it.
    Question("low contrast", ("low_contrast",), ("low_contrast",), besides=(*_FLAT, "odd_aspect", "too_small")),
    Question("odd mode", ("odd_mode",), ("odd_mode",), besides=("odd_depth",)),
    Question("odd depth", ("odd_depth",), ("odd_depth",)),
    Question("copies with different labels", ("label_conflict",), ("label_conflict",), relation="both"),
    Question("copies across splits", ("across_splits",), ("across_splits",), relation="both"),
    Question("copies across groups", ("across_groups",), ("across_groups",), relation="both"),
)
"""Faults for which cleanvision has no name."""


@dataclass(frozen=True)
class Score:
    """How well one question was answered."""

    recall: float
    precision: float
    """1 where nothing was found."""
    missed: tuple[Any, ...]
    false: tuple[Any, ...]


def score(
    question: Question,
    planted: Sequence[Planted],
    images: Iterable[str],
    groups: Iterable[Sequence[str]] = (),
) -> Score:
    """Compare what was found with the table of what was planted.

    Args:
        question: what was looked for.
        planted: the table.
        images: ids of the images that were found.
        groups: ids of duplicates, for a question of pairs.
    """
    wanted: set[Any] = set()
    neutral: set[Any] = set()
    for fault in planted:
        things = _things(fault, question.relation)
        if fault.kind in question.planted and question.how in ("", fault.how):
            wanted |= things
        elif fault.kind in (*question.planted, *question.besides):
            neutral |= things
    if question.relation == "pairs":
        found = {frozenset(pair) for group in groups for pair in combinations(group, 2)}
        # Of two images without a pattern nobody can say whether they are copies.
        flat = {fault.id for fault in planted if fault.kind in ("uniform", "bright", "dark", "low_contrast")}
        found = {pair for pair in found if not pair <= flat}
    else:
        found = set(images)
    right = found & wanted
    false = found - wanted - neutral
    return Score(
        recall=len(right) / len(wanted),
        precision=len(right) / len(right | false) if right | false else 1.0,
        missed=tuple(sorted(map(_plain, wanted - found))),
        false=tuple(sorted(map(_plain, false))),
    )


def _things(fault: Planted, relation: str) -> set[Any]:
    if relation == "pairs":
        return {frozenset({fault.id, fault.original})}
    return {fault.id, fault.original} if relation == "both" else {fault.id}


def _plain(thing: Any) -> Any:
    return tuple(sorted(thing)) if isinstance(thing, frozenset) else thing
