"""One thing that is conspicuous about one image."""

from dataclasses import dataclass

from fewlabel.cleaning.kinds import KINDS, Kind, Severity

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of an image, and by what measure."""

    kind: Kind
    row: int
    """Of the image in its `Collection`."""
    detail: str
    """A short phrase for a reader, e.g. "same content as a/b.png"."""
    value: float | None = None
    """What was measured, where the finding rests on a threshold; of duplicates the similarity."""
    threshold: float | None = None
    duplicate_group: int | None = None
    """Number of its group of duplicates, from 1."""
    stays: bool = False
    """Of duplicates the image that an exclusion of this kind keeps."""

    @property
    def severity(self) -> Severity:
        """That of its kind."""
        return KINDS[self.kind].severity
