"""`fewlabel query`: the images of an index that look like others."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from tyro.conf import Positional, UseAppendAction, arg

from fewlabel.console import as_typed, console, print_table, say
from fewlabel.errors import UserError
from fewlabel.pipelines.indexes import find_index, place_of
from fewlabel.pipelines.outputs import check_ending, refuse_existing

if TYPE_CHECKING:
    from fewlabel.data.decode import Pixels
    from fewlabel.retrieval.contact_sheet import Strip
    from fewlabel.retrieval.description import EncoderFacts
    from fewlabel.retrieval.index import Hit, Index
    from fewlabel.retrieval.manifest import Entry

_BATCH = 64
"""Queries that are read and embedded together."""


@dataclass(frozen=True)
class Config:
    """Find the images of an index that are most like others."""

    images: Positional[tuple[Path, ...]] = ()
    """Image files, or folders of them."""
    index: Path | None = None
    """Index directory, or the run that made it. Default: the newest in runs/."""
    k: Annotated[int, arg(aliases=("-k",))] = 10
    """Neighbours of each."""
    label: UseAppendAction[tuple[str, ...]] = ()
    """Search among the images with this label alone; give it again for a further one."""
    split: UseAppendAction[tuple[str, ...]] = ()
    """Search in this split alone: train, val or test; likewise."""
    picture: Path | None = None
    """Draw the queries and their neighbours as a .png."""
    overwrite: bool = False
    """Replace --picture if it exists."""
    json: bool = False
    """Print the neighbours alone, as JSON, on standard output."""

    def __post_init__(self) -> None:
        """Check values, before anything is loaded."""
        if self.k < 1:
            raise UserError(f"-k is {self.k}; it must be 1 or more.")
        check_ending("--picture", self.picture, (".png",))


class _File(NamedTuple):
    path: Path
    named: bool
    """Whether the user named it, or the folder that it is in."""


class _Bad(NamedTuple):
    path: Path
    reason: str


class _Answer(NamedTuple):
    path: Path
    content: str
    """Hash of the query's file, as the manifest has it."""
    hits: "list[Hit]"


def run(config: Config) -> int:
    """Run the command; its exit status."""
    files = _files_of(config.images)
    refuse_existing("--picture", config.picture, config.overwrite)
    directory = find_index(config.index)
    from fewlabel.retrieval.index import Index
    from fewlabel.retrieval.manifest import Filter

    started = time.perf_counter()
    index = Index.open(directory)
    if not len(index):
        raise UserError(f"The index {directory} is empty: add images with `{as_typed()} index add --data FOLDER`.")
    # Loads the encoder, so that its time is not the first query's.
    index.embed([])
    loaded = time.perf_counter()
    answers: list[_Answer] = []
    bad: list[_Bad] = []
    for start in range(0, len(files), _BATCH):
        paths, contents, squares = _read(files[start : start + _BATCH], index.description.encoder, bad)
        found = index.search(squares, config.k, Filter(config.label, config.split))
        answers += map(_Answer, paths, contents, found)
    latency = (time.perf_counter() - loaded) / len(files)
    if not answers:
        raise UserError(f"No query can be used; of {len(bad)} the first: {bad[0].path}: {bad[0].reason}.")
    if config.json:
        print(json.dumps(_as_json(directory, answers, bad), indent=2))
    else:
        for answer in answers:
            _print(answer)
    _tell(index, answers, bad, config)
    if config.picture is not None:
        _draw(config.picture, index, answers)
    console.print(f"Loaded in {loaded - started:.1f} s, {latency:.3f} s a query.", style="dim", highlight=False)
    return 0


def _files_of(images: Sequence[Path]) -> list[_File]:
    if not images:
        raise UserError(f"Name an image, or a folder of images, as in `{as_typed()} query photo.jpg`.")
    from fewlabel.data.decode import ENDINGS
    from fewlabel.data.folder import find_images
    from fewlabel.data.frames import split_frame
    from fewlabel.data.medical import images_in

    for path in images:
        if not (Path(split_frame(str(path))[0]).is_file() or path.is_dir()):
            raise UserError(f"{path} is no file or folder: name an image, or a folder of images.")
    files = []
    for path in images:
        if not path.is_dir():
            files += [_File(Path(image), named=True) for image in images_in(str(path))]
            continue
        found = find_images(path).images
        if not found:
            raise UserError(f"The folder {path} holds no images. Image files end in {', '.join(sorted(ENDINGS))}.")
        files += [_File(Path(image), named=False) for inside in found for image in images_in(str(path / inside))]
    return files


def _read(
    files: Sequence[_File], facts: "EncoderFacts", bad: list[_Bad]
) -> "tuple[list[Path], list[str], list[Pixels]]":
    """Those that can be used: their paths, content hashes and squares as the index has them; the others go to `bad`.

    Raises:
        UserError: one that the user named can't be used.
    """
    from fewlabel.data.decode import DecodeError
    from fewlabel.data.frames import path_digest
    from fewlabel.data.resize import resize
    from fewlabel.data.scan import read_cell

    paths, contents, squares = [], [], []
    for path, named in files:
        try:
            content = path_digest(str(path)).hex()
            pixels = read_cell({"bytes": None, "path": str(path)}, facts.side, facts.window)
            squares.append(resize(pixels, facts.side, facts.side))
        except (OSError, DecodeError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            if named:
                raise UserError(f"{path} can't be used as a query: {reason}.") from None
            bad.append(_Bad(path, reason))
            continue
        paths.append(path)
        contents.append(content)
    return paths, contents, squares


def _as_json(directory: Path, answers: Sequence[_Answer], bad: Sequence[_Bad]) -> dict[str, Any]:
    def place(entry: "Entry") -> dict[str, Any]:
        return {
            "id": entry.id,
            "path": entry.path,
            "labels": entry.labels,
            "split": entry.split,
            "group": entry.group,
            "moved": entry.moved,
        }

    return {
        "index": str(directory),
        "queries": [
            {
                "query": str(answer.path),
                "neighbours": [
                    {
                        "rank": hit.rank,
                        "similarity": hit.similarity,
                        **place(hit.entry),
                        "same_image": hit.entry.content == answer.content,
                        "copies": [place(copy) for copy in hit.copies],
                    }
                    for hit in answer.hits
                ],
            }
            for answer in answers
        ],
        "skipped": [{"path": str(path), "reason": reason} for path, reason in bad],
    }


def _print(answer: _Answer) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("", "similarity", "image", "label", "split", "", title=Text(str(answer.path)), box=None)
    table.title_justify = "left"
    for column in table.columns[:2]:
        column.justify = "right"
    for hit in answer.hits:
        same = "the same image" if hit.entry.content == answer.content else ""
        for place, entry in enumerate((hit.entry, *hit.copies)):
            first = ("", "") if place else (str(hit.rank), f"{hit.similarity:.3f}")
            notes = ["a copy" if place else "", same, "file has moved" if entry.moved else ""]
            about = (place_of(entry), ", ".join(entry.labels), entry.split, "; ".join(filter(None, notes)))
            table.add_row(*first, *map(Text, about))
    print_table(table)


def _tell(index: "Index", answers: Sequence[_Answer], bad: Sequence[_Bad], config: Config) -> None:
    """Say what the user might not expect of the answers."""
    fewest = min(len(answer.hits) for answer in answers)
    if config.k > len(index):
        say(f"-k is {config.k}, and the index has {len(index):,} different images: those are all.")
    elif fewest < config.k and (config.label or config.split):
        say(f"-k is {config.k}, and {fewest:,} different images fit --label and --split: those are all.")
    moved = [entry for answer in answers for hit in answer.hits for entry in (hit.entry, *hit.copies)]
    moved = [entry for entry in moved if entry.moved]
    if moved:
        say(
            f"{len({entry.path for entry in moved}):,} of these files are no longer where they were indexed, as "
            f"{moved[0].path}. The index answers without them; `{as_typed()} index check` lists all."
        )
    for path, reason in bad[:5]:
        say(f"Skipped {path}: {reason}.")
    if len(bad) > 5:
        say(f"Skipped {len(bad) - 5:,} more files that are no usable images.")


def _draw(path: Path, index: "Index", answers: Sequence[_Answer]) -> None:
    from fewlabel.retrieval.contact_sheet import MOST_STRIPS, draw_contact_sheet

    drawn = draw_contact_sheet(path, [_strip(index, answer) for answer in answers[:MOST_STRIPS]])
    say(f"Picture: {path}" + (f", the first {drawn} of {len(answers):,} queries" if drawn < len(answers) else ""))


def _strip(index: "Index", answer: _Answer) -> "Strip":
    from fewlabel.data.scan import read_cell
    from fewlabel.retrieval.contact_sheet import Strip, Tile
    from fewlabel.retrieval.thumbnails import SIDE, thumbnail_of

    window = index.description.encoder.window
    query = thumbnail_of(read_cell({"bytes": None, "path": str(answer.path)}, SIDE, window))
    tiles = []
    for hit in answer.hits:
        same = hit.entry.content == answer.content
        title = f"{hit.similarity:.3f}{' same image' if same else ''}"
        about = " · ".join(filter(None, (", ".join(hit.entry.labels), hit.entry.split)))
        tiles.append(Tile(index.thumbnail(hit.entry), (title, hit.entry.id, about), marked=same))
    return Strip(str(answer.path), Tile(query, ("query", answer.path.name)), tuple(tiles))
