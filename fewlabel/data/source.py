"""Images with ids, labels and groups in splits: what every command works on."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from fewlabel.data.exclusion import Exclusion
from fewlabel.data.origin import BadImage, Hints, column, labels_of
from fewlabel.data.window import AUTO
from fewlabel.errors import UserError

__all__ = ["Source", "fingerprint_of", "part_of", "require_labels"]


class Source(datasets.DatasetDict):  # type: ignore[misc]
    """Images in splits "train", "val" and "test", each sorted by id.

    Columns: `image` (Image), `id` (string), and where known `label` and `group` (string, None for an image that is
    its own group). `label` is a ClassLabel, -1 for an image without one; where an image may have several labels it is
    a struct with a ClassLabel "no", "yes" of the name of each, -1 where unknown. "val" and "test" are always there,
    unless the source has none and their share was set to 0. A source with medical files has more; see
    `medical.TAG_COLUMNS`.
    """

    name: str
    """What the user calls it: the name, address, or last part of the path."""
    fingerprint: str
    """Hash of all splits, ids, labels, groups and contents: equal fingerprints, equal images on any
    machine."""
    contents: dict[str, list[bytes]]
    """BLAKE2b of each image's encoded content (16 bytes), by split and in the order of its rows."""
    hints: Hints
    channels: int
    """3 if any image has colour, else 1."""
    bits: int
    """16 if any image has 16 bits a channel, else 8."""
    bad: list[BadImage]
    """Images left out because they can't be read."""
    excluded: list[BadImage]
    """Images left out because a list says so, and its reasons."""
    exclusion: Exclusion | None
    """That list."""
    median_side: int
    """Median of the images' shorter sides, in pixels."""
    revision: str | None
    """Commit of the hub repository, where it came from one."""
    window: str
    """How the values of DICOM and NIfTI files are shown (see `SourceConfig.window`)."""
    windowed: bool
    """Whether there are such files."""

    @property
    def group_counts(self) -> dict[str, int] | None:
        """How many groups each split has, an image without one being its own; None where the source knows none."""
        if "group" not in next(iter(self.values())).column_names:
            return None
        return {
            split: len(
                {
                    ("image", identity) if group is None else ("group", group)
                    for group, identity in zip(column(part, "group"), column(part, "id"), strict=True)
                }
            )
            for split, part in self.items()
        }

    @property
    def groups_told(self) -> str | None:
        """`group_counts` in words: "12 in train, 2 in val"."""
        counts = self.group_counts
        return None if counts is None else ", ".join(f"{count:,} in {split}" for split, count in counts.items())

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes in the order of their numbers, or of the labels; None without any."""
        feature = self._label_feature
        if feature is None:
            return None
        return list(feature) if self.multi_label else list(feature.names)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels, each yes or no."""
        return isinstance(self._label_feature, dict)

    @property
    def _label_feature(self) -> Any:
        return next(iter(self.values())).features.get("label")


def require_labels(source: Source) -> list[str]:
    """The names of the classes or labels of a source whose training images have some, at least in part.

    Raises:
        UserError: there are no labels, or fewer than two classes, or of several labels none that is both yes and no.
    """
    names, labels = source.class_names, labels_of(source["train"])
    if source.multi_label and labels is not None and not any({0, 1} <= set(label.tolist()) for label in labels.T):
        raise UserError(
            f"On the training images of {source.name}, none of the labels {', '.join(names or ())} is yes on some and "
            "no on others, so there is nothing to tell apart. Give more images, or other columns with --label-column."
        )
    present = set(labels.flat) - {-1} if labels is not None else set()
    if names is None or len(present) < 2:
        reason = "are all of one class" if present else "have no labels"
        raise UserError(
            f"The training images of {source.name} {reason}, and at least two classes are needed here. Put "
            "the images of each class in a sub-folder of its name, or give a table with a label column "
            "(--label-column)."
        )
    return names


def part_of(source: Source, rows: Mapping[str, Sequence[int]]) -> Source:
    """The images of `source` at `rows` of its splits, as a source of its own; a split that none is taken from is left
    out."""
    kept = {split: places for split, places in rows.items() if len(places)}
    part = Source({split: source[split].select(places) for split, places in kept.items()})
    part.contents = {split: [source.contents[split][place] for place in places] for split, places in kept.items()}
    part.name, part.hints, part.revision = source.name, source.hints, source.revision
    part.bad, part.excluded, part.exclusion = [], [], None
    part.window, part.windowed = source.window, source.windowed
    part.channels, part.bits, part.median_side = source.channels, source.bits, source.median_side
    part.fingerprint = fingerprint_of(part)
    return part


def fingerprint_of(source: Source) -> str:
    """The hash of all splits, ids, labels, groups and contents (see `Source.fingerprint`)."""
    whole = hashlib.blake2b(digest_size=16)
    names = source.class_names
    for split, part in source.items():
        ids = column(part, "id")
        labels = _written_labels(part, names)
        groups = column(part, "group") if "group" in part.column_names else [None] * len(ids)
        for identity, label, group, content in zip(ids, labels, groups, source.contents[split], strict=True):
            whole.update(repr((split, identity, label, group, content.hex())).encode())
    if source.windowed and source.window != AUTO:
        whole.update(repr(("window", source.window)).encode())
    return whole.hexdigest()


def _written_labels(part: datasets.Dataset, names: list[str] | None) -> Sequence[Any]:
    """For each image what does not depend on the order of the classes or labels."""
    labels = labels_of(part)
    if labels is None or names is None:
        return [None] * len(part)
    if labels.ndim == 1:
        return [names[label] if label >= 0 else None for label in labels]
    return [sorted(zip(names, row, strict=True)) for row in labels.tolist()]
