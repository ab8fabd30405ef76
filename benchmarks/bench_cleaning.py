"""`fewlabel clean` beside cleanvision on one folder of real images with 20 kinds of planted faults.

Each side does its whole work in turns: ours from the look at the folder to manifest and report; cleanvision all its
checks with its own thresholds, on the files that it can take.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import cleaning_growth
from benchmarks.cleaning_truth import APART, SHARED, Question, Score, score
from benchmarks.dirty_folder import Planted, plant
from benchmarks.rows import Row, at_least
from benchmarks.sides import Side

__all__ = ["run"]

LEAST_SPEED = 2.0
ROUNDS = 3
EACH = 125
"""One image in so many has a given fault."""


def run(photos: Path, cleanvision: Path | None = None, images: int = 5000, rounds: int = ROUNDS) -> list[Row]:
    """Faults found, images a second, and the growth of the search for near duplicates.

    Args:
        photos: a folder of photos of about 400 px, each class in a sub-folder.
        cleanvision: the Python of a virtual environment that has it.
        images: in the folder that is made.
        rounds: turns of each side, after one that warms up.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        return [*_faults(photos, cleanvision, scratch, images, rounds), *cleaning_growth.run()]


def _faults(photos: Path, cleanvision: Path | None, scratch: Path, images: int, rounds: int) -> list[Row]:
    dirty = scratch / "dirty"
    planted = plant(photos, dirty, images, each=images // EACH)
    found = {name: scratch / f"found-{name}.json" for name in ("ours", "peer")}
    seconds: dict[str, list[float]] = {}
    with Side("benchmarks.cleaning_fewlabel", str(dirty), str(scratch), str(found["ours"])) as ours:
        if cleanvision is None:
            ours.ask("clean")
            return _apart(planted, _read(found["ours"]), (*SHARED, *APART))
        arguments = ("benchmarks.cleaning_cleanvision", str(dirty), str(found["peer"]))
        # Its progress bar would take time from it.
        with Side(*arguments, settings={"TQDM_DISABLE": "1"}, python=cleanvision) as peer:
            for _ in range(rounds + 1):
                for name, side in (("ours", ours), ("peer", peer)):
                    seconds.setdefault(name, []).append(side.ask("clean")["seconds"])
            facts = peer.facts
    taken = {name: median(turns[1:]) for name, turns in seconds.items()}
    speed = at_least(
        LEAST_SPEED,
        f"images a second, {images:,} images with {len(planted):,} faults, beside cleanvision",
        images / taken["ours"],
        facts["images"] / taken["peer"],
        "/s",
        note=f"median of {rounds}: {taken['ours']:.1f} s beside {taken['peer']:.1f} s; ours with manifest and report; "
        f"cleanvision's checks alone, in {facts['workers']} processes, on the {facts['images']:,} files that it can "
        f"take: the whole folder stops it with {facts['stopped']}",
    )
    mine, other = _read(found["ours"]), _read(found["peer"])
    return [speed, *_shared(planted, mine, other), *_apart(planted, mine, APART)]


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _score(question: Question, kinds: Sequence[str], planted: Sequence[Planted], found: Mapping[str, Any]) -> Score:
    images = {image for kind in kinds for image in found["images"].get(kind, ())}
    groups = [group for kind in kinds for group in found["groups"].get(kind, ())]
    return score(question, planted, images, groups)


def _shared(planted: Sequence[Planted], mine: Mapping[str, Any], other: Mapping[str, Any]) -> list[Row]:
    """Recall and precision of both."""
    rows = []
    for question in SHARED:
        ours = _score(question, question.ours, planted, mine)
        peer = _score(question, [question.peer], planted, other)
        for name, own, beside in (
            ("recall", ours.recall, peer.recall),
            ("precision", ours.precision, peer.precision),
        ):
            rows.append(
                Row(
                    name=f"{name}: {question.title}, beside cleanvision's {question.peer}",
                    ours=own,
                    peer=beside,
                    ratio=own / max(beside, 0.001),
                    unit="",
                    target="no worse",
                    met=own >= beside,
                    note=_missed(ours, peer, planted) if name == "recall" else _false(ours, peer, planted),
                )
            )
    return rows


def _apart(planted: Sequence[Planted], mine: Mapping[str, Any], questions: Sequence[Question]) -> list[Row]:
    """Recall, and precision in the note, of what only ours has a name for; or where there is no peer."""
    rows = []
    for question in questions:
        ours = _score(question, question.ours, planted, mine)
        rows.append(
            Row(
                name=f"recall: {question.title}" + ("" if question.peer else ", which cleanvision has no name for"),
                ours=ours.recall,
                peer=0.0,
                ratio=1.0,
                unit="",
                target="as it comes",
                met=True,
                note=f"precision {ours.precision:.3f}; {_missed(ours, None, planted)}; {_false(ours, None, planted)}",
            )
        )
    return rows


def _missed(ours: Score, peer: Score | None, planted: Sequence[Planted]) -> str:
    """What was not found, by how it was made."""
    made: dict[Any, str] = {}
    for fault in planted:
        made |= {fault.id: fault.how, tuple(sorted((fault.id, fault.original))): fault.how}
        if fault.original:
            made[fault.original] = f"original of {fault.how}"

    def listed(score: Score) -> str:
        how = Counter(made[thing] for thing in score.missed)
        return f"{len(score.missed)} missed" + (f" ({_counts(how)})" if how else "")

    return listed(ours) + ("" if peer is None else f"; cleanvision {listed(peer)}")


def _false(ours: Score, peer: Score | None, planted: Sequence[Planted]) -> str:
    """What was found wrongly, by what it is."""
    kinds = {fault.id: fault.kind for fault in planted}

    def listed(score: Score) -> str:
        what = Counter(
            " with ".join(
                sorted({kinds.get(image, "sound") for image in ([thing] if isinstance(thing, str) else thing)})
            )
            for thing in score.false
        )
        return f"{len(score.false)} wrongly" + (f" ({_counts(what)})" if what else "")

    return listed(ours) + ("" if peer is None else f"; cleanvision {listed(peer)}")


def _counts(counted: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counted.most_common(4))
