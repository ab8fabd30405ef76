"""`fewlabel clean`: what is wrong with a source's images, before anything learns from them."""

import json
import os
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, Suppress, arg

from fewlabel.cleaning.config import ConvertConfig, FindingsConfig, ThresholdsConfig
from fewlabel.console import as_typed, say
from fewlabel.data.config import NO_LIST, SourceConfig
from fewlabel.errors import UserError
from fewlabel.pipelines.outputs import check_ending, refuse_existing
from fewlabel.tracking.config import RunConfig

COMMAND = "clean"


@dataclass(frozen=True)
class CleanedSource(SourceConfig):
    """Where the images are; all are looked at, whatever was left out before, and however many can't be read."""

    data: str = ""
    """A folder, an .npz, a .parquet/.csv/.jsonl table, hf:owner/name[:config][@revision], or a classic
    set's name such as cifar10 or pathmnist."""
    exclude: Suppress[str | None] = NO_LIST
    max_bad_share: Suppress[float] = 0.05
    streaming: Suppress[bool] = False
    streaming_side: Suppress[int] = 256


@dataclass(frozen=True)
class ApplyConfig:
    """What to do about the images that are better left out; nothing, unless asked."""

    apply: Literal["exclude", "quarantine"] | None = None
    """exclude: write a list of them, which every command takes. quarantine: move their files out of the folder; --undo
    brings them back."""
    exclude_file: Path | None = None
    """The list to write (.csv or .parquet). Default: photos.exclude.csv beside photos/, where all commands find it."""
    quarantine_dir: Path | None = None
    """Where files are moved to, on the same disk. Default: photos.quarantine beside photos/."""
    overwrite: bool = False
    """Replace the list of an earlier --apply exclude."""

    def __post_init__(self) -> None:
        """Check that options fit together, before any image is read."""
        check_ending("--exclude-file", self.exclude_file)
        for flag, value, wanted in (
            ("--exclude-file", self.exclude_file, "exclude"),
            ("--quarantine-dir", self.quarantine_dir, "quarantine"),
        ):
            if value is not None and self.apply != wanted:
                raise UserError(f"{flag} {value} is for --apply {wanted}: add that, or leave it out.")


@dataclass(frozen=True)
class Config:
    """Find what is wrong with a source's images: broken, odd, blurred, twice; nothing is changed unless asked."""

    images: Annotated[Positional[str], arg(metavar="SOURCE")] = ""
    """Where the images are, as for --data."""
    source: CleanedSource = field(default_factory=CleanedSource)
    thresholds: ThresholdsConfig = field(default_factory=ThresholdsConfig)
    findings: FindingsConfig = field(default_factory=FindingsConfig)
    encoder: Path | None = None
    """Encoder directory, or the run that made it: images that it hardly tells apart are told too."""
    apply: ApplyConfig = field(default_factory=ApplyConfig)
    copies: ConvertConfig = field(default_factory=ConvertConfig)
    undo: Path | None = None
    """The log of a quarantine: move its files back, and do nothing else."""
    run: RunConfig = field(default_factory=RunConfig)
    json: bool = False
    """Print the result alone, as JSON, on standard output."""


def run(config: Config) -> int:
    """Run the command; its exit status."""
    if config.undo is not None:
        if config.images or config.source.data:
            raise UserError("--undo takes the log alone, which says where the files were: leave the source out.")
        return _undo(config.undo, as_json=config.json)
    config = _checked(config)

    from fewlabel.pipelines.clean_outcome import clean

    result = clean(config)
    if config.json:
        print(json.dumps(result, indent=2))
    return 0


def _checked(config: Config) -> Config:
    """The configuration with absolute paths, after all checks that take no look at the images."""
    given = {name for name in (config.images, config.source.data) if name}
    if not given:
        raise UserError("Which images? Say where they are, as in `fewlabel clean photos/`.")
    if len(given) > 1:
        raise UserError(f"{config.images} and --data {config.source.data} both name a source: give one of them.")
    config = replace(config, images="", source=replace(config.source, data=given.pop()).resolved())
    apply, data = config.apply, config.source.data
    folder = Path(data) if Path(data).is_dir() else None
    if apply.apply == "exclude":
        from fewlabel.data.exclusion import list_beside

        place = apply.exclude_file or list_beside(data)
        if place is None:
            raise UserError(f"{data} is no folder or file that a list could lie beside: say where with --exclude-file.")
        _refuse_inside("--exclude-file", place, folder)
        refuse_existing("--exclude-file", place, apply.overwrite)
        config = replace(config, apply=replace(apply, exclude_file=place.absolute()))
    if apply.apply == "quarantine":
        from fewlabel.cleaning.quarantine import check_quarantine

        if folder is None:
            raise UserError(
                f"Only files of a folder can be moved to a quarantine, and {data} is none. Leave its images out with "
                "--apply exclude."
            )
        into = apply.quarantine_dir or folder.with_name(f"{folder.name}.quarantine")
        check_quarantine(folder, into)
        config = replace(config, apply=replace(apply, quarantine_dir=into.absolute()))
    if config.copies.convert is not None:
        from fewlabel.cleaning.convert import check_destination

        check_destination(config.copies.convert, folder)
        config = replace(config, copies=replace(config.copies, convert=config.copies.convert.absolute()))
    out = config.run.out or Path("runs")
    _refuse_inside("--out", out, folder)
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not os.access(there, os.W_OK):
        raise UserError(f"The report can't be written to {out}: {there} is read-only. Choose a place with --out.")
    return config


def _refuse_inside(flag: str, place: Path, folder: Path | None) -> None:
    if folder is not None and place.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{place} lies in the images' own folder {folder}, where nothing is written. Name a place with {flag}."
        )


def _undo(log: Path, *, as_json: bool) -> int:
    from fewlabel.cleaning.quarantine import undo

    moves = undo(log)
    say(f"Moved back: {len(moves.moved):,} files of {log}.")
    for refusal in moves.refused[:20]:
        say(f"  not {refusal.file!r}: {refusal.reason}")
    if moves.refused:
        more = f" ({len(moves.refused) - 20:,} more than listed)" if len(moves.refused) > 20 else ""
        again = f"{as_typed()} clean --undo {shlex.quote(str(log))}"
        say(f"{len(moves.refused):,} files stay as they are{more}. Put that right, and run again: {again}")
    if as_json:
        refused = [{"file": refusal.file, "reason": refusal.reason} for refusal in moves.refused]
        print(json.dumps({"log": str(log), "restored": moves.moved, "refused": refused}, indent=2))
    return 2 if moves.refused else 0
