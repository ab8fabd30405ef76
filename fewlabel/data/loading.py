"""Where images come from: one string, one `Source`."""

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import datasets

from fewlabel.console import console
from fewlabel.data.arrays import read_npz
from fewlabel.data.config import SourceConfig
from fewlabel.data.digits import read_digits
from fewlabel.data.exclusion import Exclusion, read_exclusion
from fewlabel.data.folder import find_images, read_folder
from fewlabel.data.hub import read_home, read_hub, read_local_copy
from fewlabel.data.medical import expand
from fewlabel.data.names import CLASSICS
from fewlabel.data.origin import WHOLE, BadImage, Origin, column, labels_of
from fewlabel.data.scan import Seen, available_cores, scan
from fewlabel.data.source import Source, fingerprint_of
from fewlabel.data.splits import divide, strata_of
from fewlabel.data.table import TABLE_ENDINGS, read_table
from fewlabel.data.window import AUTO
from fewlabel.errors import UserError

__all__ = ["TooFewImages", "check_bad_share", "divide_origin", "load", "read_origin"]


class TooFewImages(UserError):
    """A source has fewer readable images, or groups of them, than its splits need."""


def load(source: str | SourceConfig, *, least: int = 2) -> Source:
    """Find, look at and divide the images that `source` names; see `SourceConfig.data` for what it may be.

    Every image is opened once to hash it and read its header. What can't be read is named in `Source.bad` and
    left out. An existing path comes before a classic set of the same name. What a list excludes (see
    `SourceConfig.exclude`) is taken out of the splits after they are made, so that a list moves no image to another
    split.

    Args:
        source: see above.
        least: images that train must have; 2 to learn from, 1 to say something of.

    Raises:
        UserError: there is nothing of that name, too few images, too many bad ones, or a contradiction.
    """
    config = SourceConfig(data=source) if isinstance(source, str) else source
    exclusion = read_exclusion(config.exclude, config.data)
    origin = read_origin(config)
    workers = config.workers or available_cores()
    looks = {name: scan(part, workers, f"Reading {origin.name}") for name, part in origin.parts.items()}
    excluded = _excluded(exclusion, origin, looks)
    bad = [image for image in _unreadable(origin, looks) if image.id not in excluded]
    check_bad_share(bad, sum(map(len, looks.values())) - len(excluded), config.max_bad_share, origin.name)
    divided = divide_origin(origin, looks, config, least=least, excluded=excluded)
    divided.exclusion = exclusion
    if divided.groups_told is not None:
        told = f"{divided.name}: groups that stay together: {divided.groups_told}."
        console.print(told, markup=False, highlight=False)
    _warn_of_leaks(divided)
    return divided


def read_origin(config: SourceConfig) -> Origin:
    """The images that `config` names, before any of them is opened: the first step of `load`.

    Raises:
        UserError: there is nothing of that name, or an image stands in it twice.
    """
    origin = expand(_read(config), config, config.workers or available_cores())
    _check_unique([identity for part in origin.parts.values() for identity in column(part, "id")], origin.name)
    return origin


def divide_origin(
    origin: Origin,
    looks: Mapping[str, Sequence[Seen]],
    config: SourceConfig,
    *,
    least: int = 2,
    excluded: Mapping[str, str] | None = None,
) -> Source:
    """The readable images of an origin in their splits: the last step of `load`.

    Args:
        origin: what `read_origin` gave.
        looks: what was seen of each row of each part.
        config: says which splits to make, where the origin has none.
        least: as for `load`.
        excluded: reasons by the ids of images that are taken out of the splits once these are made.

    Raises:
        TooFewImages: they don't fill the splits.
        UserError: --group-pattern does not fit all of them.
    """
    parts, seen = {}, {}
    for name, part in origin.parts.items():
        ids = column(part, "id")
        good = sorted((row for row, look in enumerate(looks[name]) if look.header is not None), key=ids.__getitem__)
        seen[name] = [looks[name][row] for row in good]
        parts[name] = part.select(good)
    if config.group_pattern is not None:
        parts = {name: _grouped(part, config.group_pattern, origin.name) for name, part in parts.items()}
    return _divided(origin, parts, seen, _unreadable(origin, looks), config, least, excluded or {})


def check_bad_share(bad: Sequence[BadImage], total: int, max_bad_share: float, name: str) -> None:
    """Say how many images can't be used, or stop where they are too many.

    Raises:
        UserError: more than `max_bad_share` of `total` are bad.
    """
    if not bad:
        return
    listed = "\n".join(f"  {image.id}: {image.reason}" for image in bad[:5])
    more = f"\n  and {len(bad) - 5} more" if len(bad) > 5 else ""
    if len(bad) > max_bad_share * total:
        raise UserError(
            f"{len(bad)} of {total} images of {name} can't be read, more than the {max_bad_share:.1%} "
            f"allowed:\n{listed}{more}\nRepair or remove them, or raise --max-bad-share."
        )
    message = f"{len(bad)} of {total} images of {name} can't be read and are left out:\n{listed}{more}"
    console.print(message, style="yellow", markup=False)


def _excluded(exclusion: Exclusion | None, origin: Origin, looks: Mapping[str, Sequence[Seen]]) -> dict[str, str]:
    """The reasons of a list by the ids of the images that it leaves out, which is told."""
    if exclusion is None:
        return {}
    ids = [identity for part in origin.parts.values() for identity in column(part, "id")]
    digests = [look.digest for name in origin.parts for look in looks[name]]
    reasons = exclusion.reasons(dict(zip(ids, digests, strict=True)), origin.name)
    exclusion.announce(list(reasons.values()), len(ids), origin.name)
    return reasons


def _unreadable(origin: Origin, looks: Mapping[str, Sequence[Seen]]) -> list[BadImage]:
    return [
        BadImage(identity, look.reason)
        for name, part in origin.parts.items()
        for identity, look in zip(column(part, "id"), looks[name], strict=True)
        if look.header is None
    ]


def _read(config: SourceConfig) -> Origin:
    data = config.data
    classic = CLASSICS.get(data.lower())
    path = Path(data).expanduser()
    on_hub = data.startswith("hf:") or (classic is not None and not path.exists())
    if config.streaming and not on_hub:
        raise UserError(
            f"--streaming reads from the hub, but {data} is not there; leave it out, or give hf:owner/name."
        )
    if data.startswith("hf:"):
        return read_hub(data, config)
    if not path.exists():
        if classic is not None:
            return read_home(data.lower(), classic, config)
        if data == "digits":
            return read_digits()
        raise UserError(
            f"There is no file or folder {data!r}. A source is a folder, an .npz file, a table "
            f"({', '.join(TABLE_ENDINGS)}), hf:owner/name, digits, or one of {', '.join(CLASSICS)}."
        )
    if classic is not None or data == "digits":
        console.print(
            f"{path} exists, so it is read, and not the classic set of that name.",
            style="yellow",
            markup=False,
        )
    if path.is_dir():
        return _read_folder(path, config)
    if path.suffix.lower() == ".npz":
        return read_npz(path)
    if path.suffix.lower() in TABLE_ENDINGS:
        return read_table(path, config)
    raise UserError(f"{path} is no folder, .npz file or table ({', '.join(TABLE_ENDINGS)}).")


def _read_folder(path: Path, config: SourceConfig) -> Origin:
    found = find_images(path)
    if not found.images and (found.others[".parquet"] or found.others[".arrow"]):
        return read_local_copy(path, config)
    return read_folder(path, found)


def _check_unique(ids: list[str], name: str) -> None:
    if len(set(ids)) < len(ids):
        (twice, count), *_ = Counter(ids).most_common(1)
        raise UserError(f"{name} lists {twice} {count} times; an image may have one row.")


def _grouped(part: datasets.Dataset, pattern: str, name: str) -> datasets.Dataset:
    """Add the column `group` from what group 1 of `pattern` matches in each id."""
    ids = column(part, "id")
    matches = [re.search(pattern, identity) for identity in ids]
    missing = [identity for identity, match in zip(ids, matches, strict=True) if match is None or match[1] is None]
    if missing:
        raise UserError(
            f"--group-pattern {pattern!r} matches {len(ids) - len(missing)} of {len(ids)} images of {name}, "
            f"but not {', '.join(missing[:3])}. Every image needs a group, or one patient's could land on "
            "both sides of a split."
        )
    groups = [match[1] for match in matches if match is not None]
    rest = part.remove_columns("group") if "group" in part.column_names else part
    with _without_bars():
        return rest.add_column("group", groups, feature=datasets.Value("string"))


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep the library's own progress bars, of work that takes an instant, from the terminal."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _divided(
    origin: Origin,
    parts: dict[str, datasets.Dataset],
    seen: dict[str, list[Seen]],
    bad: list[BadImage],
    config: SourceConfig,
    least: int,
    excluded: Mapping[str, str],
) -> Source:
    base = WHOLE if WHOLE in parts else "train"
    shares = {"test": config.test_share, "val": config.val_share}
    missing = {name: share for name, share in shares.items() if name not in parts and share > 0}
    part = parts.pop(base)
    groups = column(part, "group") if "group" in part.column_names else None
    labels = labels_of(part)
    if labels is not None and labels.ndim == 2:
        labels = strata_of(labels, groups)
    classes = None if labels is None else labels.tolist()
    rows = divide(column(part, "id"), classes, groups, missing, config.split_seed)
    looks = seen.pop(base)
    for name, indices in rows.items():
        parts[name] = part.select(indices)
        seen[name] = [looks[index] for index in indices]
    for name, part in parts.items():
        kept = [row for row, identity in enumerate(column(part, "id")) if identity not in excluded]
        parts[name] = part.select(kept)
        seen[name] = [seen[name][row] for row in kept]
    source = Source({name: parts[name] for name in ("train", "val", "test") if name in parts})
    _check_sizes(source, origin.name, groups is not None, list(missing), least, len(excluded))
    headers = [look.header for looks in seen.values() for look in looks if look.header is not None]
    source.name, source.hints, source.revision = origin.name, origin.hints, origin.revision
    source.bad = [image for image in bad if image.id not in excluded]
    source.excluded, source.exclusion = [BadImage(*pair) for pair in sorted(excluded.items())], None
    source.channels = max(header.channels for header in headers)
    source.bits = max(header.bits for header in headers)
    source.median_side = int(statistics.median_low(min(header.width, header.height) for header in headers))
    source.window, source.windowed = config.window or AUTO, any(header.windowed for header in headers)
    source.contents = {split: [look.digest for look in looks] for split, looks in seen.items()}
    source.fingerprint = fingerprint_of(source)
    return source


def _check_sizes(source: Source, name: str, grouped: bool, made: list[str], least: int, excluded: int) -> None:
    sizes = {split: len(part) for split, part in source.items()}
    if sizes["train"] >= least and all(sizes.values()):
        return
    total = sum(sizes.values())
    if grouped and total > len(sizes):
        raise TooFewImages(
            f"The {total} images of {name} fall into too few groups to make {' and '.join(made)} beside "
            "train without sharing one. Give splits of your own, or set --val-share 0 or --test-share 0."
        )
    raise TooFewImages(
        f"{name} has {total} readable image{'s' * (total != 1)}"
        + (f" beside the {excluded} that a list leaves out" if excluded else "")
        + f"; a source needs at least "
        f"{len(sizes) + 1}, two for train and one for each other split, and hundreds to learn from."
    )


def _warn_of_leaks(source: Source) -> None:
    """Say where groups or images stand on both sides of a split; the source is the user's to mend."""
    grouped = "group" in source["train"].column_names
    contents = {split: set(digests) for split, digests in source.contents.items()}
    groups = {split: set(column(part, "group")) - {None} if grouped else set() for split, part in source.items()}
    for split in source.keys() - {"train"}:
        for what, sets in (("groups", groups), ("equal images", contents)):
            if shared := sets["train"] & sets[split]:
                console.print(
                    f"{source.name}: {len(shared)} {what} are both in train and in {split}; results on "
                    f"{split} will look better than they are.",
                    style="yellow",
                    markup=False,
                )
