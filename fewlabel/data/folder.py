"""Folders of image files."""

import os
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

import numpy as np

from fewlabel.console import console
from fewlabel.data.decode import ENDINGS
from fewlabel.data.names import hints_of
from fewlabel.data.origin import WHOLE, Origin, make_part, split_of
from fewlabel.errors import UserError

__all__ = ["Found", "find_images", "read_folder"]

_UNLABELLED: Final = ("unlabeled", "unlabelled")


class Found(NamedTuple):
    """The files in a folder."""

    images: list[PurePosixPath]
    """Image files, sorted, relative to the folder."""
    others: Counter[str]
    """How often each other file ending occurs."""


class _Member(NamedTuple):
    path: PurePosixPath
    """From the source's folder: the id."""
    inner: PurePosixPath
    """From the split's folder."""


def find_images(root: Path) -> Found:
    """All files below `root`.

    Links to folders are followed, each folder once. Hidden files and folders are passed over, such as the
    "._" doubles that macOS leaves on foreign disks.
    """
    found = Found([], Counter())
    visited: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "__MACOSX")))
        relative = PurePosixPath(Path(folder).relative_to(root).as_posix())
        for name in files:
            path = relative / name
            if path.suffix.lower() in ENDINGS and not name.startswith("."):
                found.images.append(path)
            elif not name.startswith("."):
                found.others[path.suffix.lower() or name] += 1
    found.images.sort()
    return found


def read_folder(root: Path, found: Found) -> Origin:
    """Make a source of the images `found` in the folder `root`; an image's id is its path in the folder.

    - With a sub-folder train (or training) and no images beside it, the sub-folders train, val (valid,
      validation) and test (testing) are splits, and each is read by the next rule. A sub-folder `unlabelled`
      (or unlabeled) beside them adds its images to train without labels; any other is passed over with a
      message.
    - A folder without images at its top, whose images all lie one level down in two or more sub-folders, is
      labelled: each sub-folder's name is a class, and one named `unlabelled` holds images without a label.
    - Any other folder is unlabelled, however deep its images lie.

    Raises:
        UserError: there is no image file in it.
    """
    passed = ", ".join(f"{count} {ending}" for ending, count in found.others.most_common(5))
    if not found.images:
        raise UserError(
            f"{root} holds no images ({f'only {passed}' if passed else 'it is empty'}). "
            f"Image files end in {', '.join(sorted(ENDINGS))}."
        )
    splits = _split_folders(root, found.images)
    classes = {name: _classes([member.inner for member in members]) for name, members in splits.items()}
    if "unlabelled" in splits:
        members = splits.pop("unlabelled")
        splits["train"] += members
        classes["train"] += [None] * len(members)
    names = sorted({label for labels in classes.values() for label in labels if label is not None})
    meaning = f"classes by sub-folder: {len(names)}" if names else "without labels"
    console.print(
        f"{root}: {len(found.images)} images, {meaning}." + (f" Passed over: {passed}." if passed else ""),
        markup=False,
    )
    number = {name: index for index, name in enumerate(names)} | {None: -1}
    parts = {
        split: make_part(
            [{"bytes": None, "path": str(root.absolute() / member.path)} for member in members],
            [str(member.path) for member in members],
            np.array([number[label] for label in classes[split]], dtype=np.int64) if names else None,
            names,
        )
        for split, members in splits.items()
    }
    name = root.resolve().name
    return Origin(name, parts, hints_of(name))


def _split_folders(root: Path, images: list[PurePosixPath]) -> dict[str, list[_Member]]:
    """Images by split; all in one part where the folder has no splits."""
    tops = sorted({path.parts[0] for path in images})
    if any(len(path.parts) == 1 for path in images) or not any(split_of(top) == "train" for top in tops):
        return {WHOLE: [_Member(path, path) for path in images]}
    meanings = {top: "unlabelled" if top.lower() in _UNLABELLED else split_of(top) for top in tops}
    if others := [top for top, meaning in meanings.items() if meaning is None]:
        console.print(
            f"{root}: passed over {', '.join(others)}, no split (train, val, test) beside train.",
            style="yellow",
            markup=False,
        )
    splits: dict[str, list[_Member]] = {split: [] for split in meanings.values() if split is not None}
    for path in images:
        split = meanings[path.parts[0]]
        if split is not None:
            splits[split].append(_Member(path, path.relative_to(path.parts[0])))
    return splits


def _classes(paths: list[PurePosixPath]) -> list[str | None]:
    """The class of each image by the folder rule, or None for each where the folder is unlabelled."""
    if any(len(path.parts) != 2 for path in paths) or len({path.parts[0] for path in paths}) < 2:
        return [None] * len(paths)
    return [None if path.parts[0].lower() in _UNLABELLED else path.parts[0] for path in paths]
