"""What a DICOM file says of its images beside their pixels, as far as it names nobody."""

import re
from collections.abc import Sequence
from typing import Any, BinaryIO, Final, NamedTuple

from fewlabel.data.config import CODE_COLUMNS
from fewlabel.data.dicom import count_frames, macro, open_dicom, refusing

__all__ = ["DicomTags", "read_tags"]

_CODE_TAGS: Final = dict(zip(CODE_COLUMNS, ("Modality", "Laterality", "ViewPosition", "BodyPartExamined"), strict=True))
_TAGS: Final = (
    *("IssuerOfPatientID", "PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID", "SeriesInstanceUID"),
    *_CODE_TAGS.values(),
    *("ImageLaterality", "FrameLaterality", "PixelSpacing", "ImagerPixelSpacing"),
)
_CODE: Final = re.compile(r"[A-Z0-9_ ]{1,16}")
"""A code string (PS3.5 6.2). Whatever else stands there might be a name."""

_SIDES: Final = ("R", "L", "U", "B")


class DicomTags(NamedTuple):
    """Of a whole file."""

    frames: int
    identities: dict[str, tuple[str, ...] | None]
    """For each of `IDENTITY_COLUMNS` what tells it from others: only to compare, never to be shown or written."""
    codes: dict[str, str | None]
    """For each of `CODE_COLUMNS`, as the file has it; None where it says nothing."""
    spacing: tuple[float, float] | None
    """Distance of the pixels' centres in mm, down and across."""


def read_tags(stream: BinaryIO) -> DicomTags:
    """Read the tags of a DICOM file, not its pixels.

    Raises:
        DecodeError: it is damaged.
    """
    with refusing():
        opened = open_dicom(stream, _TAGS)
        dataset = opened.dataset
        patient = _words(dataset, "PatientID")
        identities = {
            # Numbers are given out by each hospital for itself. Without one, a name and a birthday have to do.
            "patient": (*patient, *_words(dataset, "IssuerOfPatientID"))
            if patient
            else _words(dataset, "PatientName", "PatientBirthDate"),
            "study": _words(dataset, "StudyInstanceUID"),
            "series": _words(dataset, "SeriesInstanceUID"),
        }
        codes = {name: _code(dataset.get(tag)) for name, tag in _CODE_TAGS.items()}
        anatomy = macro(dataset, 1, "FrameAnatomySequence")
        sides = (dataset.get("ImageLaterality"), codes["laterality"], anatomy.get("FrameLaterality"))
        codes["laterality"] = next((str(side) for side in sides if side in _SIDES), None)
        measures = macro(dataset, 1, "PixelMeasuresSequence")
        spacing = _spacing(measures.get("PixelSpacing")) or _spacing(dataset.get("ImagerPixelSpacing"))
        frames = count_frames(opened)
        return DicomTags(frames, {name: words or None for name, words in identities.items()}, codes, spacing)


def _words(dataset: Any, *tags: str) -> tuple[str, ...]:
    """The values of `tags`; empty where the first of them is."""
    words = tuple(str(dataset.get(tag) or "").strip() for tag in tags)
    return words if words[0] else ()


def _code(value: Any) -> str | None:
    text = str(value or "").strip()
    return text if _CODE.fullmatch(text) else None


def _spacing(value: Any) -> tuple[float, float] | None:
    try:
        down, across = map(float, value if isinstance(value, Sequence) or hasattr(value, "__iter__") else ())
    except (TypeError, ValueError):
        return None
    return (down, across) if 0 < down < float("inf") and 0 < across < float("inf") else None
