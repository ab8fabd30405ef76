"""Folders of image files."""

import os
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

import numpy as np

from fewlabel.console import console
from fewlabel.data.decode import ENDINGS, medical_kind
from fewlabel.data.frames import ending_of, open_file
from fewlabel.data.names import hints_of
from fewlabel.data.origin import WHOLE, BadImage, Found, Origin, make_part, split_of
from fewlabel.errors import UserError

__all__ = ["find_images", "read_folder"]

_UNLABELLED: Final = ("unlabeled", "unlabelled")


class _Member(NamedTuple):
    path: PurePosixPath
    """From the source's folder: the id."""
    inner: PurePosixPath
    """From the split's folder."""


def find_images(root: Path) -> Found:
    """All files below `root`.

    Links to folders are followed, each folder once. Hidden files and folders are passed over, such as the
    "._" doubles that macOS leaves on foreign disks. A file without an ending, or with one of digits, is an image if it
    begins as DICOM does: scanners name files so.
    """
    found = Found()
    visited: set[str] = set()

    def refused(error: OSError) -> None:
        found.unreadable.append(BadImage(_shown(os.path.relpath(error.filename, root)), error.strerror or str(error)))

    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=refused):
        real = os.path.realpath(folder)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        found.unnamed.extend(_relative(folder, name, root) for name in (*subfolders, *files) if not _is_text(name))
        subfolders[:] = sorted(name for name in subfolders if _is_text(name) and not name.startswith((".", "__MACOSX")))
        relative = PurePosixPath(Path(folder).relative_to(root).as_posix())
        for name in filter(_is_text, files):
            if name.startswith("."):
                continue
            path, ending = relative / name, ending_of(name)
            if ending in ENDINGS or ((ending[1:].isdigit() or not ending) and _is_dicom(Path(folder, name))):
                found.images.append(path)
            else:
                found.others[ending or name] += 1
                found.passed.append(path)
    found.images.sort()
    found.passed.sort()
    return found


def _is_text(name: str) -> bool:
    """Whether a file name is text in the file system's encoding, so that it can be written down."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _relative(folder: str, name: str, root: Path) -> bytes:
    return os.fsencode(os.path.relpath(os.path.join(folder, name), root))  # noqa: PTH118  # as the system has it


def _shown(name: str) -> str:
    return os.fsencode(name).decode(errors="backslashreplace")


def _is_dicom(path: Path) -> bool:
    # The table of contents of a disk has the form of DICOM too, and no image.
    if path.name.upper() == "DICOMDIR":
        return False
    try:
        with open_file(str(path)) as stream:
            return medical_kind(stream) == "DICOM"
    except OSError:
        return False


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
    _tell_unread(root, found)
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
    return Origin(name, parts, hints_of(name), root=root.absolute(), found=found)


def _tell_unread(root: Path, found: Found) -> None:
    unnamed = [name.decode(errors="backslashreplace") for name in found.unnamed]
    for what, names in (
        ("folders that can't be read", [f"{folder.id} ({folder.reason})" for folder in found.unreadable]),
        ("files and folders whose names are no text (rename them)", unnamed),
    ):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            console.print(f"{root}: passed over {what}: {', '.join(names[:5])}{more}.", style="yellow", markup=False)


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
