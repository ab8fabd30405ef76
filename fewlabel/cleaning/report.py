"""The page that says what was found in a collection, with pictures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fewlabel.cleaning.collection import Collection
from fewlabel.cleaning.distributions import draw_distribution, plain
from fewlabel.cleaning.kinds import KINDS
from fewlabel.cleaning.measures import MEASURES
from fewlabel.cleaning.verdict import COPIES, GROUPS, MEMBERS, Outcome, sentences
from fewlabel.console import track
from fewlabel.data.decode import DecodeError, Pixels
from fewlabel.data.parallel import ordered_map
from fewlabel.data.resize import resize
from fewlabel.data.scan import available_cores, read_cell
from fewlabel.tracking.report import Cell, Page, Thumbnail

__all__ = ["look_at", "write_report"]

_LISTED: Final = 40
"""Images without a picture that are named."""

_SIDE: Final = 144
"""Longest side of a picture in pixels."""


def look_at(outcome: Outcome, *, workers: int | None, window: str) -> dict[int, Pixels]:
    """Small pictures of the images that the page shows, by row; (H, W, C) uint8 or uint16.

    To be taken before any file is moved. An image that can no longer be read has none.
    """

    def small(row: int) -> Pixels | None:
        cell = outcome.collection.cell(row)
        try:
            pixels = None if cell is None else read_cell(cell, _SIDE, window)
        except DecodeError:
            return None
        if pixels is None:
            return None
        height, width, _ = pixels.shape
        scale = min(1.0, _SIDE / max(height, width))
        return resize(pixels, max(1, round(height * scale)), max(1, round(width * scale)))

    rows = outcome.shown
    pictures = track(ordered_map(small, rows, workers or available_cores()), "Drawing", total=len(rows))
    return {row: picture for row, picture in zip(rows, pictures, strict=True) if picture is not None}


def write_report(
    outcome: Outcome,
    pictures: Mapping[int, Pixels],
    directory: Path,
    *,
    subtitle: str,
    done: Sequence[str],
    about: Mapping[str, str],
) -> Path:
    """Write `directory`/report.html, which holds all it shows, and `directory`/distributions/*.png.

    Args:
        outcome: what was found.
        pictures: of `look_at`.
        directory: of the run.
        subtitle: below the title.
        done: sentences on what was done about it, and what to do next.
        about: how it was looked for, by name.

    Raises:
        UserError: a file can't be written.
    """
    page = Page(f"{outcome.collection.name}: is it fit to learn from?", subtitle)
    page.section("What was found")
    for place, sentence in enumerate(sentences(outcome)):
        page.paragraph(sentence, lead=place == 0)
    for sentence in done:
        page.paragraph(sentence)
    _add_counts(page, outcome)
    _add_splits(page, outcome.collection)
    _add_distributions(page, outcome, directory / "distributions")
    _add_kinds(page, outcome, pictures)
    _add_groups(page, outcome, pictures)
    page.section("How it was looked for")
    page.definitions(about)
    return page.write(directory / "report.html")


def _add_counts(page: Page, outcome: Outcome) -> None:
    rows: list[list[Cell]] = []
    for count in outcome.counts:
        severity, title, meaning = KINDS[count.kind]
        rows.append([title, severity, count.images, count.left_out, meaning])
    if rows:
        page.table(
            ["Finding", "Severity", "Images", "Of these left out", "What it means"],
            rows,
            "Every kind of finding. An image may have several, and counts for each.",
        )


def _add_splits(page: Page, collection: Collection) -> None:
    if collection.source is None:
        return
    rows: list[list[Cell]] = []
    for split, part in collection.source.items():
        mine = [row for row, other in enumerate(collection.splits) if other == split]
        groups = {collection.groups[row] for row in mine} - {None}
        labelled = sum(collection.labels[row] is not None for row in mine)
        rows.append([split, len(part), labelled, len(groups) or None])
    page.heading("Splits")
    page.table(["Split", "Images", "Labelled", "Groups"], rows, "The splits as every command makes or finds them")


def _add_distributions(page: Page, outcome: Outcome, folder: Path) -> None:
    page.section("Thresholds")
    rows: list[list[Cell]] = []
    for kind, threshold in outcome.thresholds.items():
        sides = (("below", threshold.low), ("above", threshold.high))
        limits = [f"{side} {plain(limit)}" for side, limit in sides if limit is not None]
        measure = MEASURES[threshold.measure]
        title = ", ".join(filter(None, (measure.title, measure.unit)))
        rows.append([KINDS[kind].title, title, " or ".join(limits), threshold.flag, threshold.explanation])
    page.table(
        ["Finding", "What is measured", "Conspicuous", "Option", "Where the threshold comes from"],
        rows,
        "Thresholds follow from the collection, unless an option sets them",
    )
    drawn, told = [], {count.kind: count.images for count in outcome.counts}
    for kind, threshold in outcome.thresholds.items():
        values = outcome.collection.measures[threshold.measure][outcome.collection.decoded]
        if not np.isfinite(values).any():
            continue
        path = folder / f"{kind}.png"
        measure, title = MEASURES[threshold.measure], KINDS[kind].title
        draw_distribution(path, title.capitalize(), measure, values, threshold.low, threshold.high)
        beyond = int(threshold.beyond(values).sum())
        caption = f"{beyond:,} of {len(values):,} images are beyond the threshold."
        if beyond > told.get(kind, 0):
            caption += f" Another finding says more of {beyond - told.get(kind, 0):,}."
        drawn.append((path.read_bytes(), caption, f"Histogram of the {measure.title}. {caption}"))
    page.gallery(drawn)


def _add_kinds(page: Page, outcome: Outcome, pictures: Mapping[int, Pixels]) -> None:
    single = {kind: found for kind, found in outcome.by_kind.items() if kind not in COPIES}
    if not single:
        return
    page.section("Image by image")
    for kind, found in single.items():
        worst = [finding for finding in outcome.worst(kind) if finding.row in pictures]
        named = [finding for finding in found if finding.row not in pictures][:_LISTED] if not worst else []
        page.heading(f"{KINDS[kind].title.capitalize()}: {len(found):,}")
        of_these = f" The {len(worst)} farthest from the others:" if len(found) > len(worst) > 0 else ""
        page.paragraph(f"{KINDS[kind].meaning}{of_these}")
        if worst:
            alike = Counter(outcome.collection.pixels[finding.row] for finding in found)
            thumbnails = []
            for finding in worst:
                more = alike[outcome.collection.pixels[finding.row]] - 1
                detail = f"{finding.detail}; {more:,} more of the same pixels" if more else finding.detail
                thumbnails.append(_thumbnail(outcome, finding.row, pictures, detail))
            page.thumbnails(thumbnails)
        if named:
            page.listing([f"{outcome.collection.ids[finding.row]}: {finding.detail}" for finding in named])
        if len(found) > len(worst) + len(named):
            page.paragraph(f"All {len(found):,} are in the manifest.")


def _add_groups(page: Page, outcome: Outcome, pictures: Mapping[int, Pixels]) -> None:
    groups = outcome.findings.groups
    if not groups:
        return
    page.section("Copies side by side")
    told = f" The first {GROUPS} of {len(groups):,} groups; all are in the manifest." if len(groups) > GROUPS else ""
    page.paragraph(
        "Each group is linked copy by copy, so that the ends of a long one may be less alike; the number is the "
        f"similarity to the group's first image, which stays if one does.{told}"
    )
    for group in outcome.first_groups:
        said = outcome.kinds_of_groups.get(group.number, set())
        kinds = ", ".join(KINDS[kind].title for kind in KINDS if kind in said)
        page.heading(f"Group {group.number}: {len(group.rows):,} images, {kinds}")
        members = zip(group.rows[:MEMBERS], group.similarity[:MEMBERS], strict=True)
        shown = [
            _thumbnail(outcome, row, pictures, "" if place == 0 else f"similarity {similarity:.3f}")
            for place, (row, similarity) in enumerate(members)
            if row in pictures
        ]
        page.thumbnails(shown)
        if len(group.rows) > MEMBERS:
            page.paragraph(f"And {len(group.rows) - MEMBERS:,} more.")


def _thumbnail(outcome: Outcome, row: int, pictures: Mapping[int, Pixels], detail: str) -> Thumbnail:
    collection = outcome.collection
    labels = collection.labels[row]
    reason = outcome.excluded.get(row)
    lines = [
        collection.ids[row],
        " · ".join(filter(None, (", ".join(labels or ()), collection.splits[row], collection.groups[row]))),
        detail,
        "left out" if reason is not None else "",
    ]
    pixels: NDArray[Any] = pictures[row].transpose(2, 0, 1)
    return Thumbnail(pixels, [line for line in lines if line])
