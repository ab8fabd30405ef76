"""What is in the files of a source beyond one image each: several images, and a medical file's tags."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import datasets
import numpy as np

from fewlabel.console import console, track
from fewlabel.data.config import CODE_COLUMNS, IDENTITY_COLUMNS, SourceConfig
from fewlabel.data.decode import DecodeError, medical_kind, tiff_pages
from fewlabel.data.frames import choose_frames, ending_of, frame_path, open_file, split_frame
from fewlabel.data.origin import Origin, add_labels, column, make_part, paths_of
from fewlabel.data.parallel import ordered_map
from fewlabel.errors import UserError

__all__ = ["TAG_COLUMNS", "expand", "images_in"]

TAG_COLUMNS: Final = (*IDENTITY_COLUMNS, *CODE_COLUMNS, "spacing")
"""Columns that a source of medical files has: strings, and `spacing` in mm, down and across; None where unknown."""

_TIFF: Final = (".tif", ".tiff")
_MEDICAL: Final = (".dcm", ".dicom", ".ima", ".nii", ".nii.gz")


class _Contents(NamedTuple):
    """What is in one file."""

    frames: tuple[int, ...] = (1,)
    is_medical: bool = False
    identities: Mapping[str, tuple[str, ...] | None] = {}
    codes: Mapping[str, str | None] = {}
    spacing: tuple[float, float] | None = None


class _Row(NamedTuple):
    """An image of the expanded part."""

    row: int
    """That it comes from."""
    path: str | None
    id: str
    file: str
    """Id of its file, where that holds several images; else its own."""
    contents: _Contents


def expand(origin: Origin, config: SourceConfig, workers: int) -> Origin:
    """`origin` with a row for each image of files that hold several, and with what medical files say of theirs.

    Images of one patient, study or series (as `config.group_column` says) form a group, and so do those of one file
    where nothing is known of a patient. A group is called after its first image: what the file calls the patient
    stays in the file. Groups and labels that the source has itself remain.

    Args:
        origin: as read from a folder or a table.
        config: which frames, groups and labels are asked for.
        workers: threads.

    Returns:
        The same origin where no file holds several images or is a medical one.

    Raises:
        UserError: `config` names a column that only DICOM files have, and there is none, or it is empty.
    """
    contents = _look_into(origin, workers)
    _check_columns(origin, config, any(file.identities for file in contents.values()))
    if all(file.frames == (1,) and not file.is_medical for file in contents.values()):
        return origin
    rows = {name: list(_rows(part, contents, config.frames)) for name, part in origin.parts.items()}
    _tell_frames(origin, contents, rows, config.frames)
    parts = {name: _expanded(part, rows[name]) for name, part in origin.parts.items()}
    if any(file.is_medical for file in contents.values()):
        names = _names(rows)
        parts = {name: _with_tags(part, rows[name], names) for name, part in parts.items()}
        if origin.found is not None:
            parts = _without_patients_as_classes(parts, origin.name)
    parts = _with_groups(parts, rows, config.group_column, origin.name)
    if config.label_column in CODE_COLUMNS and (origin.found is not None or "label" not in _columns(origin)):
        parts = _with_labels(parts, config.label_column, origin.name)
    return replace(origin, parts=parts)


def images_in(path: str) -> list[str]:
    """The paths of all images in the file at `path` (see `split_frame`); `path` itself where that is one image."""
    frames = (1,) if split_frame(path)[1] is not None else _contents(path).frames
    return [path] if frames == (1,) else [frame_path(path, frame) for frame in frames]


def _check_columns(origin: Origin, config: SourceConfig, has_dicom: bool) -> None:
    for flag, asked, known in (
        ("--group-column", config.group_column, IDENTITY_COLUMNS),
        ("--label-column", config.label_column, CODE_COLUMNS),
    ):
        if asked is not None and asked not in known and origin.found is not None:
            raise UserError(
                f"{flag} is {asked!r}, but {origin.name} is a folder and no table. Of a folder of DICOM files it may "
                f"be {', '.join(known)}; of other folders leave it out."
            )
        # A table may have a column of that name itself, and then its labels and groups are there already.
        has_own = {"--group-column": "group", "--label-column": "label"}[flag] in _columns(origin)
        if asked in known and not has_own and not has_dicom:
            raise UserError(f"{flag} is {asked!r}, but {origin.name} has no such column and no DICOM files.")


def _columns(origin: Origin) -> list[str]:
    return list(next(iter(origin.parts.values())).column_names)


def _look_into(origin: Origin, workers: int) -> dict[str, _Contents]:
    """What is in each file that may hold several images or tags."""
    paths = sorted(
        {
            split_frame(path)[0]
            for part in origin.parts.values()
            for path in paths_of(part)
            if path is not None and (ending_of(path) in (*_TIFF, *_MEDICAL) or not ending_of(path).strip(".0123456789"))
        }
    )
    found = track(ordered_map(_contents, paths, workers), f"Looking into the files of {origin.name}", total=len(paths))
    return dict(zip(paths, found, strict=True)) if paths else {}


def _contents(path: str) -> _Contents:
    try:
        with open_file(path) as stream:
            kind = medical_kind(stream)
            if kind == "DICOM":
                from fewlabel.data.dicom_tags import read_tags

                tags = read_tags(stream)
                return _Contents(tuple(range(1, tags.frames + 1)), True, tags.identities, tags.codes, tags.spacing)
            if kind == "NIFTI":
                from fewlabel.data.nifti import count_slices, slice_spacing

                return _Contents(tuple(range(1, count_slices(stream) + 1)), True, spacing=slice_spacing(stream))
            return _Contents(tiff_pages(stream)) if ending_of(path) in _TIFF else _Contents()
    except (OSError, DecodeError):
        # It is told with all other bad images, when each is looked at.
        return _Contents()


def _rows(part: datasets.Dataset, contents: Mapping[str, _Contents], choice: str) -> Iterator[_Row]:
    for row, (path, identity) in enumerate(zip(paths_of(part), column(part, "id"), strict=True)):
        file, frame = (None, None) if path is None else split_frame(path)
        inside = contents.get(file or "", _Contents())
        if frame is not None:
            yield _Row(row, path, identity, split_frame(identity)[0], inside)
        elif file is None or inside.frames == (1,):
            yield _Row(row, path, identity, identity, inside)
        else:
            for number in choose_frames(inside.frames, choice):
                yield _Row(row, frame_path(file, number), frame_path(identity, number), identity, inside)


def _expanded(part: datasets.Dataset, rows: Sequence[_Row]) -> datasets.Dataset:
    chosen = part.select([row.row for row in rows])
    if [row.row for row in rows] == list(range(len(part))) and [row.path for row in rows] == paths_of(part):
        return chosen
    cells = chosen.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))
    images = [
        {"bytes": cells[place]["image"]["bytes"] if row.path is None else None, "path": row.path}
        for place, row in enumerate(rows)
    ]
    renamed = make_part(images, [row.id for row in rows])
    others = chosen.remove_columns(["image", "id"])
    return datasets.concatenate_datasets([renamed, others], axis=1) if others.column_names else renamed


def _names(rows: Mapping[str, Sequence[_Row]]) -> dict[tuple[str, tuple[str, ...]], str]:
    """What each patient, study and series is called here: after the first file that is of it."""
    first: dict[tuple[str, tuple[str, ...]], str] = {}
    for row in sorted((row for part in rows.values() for row in part), key=lambda row: row.file):
        for kind, words in row.contents.identities.items():
            if words is not None:
                first.setdefault((kind, words), f"{kind} of {row.file}")
    return first


def _with_tags(
    part: datasets.Dataset, rows: Sequence[_Row], names: Mapping[tuple[str, tuple[str, ...]], str]
) -> datasets.Dataset:
    tags: dict[str, list[Any]] = {}
    for kind in IDENTITY_COLUMNS:
        words = [row.contents.identities.get(kind) for row in rows]
        tags[kind] = [None if known is None else names[kind, known] for known in words]
    for code in CODE_COLUMNS:
        tags[code] = [row.contents.codes.get(code) for row in rows]
    tags["spacing"] = [row.contents.spacing for row in rows]
    features = {name: datasets.Value("string") for name in tags} | {"spacing": datasets.List(datasets.Value("float64"))}
    new = [name for name in TAG_COLUMNS if name not in part.column_names]
    added = datasets.Dataset.from_dict(
        {name: tags[name] for name in new}, features=datasets.Features({name: features[name] for name in new})
    )
    return datasets.concatenate_datasets([part, added], axis=1) if new else part


def _without_patients_as_classes(parts: dict[str, datasets.Dataset], name: str) -> dict[str, datasets.Dataset]:
    """`parts` without labels where each sub-folder, taken for a class, is that of one patient, study or series."""
    if "label" not in next(iter(parts.values())).column_names:
        return parts
    classes = [label for part in parts.values() for label in column(part, "label")]
    for kind in IDENTITY_COLUMNS:
        pairs = set(zip(classes, (one for part in parts.values() for one in column(part, kind)), strict=True))
        firsts, seconds = ({pair[side] for pair in pairs} for side in (0, 1))
        if len(pairs) > 1 and len(firsts) == len(seconds) == len(pairs) and not (-1 in firsts or None in seconds):
            console.print(f"{name}: each sub-folder holds one {kind}, so these are no classes.", markup=False)
            return {split: part.remove_columns("label") for split, part in parts.items()}
    return parts


def _with_groups(
    parts: dict[str, datasets.Dataset], rows: Mapping[str, Sequence[_Row]], asked: str | None, name: str
) -> dict[str, datasets.Dataset]:
    """`parts` with the column `group`: their own, else by the tag that is asked for, else one for each file of
    several images."""
    by_tag: dict[str, list[str | None]] = {}
    if "patient" in next(iter(parts.values())).column_names and "group" not in next(iter(parts.values())).column_names:
        kind = asked if asked in IDENTITY_COLUMNS else "patient"
        by_tag = {split: column(part, kind) for split, part in parts.items()}
        known = {group for groups in by_tag.values() for group in groups if group is not None}
        if len(known) == 1 and asked is None:
            console.print(
                f"{name}: all DICOM files name the same patient, as after anonymising, so patients form no groups "
                "here. If it is one patient, --group-column patient says so.",
                style="yellow",
                markup=False,
            )
            by_tag = {}
    grouped = {}
    for split, part in parts.items():
        own = column(part, "group") if "group" in part.column_names else by_tag.get(split) or [None] * len(part)
        groups = [
            group if group is not None else row.file if row.file != row.id else None
            for group, row in zip(own, rows[split], strict=True)
        ]
        rest = part.remove_columns("group") if "group" in part.column_names else part
        grouped[split] = (rest, groups)
    if not any(group is not None for _, groups in grouped.values() for group in groups):
        return parts
    feature = datasets.Value("string")
    return {split: rest.add_column("group", groups, feature=feature) for split, (rest, groups) in grouped.items()}


def _with_labels(parts: dict[str, datasets.Dataset], code: str | None, name: str) -> dict[str, datasets.Dataset]:
    values = {split: column(part, code or "") for split, part in parts.items()}
    names = sorted({value for part in values.values() for value in part if value is not None})
    if not names:
        raise UserError(f"--label-column {code!r}: no DICOM file of {name} says what its {code} is.")
    number = {value: place for place, value in enumerate(names)} | {None: -1}
    parts = {split: part.remove_columns(set(part.column_names) & {"label"}) for split, part in parts.items()}
    return {
        split: add_labels(part, np.array([number[value] for value in values[split]], dtype=np.int64), names)
        for split, part in parts.items()
    }


def _tell_frames(
    origin: Origin, contents: Mapping[str, _Contents], rows: Mapping[str, Sequence[_Row]], choice: str
) -> None:
    several = [file for file in contents.values() if len(file.frames) > 1]
    if several:
        taken = sum(row.id != row.file for part in rows.values() for row in part)
        held = sum(len(file.frames) for file in several)
        console.print(
            f"{origin.name}: {held:,} images in {len(several):,} file{'s' * (len(several) > 1)} that hold several"
            + (f", of which {taken:,} are taken (--frames {choice})." if choice != "all" else "."),
            markup=False,
        )
