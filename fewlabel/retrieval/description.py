"""What `index.json` says of an index: the one file that tells which others belong to it."""

import hashlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from fewlabel.data.window import AUTO
from fewlabel.errors import UserError
from fewlabel.files import read_json
from fewlabel.retrieval.plan import Plan

__all__ = ["FORMAT", "INDEX", "Description", "EncoderFacts", "StoredFile", "locate", "read_description"]

INDEX = "index.json"

FORMAT = 1
"""Version of the directory's layout; raised when an older reader would go wrong."""


@dataclass(frozen=True)
class StoredFile:
    """A file of the index directory."""

    name: str
    size: int
    """Bytes."""
    blake2b: str
    """Checksum of 16 bytes, in hexadecimal."""

    @classmethod
    def of(cls, path: Path) -> Self:
        """What is at `path`."""
        return cls(path.name, path.stat().st_size, checksum(path))


def checksum(path: Path) -> str:
    """BLAKE2b of a file, 16 bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


@dataclass(frozen=True)
class EncoderFacts:
    """What made the vectors."""

    hash: str
    """The `Encoder.hash`: of the weights and their preprocessing."""
    backbone: str
    image_size: int
    channels: int
    side: int
    """Images are squashed to squares of this many pixels before the encoder's own preprocessing."""
    window: str = AUTO
    """How the values of medical files are shown (see `SourceConfig.window`)."""


@dataclass(frozen=True)
class Description:
    """The index of one generation; each change makes the next."""

    generation: int
    encoder: EncoderFacts
    plan: Plan
    vectors: int
    """Different images."""
    images: int
    """Places where they stand: rows of the manifest."""
    sources: tuple[str, ...]
    """What was read, each as name@fingerprint, in order."""
    vectors_file: StoredFile
    manifest_file: StoredFile
    thumbnail_files: tuple[StoredFile, ...]

    @property
    def width(self) -> int:
        """Components of a vector."""
        return self.plan.width

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """All that belong to this generation."""
        return (self.vectors_file, self.manifest_file, *self.thumbnail_files)

    def as_json(self) -> dict[str, Any]:
        """What `index.json` holds."""
        return {"format": FORMAT, **asdict(self), "plan": self.plan.as_json()}


def locate(path: Path | str) -> Path:
    """The index directory that `path` is, or that the run in `path` made.

    Raises:
        UserError: there is none.
    """
    path = Path(path)
    for directory in (path, path / "index"):
        if (directory / INDEX).is_file():
            return directory
    what = "holds no index" if path.is_dir() else "is no directory" if path.exists() else "does not exist"
    raise UserError(
        f"{path} {what}: an index is a directory with a file {INDEX}, as `fewlabel index build` leaves in RUN/index."
    )


def read_description(directory: Path) -> Description:
    """What the index in `directory` says of itself.

    Raises:
        UserError: it is missing, foreign, damaged or of another format.
    """
    path = directory / INDEX
    value = read_json(path)
    if not isinstance(value, dict) or type(value.get("format")) is not int or "plan" not in value:
        raise UserError(f"{path} is not the {INDEX} of a Fewlabel index.")
    if value["format"] != FORMAT:
        raise UserError(
            f"{path} has format {value['format']} and this version reads {FORMAT}: install the version of Fewlabel "
            "that wrote it, or build the index again."
        )
    try:
        del value["format"]
        if missing := {field.name for field in fields(Description)} ^ value.keys():
            raise ValueError(f"{', '.join(sorted(missing))} missing or unknown")
        found = Description(
            **{
                **value,
                "encoder": EncoderFacts(**value["encoder"]),
                "plan": Plan.from_json(value["plan"]),
                "sources": tuple(value["sources"]),
                "vectors_file": StoredFile(**value["vectors_file"]),
                "manifest_file": StoredFile(**value["manifest_file"]),
                "thumbnail_files": tuple(StoredFile(**file) for file in value["thumbnail_files"]),
            }
        )
        # Whoever wrote it, the names lead nowhere but into the directory.
        if any(Path(file.name).name != file.name for file in found.files):
            raise ValueError("a file name with a folder in it")
        return found
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): build the index again.") from None
