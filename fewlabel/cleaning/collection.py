"""Everything that one pass over a collection's images brings to light, in columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
from numpy.typing import NDArray

from fewlabel.cleaning.kinds import Kind
from fewlabel.data.source import Source

__all__ = ["Collection", "Fault"]


class Fault(NamedTuple):
    """What is wrong with a file, whatever the others are like."""

    kind: Kind
    detail: str


@dataclass(frozen=True)
class Collection:
    """The images that a source lists, then what stands in its folder beside them; a row each.

    Sequences and arrays all have one entry a row; pixels are not kept.
    """

    name: str
    root: Path | None
    """The folder, of a source that is one."""
    ids: Sequence[str]
    listed: NDArray[np.bool_]
    """Whether the source lists it as an image; of what it passes over only faulty things stand here."""
    splits: Sequence[str]
    """"train", "val" or "test"; "" where the image is in none, as it can't be read."""
    paths: Sequence[str | None]
    """Absolute, with `#frame=N` where it is one of several images of a file; None for an image inside another file."""
    labels: Sequence[tuple[str, ...] | None]
    """The class, or those of several labels that are yes; None where nothing is known."""
    groups: Sequence[str | None]
    contents: Sequence[str]
    """BLAKE2b of the encoded image (16 bytes), as a `Source` has it, in hexadecimal; "" where it can't be read."""
    pixels: Sequence[bytes]
    """SHA-256 of the decoded pixels, their shape and depth (16 bytes of it); b"" where they can't be decoded."""
    formats: Sequence[str]
    """JPEG, PNG, DICOM, ...; "" where it is unknown."""
    modes: Sequence[str]
    """How the file holds its pixels: in Pillow's words, or a DICOM's photometric interpretation; "" where unknown."""
    measures: dict[str, NDArray[np.float32]]
    """By the names in `measures.MEASURES`; NaN where there is none."""
    hashes: NDArray[np.uint64]
    """`likeness.perceptual_hash`; 0 where there is none."""
    signatures: NDArray[np.float32]
    """(N, 63), `likeness.signature`; zeros where there is none and for a picture of one grey."""
    faults: Sequence[tuple[Fault, ...]]
    source: Source | None
    """What `load` would make of it; None where it would refuse, as there are too few readable images."""
    _parts: dict[str, datasets.Dataset]
    _places: Sequence[tuple[str, int] | None]

    def __len__(self) -> int:
        """Rows."""
        return len(self.ids)

    @cached_property
    def decoded(self) -> NDArray[np.bool_]:
        """(N,) Whether the pixels could be decoded."""
        return np.array([bool(digest) for digest in self.pixels], dtype=bool)

    def cell(self, row: int) -> dict[str, Any] | None:
        """The undecoded Image cell {"bytes", "path"} of a row, for `scan.read_cell`; None for one beside the images."""
        place = self._places[row]
        if place is None:
            return None
        part, index = place
        cell: dict[str, Any] | None = self._parts[part][index]["image"]
        return cell
