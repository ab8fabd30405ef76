"""What may be found of an image: the kinds, how grave each is, and which are left out unless told otherwise."""

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, get_args

__all__ = ["DEFAULT_EXCLUDED", "KINDS", "Kind", "KindOfFinding", "Severity"]

Kind = Literal[
    "unreadable",
    "empty",
    "truncated",
    "undecodable",
    "unreadable_name",
    "wrong_suffix",
    "foreign_suffix",
    "too_small",
    "odd_size",
    "odd_aspect",
    "blurred",
    "dark",
    "bright",
    "low_contrast",
    "uniform",
    "odd_mode",
    "odd_depth",
    "exact_duplicate",
    "near_duplicate",
    "semantic_duplicate",
    "label_conflict",
    "across_splits",
    "across_groups",
]

Severity = Literal["error", "problem", "warning"]
"""error: nothing can use the image. problem: using it does harm. warning: worth a look."""


class KindOfFinding(NamedTuple):
    """What a kind means to a reader."""

    severity: Severity
    title: str
    """Two or three words, as a heading of the images found."""
    meaning: str
    """A sentence."""


KINDS: Final[Mapping[Kind, KindOfFinding]] = {
    "unreadable": KindOfFinding("error", "unreadable", "The file or folder can't be opened, or is gone."),
    "empty": KindOfFinding("error", "empty", "The file has no content."),
    "truncated": KindOfFinding("error", "truncated", "The file ends before the image does."),
    "undecodable": KindOfFinding("error", "undecodable", "No image, a damaged one, or of a kind that isn't taken."),
    "unreadable_name": KindOfFinding("error", "name is no text", "The file's name is no valid text."),
    "wrong_suffix": KindOfFinding("warning", "wrong suffix", "The file's ending names another image format."),
    "foreign_suffix": KindOfFinding(
        "warning", "image under a foreign suffix", "An image whose file's ending is none of an image: it is not read."
    ),
    "too_small": KindOfFinding("warning", "too small", "The shorter side has too few pixels."),
    "odd_size": KindOfFinding("warning", "odd size", "Far larger or smaller than the others."),
    "odd_aspect": KindOfFinding("warning", "odd aspect ratio", "Far longer in one direction than the others."),
    "blurred": KindOfFinding("warning", "blurred", "Has no sharp edges, where the others have."),
    "dark": KindOfFinding("warning", "too dark", "Even the brightest parts are dark."),
    "bright": KindOfFinding("warning", "too bright", "Even the darkest parts are bright."),
    "low_contrast": KindOfFinding("warning", "low contrast", "Dark and bright parts are almost alike."),
    "uniform": KindOfFinding("problem", "uniform", "One colour all over: there is nothing to see."),
    "odd_mode": KindOfFinding("warning", "odd mode", "Grey among colour, or with a palette, alpha or inks of print."),
    "odd_depth": KindOfFinding("warning", "odd depth", "Other bits a channel than most."),
    "exact_duplicate": KindOfFinding("problem", "exact duplicates", "The same file content, or the same pixels."),
    "near_duplicate": KindOfFinding("warning", "near duplicates", "The same picture, resized or encoded anew."),
    "semantic_duplicate": KindOfFinding("warning", "semantic duplicates", "The encoder hardly tells them apart."),
    "label_conflict": KindOfFinding("problem", "copies with different labels", "At least one of the labels is wrong."),
    "across_splits": KindOfFinding(
        "problem", "copies across splits", "Copies in two splits make results look better than they are."
    ),
    "across_groups": KindOfFinding("warning", "copies across groups", "Copies under two groups, such as patients."),
}
"""In the order in which they are told of."""

assert tuple(KINDS) == get_args(Kind)

DEFAULT_EXCLUDED: Final[tuple[Kind, ...]] = tuple(
    kind for kind, meaning in KINDS.items() if meaning.severity in ("error", "problem")
)
"""Whose images an exclusion leaves out where the user names no kinds."""
