"""What a user can say about images and views; nothing heavy is imported here."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from fewlabel.data.frames import CHOICES
from fewlabel.data.window import parse_window
from fewlabel.errors import UserError

__all__ = ["CODE_COLUMNS", "IDENTITY_COLUMNS", "NO_LIST", "SourceConfig", "ViewsConfig"]

IDENTITY_COLUMNS: Final = ("patient", "study", "series")
"""What `SourceConfig.group_column` may be of DICOM files."""

CODE_COLUMNS: Final = ("modality", "laterality", "view_position", "body_part")
"""What `SourceConfig.label_column` may be of DICOM files."""

NO_LIST: Final = "none"
"""Given as `SourceConfig.exclude`: leave nothing out, whatever lies beside the source."""


@dataclass(frozen=True)
class SourceConfig:
    """Where images come from and how they are divided.

    Raises:
        UserError: a value is out of range, or two of them contradict each other.
    """

    data: str = "digits"
    """A folder, an .npz, a .parquet/.csv/.jsonl table, hf:owner/name[:config][@revision], or a classic
    set's name such as cifar10 or pathmnist."""
    image_column: str | None = None
    """Column of a table or hub set with image paths or encoded images. Default: guessed."""
    label_column: str | None = None
    """Column with the class, or several with commas between (a,b,c): each a label of its own that an image may have
    (1, true, yes), or not (0, false, no), or of which nothing is known (empty). Of DICOM files also modality,
    laterality, view_position or body_part. Default: guessed."""
    group_column: str | None = None
    """Column with what must stay within one split, e.g. the patient. Of DICOM files also patient, study or series.
    Default: guessed; of DICOM files the patient."""
    group_pattern: str | None = None
    """Regular expression searched in each image's id (its path in the source); what its group 1 matches is
    the image's group, e.g. "patient(\\d+)"."""
    frames: str = "all"
    """Of a file that holds several images (DICOM, multi-page TIFF, NIfTI): all, first or middle."""
    window: str | None = None
    """Which values of a DICOM or NIfTI file are shown from black to white. auto: the file's own window, else as
    percentile; full: the whole range of the stored bits; percentile: from the 0.5th to the 99.5th; or numbers, as
    40,400 for a centre of 40 and a width of 400. Default: as the encoder's images were, else auto."""
    val_share: float = 0.1
    """Share of the images for validation, where the source has no such split; 0 makes none."""
    test_share: float = 0.2
    """Share of the images for testing, where the source has no such split; 0 makes none."""
    split_seed: int = 0
    """Seed of the splits made here."""
    max_bad_share: float = 0.05
    """Stop when more than this share of the images can't be read."""
    exclude: str | None = None
    """A list of images to leave out (.csv or .parquet), as `fewlabel clean` writes it; none: leave none out. Default:
    the list that lies beside the source, photos.exclude.csv beside photos/."""
    streaming: bool = False
    """Read a hub set image by image and keep only copies shrunk to --streaming-side, for sets too large for
    disk."""
    streaming_side: int = 256
    """Shorter side, in pixels, of the copies that streaming keeps."""
    cache_dir: Path | None = None
    """Where decoded images of larger sets are kept for the next run. Default: fewlabel in the user's cache
    folder."""
    workers: int | None = None
    """Threads that read and decode images. Default: one a core."""

    def __post_init__(self) -> None:
        """Check ranges, so that a typing error shows before any image is read."""
        for name in ("val_share", "test_share", "max_bad_share"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise UserError(f"--{name.replace('_', '-')} is {value}; it must be at least 0 and below 1.")
        if self.val_share + self.test_share >= 1:
            raise UserError(
                f"--val-share {self.val_share} and --test-share {self.test_share} leave nothing to train on; "
                "their sum must be below 1."
            )
        for name in ("workers", "streaming_side"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} is {value}; it must be 1 or more.")
        if self.frames not in CHOICES:
            raise UserError(f"--frames is {self.frames!r}; it must be {', '.join(CHOICES)}.")
        if self.window is not None:
            parse_window(self.window)
        if self.group_pattern is not None:
            if self.group_column is not None:
                raise UserError("--group-column and --group-pattern both say what the groups are: give one of them.")
            try:
                groups = re.compile(self.group_pattern).groups
            except re.error as error:
                raise UserError(f"--group-pattern {self.group_pattern!r} is no regular expression: {error}.") from None
            if groups < 1:
                raise UserError(
                    f"--group-pattern {self.group_pattern!r} has no group: put brackets around the part that "
                    "names the group, e.g. 'patient(\\d+)'."
                )

    def resolved(self) -> Self:
        """The same with absolute paths, so that a record of it holds in any folder."""
        exclude = self.exclude
        if exclude is not None and exclude != NO_LIST:
            exclude = _absolute(exclude)
        return replace(self, data=_absolute(self.data), exclude=exclude)


def _absolute(place: str) -> str:
    """The absolute path that `place` stands for; itself where nothing is there, as with the name of a set."""
    path = Path(place).expanduser()
    return str(path.resolve()) if path.exists() else place


@dataclass(frozen=True)
class ViewsConfig:
    """How the two views of an image are made."""

    views: str = "auto"
    """Preset: natural, xray, fundus, histology, dermoscopy or digits. auto: what the source suggests, else
    xray for greyscale images and natural for colour."""
    strength: float | None = None
    """Strength of the colour distortion, the s of the SimCLR paper. Default: the preset's own."""

    def __post_init__(self) -> None:
        """Check the range of the strength."""
        if self.strength is not None and not 0 <= self.strength < float("inf"):
            raise UserError(f"--strength is {self.strength}; it must be a finite number from 0 up.")
