"""From a look at all images to a run's report, and to what the user asked to be done about them."""

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fewlabel import __version__
from fewlabel.cleaning.choice import excluded as excluded_by
from fewlabel.cleaning.collection import Collection
from fewlabel.cleaning.convert import convert
from fewlabel.cleaning.examine import examine
from fewlabel.cleaning.findings import find
from fewlabel.cleaning.kinds import KINDS
from fewlabel.cleaning.manifest import write_manifest
from fewlabel.cleaning.quarantine import Moves, Refusal, quarantine
from fewlabel.cleaning.report import look_at, write_report
from fewlabel.cleaning.thresholds import derive_thresholds
from fewlabel.cleaning.verdict import Outcome, sentences
from fewlabel.console import as_typed, print_table, say, say_rows
from fewlabel.data.exclusion import COLUMNS, count_reasons, list_beside
from fewlabel.data.frames import split_frame
from fewlabel.data.window import AUTO
from fewlabel.errors import UserError
from fewlabel.pipelines.clean import COMMAND, Config
from fewlabel.pipelines.configuration import as_dict
from fewlabel.pipelines.outputs import write_table
from fewlabel.pipelines.sources import record_of, shown_alike
from fewlabel.tracking.run import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fewlabel.backbones.encoder import Encoder

__all__ = ["clean"]


@dataclass
class _Done:
    """What was done about the findings, for people and for the record."""

    said: list[str] = field(default_factory=list)
    recorded: dict[str, Any] = field(default_factory=dict)


def clean(config: Config) -> dict[str, Any]:
    """Look at all images, report, and do what `config` asks for; the result as written."""
    encoder: Encoder | None = None
    parents: dict[str, str] = {}
    if config.encoder is not None:
        from fewlabel.backbones.encoder import load_encoder
        from fewlabel.pipelines.labelled import find_encoder

        directory = find_encoder(config.encoder)
        encoder = load_encoder(directory)
        window = shown_alike(config.source, encoder.config.provenance).window
        config = replace(config, encoder=directory.resolve(), source=replace(config.source, window=window))
        maker = str(encoder.config.provenance.get("run", directory))
        parents["encoder"] = f"{maker}@{encoder.hash[:16]}"
    _tell_list_beside(config)
    collection = examine(config.source)
    thresholds = derive_thresholds(collection, config.thresholds)
    semantic = None if encoder is None else _alike(collection, encoder, config)
    findings = find(collection, thresholds, config.thresholds, semantic)
    excluded = excluded_by(collection, findings.all, config.findings.exclude_kinds)
    outcome = Outcome(collection, findings, thresholds, excluded)
    about: dict[str, Any] = {"name": collection.name, "data": config.source.data, "fingerprint": None}
    if collection.source is not None:
        about = record_of(collection.source, config.source)
        parents["source"] = f"{about['name']}@{about['fingerprint']}"
    with Run.create(
        COMMAND,
        as_dict(replace(config, run=replace(config.run, out=None), json=False)),
        out=config.run.out,
        slug=collection.name,
        parents=parents,
        source={**about, "images": int(collection.listed.sum())},
        project=config.run.project,
    ) as record:
        manifest = write_manifest(collection, findings, excluded, record.directory)
        pictures = look_at(outcome, workers=config.source.workers, window=config.source.window or AUTO)
        done = _act(config, outcome, record.record["run"])
        page = write_report(
            outcome,
            pictures,
            record.directory,
            subtitle=f"{record.record['created'][:10]}, {record.record['run']}, Fewlabel {__version__}",
            done=done.said,
            about=_about(config, collection),
        )
        counts = [(count.kind, KINDS[count.kind].severity, count.images, count.left_out) for count in outcome.counts]
        record.log_table("findings", ["finding", "severity", "images", "left out"], counts)
        images = int(collection.listed.sum())
        result = record.finish(
            {"left_out_share": len(excluded) / max(images, 1), "left_out": len(excluded), "images": images},
            findings={count.kind: count.images for count in outcome.counts},
            left_out_because=count_reasons(list(excluded.values())),
            duplicate_groups=len(findings.groups),
            thresholds={kind: asdict(threshold) for kind, threshold in thresholds.items()},
            report=str(page),
            manifest=[str(path) for path in manifest],
            **done.recorded,
        )
        if findings.all and not config.json:
            _print(outcome)
        for sentence in (*sentences(outcome), *done.said):
            say(sentence)
        say_rows({"report": str(page), "manifest": " and ".join(map(str, manifest))})
    return result


def _tell_list_beside(config: Config) -> None:
    beside = list_beside(config.source.data)
    if beside is not None and beside.exists() and config.apply.apply != "exclude":
        say(f"{beside} leaves images out of every other command; here all are looked at.")


def _alike(collection: Collection, encoder: "Encoder", config: Config) -> "NDArray[np.int64]":
    """For each row the number of its group of images that the encoder hardly tells apart; -1 without features."""
    from fewlabel.data.sizes import stored_side
    from fewlabel.data.store import cache_folder, open_split
    from fewlabel.retrieval.duplicates import link_vectors
    from fewlabel.retrieval.vectors import VectorIndex
    from fewlabel.training.config import TrainingConfig
    from fewlabel.training.feature_store import features_of
    from fewlabel.training.processes import make_accelerator

    groups = np.full(len(collection), -1, dtype=np.int64)
    source = collection.source
    if source is None:
        say("Too few images can be read for the encoder: semantic duplicates are not looked for.")
        return groups
    side = stored_side(encoder.image_size, source.median_side)
    readable = {split for split, decoded in zip(collection.splits, collection.decoded, strict=True) if decoded}
    reading = replace(config.source, max_bad_share=0.999)
    stores = {split: open_split(source, split, side, reading) for split in source if split in readable}
    accelerator = make_accelerator(TrainingConfig(), "fp32")
    found = features_of(encoder, stores, source.fingerprint, accelerator, cache_dir=cache_folder(config.source))
    row_of = {identity: row for row, identity in enumerate(collection.ids)}
    rows = np.array([row_of[identity] for split in stores for identity in found[split].ids], dtype=np.int64)
    vectors = np.concatenate([found[split].values.numpy() for split in stores])
    index = VectorIndex.build(vectors, rows, metric="cosine")
    keys = np.sort(rows)
    exhaustive = index.plan.factory == "Flat"
    groups[keys] = link_vectors(index, keys, config.thresholds.semantic, exhaustive=exhaustive)
    return groups


def _act(config: Config, outcome: Outcome, name: str) -> _Done:
    """Do what --apply and --convert ask for."""
    done, out = _Done(), len(outcome.excluded)
    apply, place = config.apply, config.apply.exclude_file
    if config.copies.convert is not None:
        _convert(config, outcome, done)
    if apply.apply == "exclude" and place is not None:
        collection = outcome.collection
        listed = np.flatnonzero(collection.listed).tolist()
        columns: list[list[Any]] = [
            [collection.ids[row] for row in listed],
            [collection.contents[row] for row in listed],
            [outcome.excluded.get(row) for row in listed],
        ]
        write_table(dict(zip(COLUMNS, columns, strict=True)), place)
        beside = place == list_beside(config.source.data)
        done.said.append(
            f"{place} lists {out:,} images to leave out. "
            + ("Every command on these images finds it." if beside else f"Commands take it by --exclude {place}.")
        )
        done.recorded["exclusion"] = str(place)
    elif apply.apply == "quarantine" and apply.quarantine_dir is not None:
        moves = _set_aside(outcome, apply.quarantine_dir, name)
        done.said += _told(moves)
        done.recorded["quarantine"] = {
            "log": None if moves.log is None else str(moves.log),
            "moved": moves.moved,
            "refused": [refusal._asdict() for refusal in moves.refused],
        }
    elif out:
        done.said.append(
            "Nothing was changed. To leave these images out of every command, add --apply exclude; to move their files "
            "away until further notice, --apply quarantine; to write cleaned copies of the others, --convert FOLDER."
        )
    return done


def _set_aside(outcome: Outcome, into: Path, name: str) -> Moves:
    collection = outcome.collection
    if collection.root is None:
        raise UserError(f"{collection.name} is no folder of image files: leave images out with --apply exclude.")
    inside: Counter[str] = Counter()
    leaving: dict[str, list[int]] = {}
    for row in np.flatnonzero(collection.listed).tolist():
        file = split_frame(collection.paths[row] or "")[0]
        inside[file] += 1
        if row in outcome.excluded:
            leaving.setdefault(file, []).append(row)
    whole = {
        # The hash of one image of several is not that of its file.
        Path(file): collection.contents[rows[0]] if collection.paths[rows[0]] == file else ""
        for file, rows in leaving.items()
        if len(rows) == inside[file]
    }
    moves = quarantine(collection.root, whole, into, name)
    partly = [
        Refusal(file, f"{len(rows)} of its {inside[file]} images are to go: leave them out with --apply exclude")
        for file, rows in leaving.items()
        if len(rows) < inside[file]
    ]
    return replace(moves, refused=[*moves.refused, *partly])


def _told(moves: Moves) -> list[str]:
    said = []
    if moves.log is not None:
        said.append(
            f"{len(moves.moved):,} files were moved to {moves.log.with_suffix('')}. Back again with: "
            f"{as_typed()} clean --undo {shlex.quote(str(moves.log))}"
        )
    if moves.refused:
        first = moves.refused[0]
        said.append(
            f"{len(moves.refused):,} files were not moved, and result.json says why; the first: {first.file}: "
            f"{first.reason}."
        )
    return said or ["There was no file to move."]


def _convert(config: Config, outcome: Outcome, done: _Done) -> None:
    collection = outcome.collection
    rows = [
        row for row in np.flatnonzero(collection.listed & collection.decoded).tolist() if row not in outcome.excluded
    ]
    workers, window = config.source.workers, config.source.window or AUTO
    copies = convert(collection, rows, config.copies, workers=workers, window=window)
    done.said.append(
        f"{copies.written:,} cleaned copies are in {config.copies.convert}; read them by {copies.table}, which keeps "
        "ids, labels, groups and splits."
    )
    if copies.deep:
        done.said.append(f"{copies.deep:,} of them are PNG, as they have 16 bits a channel.")
    if copies.failed:
        done.said.append(f"{len(copies.failed):,} images can no longer be read and have no copy.")
    done.recorded["copies"] = {
        "table": str(copies.table),
        "written": copies.written,
        "failed": [{"id": image.id, "reason": image.reason} for image in copies.failed],
    }


def _about(config: Config, collection: Collection) -> Mapping[str, str]:
    """How it was looked for, for the report's reader."""
    from fewlabel.tracking.provenance import provenance

    made_by = provenance()["git"] or {}
    return {
        "source": config.source.data,
        "images": f"{int(collection.listed.sum()):,}, each opened and decoded once",
        "window": config.source.window or AUTO,
        "left out are": ", ".join(config.findings.exclude_kinds) or "none",
        "near duplicates": f"hashes within {config.thresholds.hash_bits} of 64 bits, confirmed by similarity",
        "semantic duplicates": f"cosine of {config.thresholds.semantic:g} or more by {config.encoder}"
        if config.encoder is not None
        else "not looked for: no --encoder",
        "code": f"Fewlabel {__version__} {made_by.get('commit', '')}".strip(),
    }


def _print(outcome: Outcome) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("finding", "severity", "images", "of these left out", "for example", box=None)
    for count, found in zip(outcome.counts, outcome.by_kind.values(), strict=True):
        example = Text(outcome.collection.ids[found[0].row], overflow="ellipsis", no_wrap=True)
        kind = KINDS[count.kind]
        table.add_row(kind.title, kind.severity, f"{count.images:,}", f"{count.left_out:,}", example)
    print_table(table)
