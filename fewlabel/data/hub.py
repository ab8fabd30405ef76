"""Sets on the Hugging Face hub, and local copies of them."""

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import datasets
import huggingface_hub
from datasets.naming import camelcase_to_snakecase
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from PIL import Image

from fewlabel.console import console
from fewlabel.data.arrays import encode_png, read_npz
from fewlabel.data.columns import Columns, find_columns, standardise
from fewlabel.data.config import SourceConfig
from fewlabel.data.decode import DecodeError, decode
from fewlabel.data.names import Home
from fewlabel.data.origin import WHOLE, Hints, Origin, split_of
from fewlabel.data.resize import resize
from fewlabel.errors import UserError

__all__ = ["fetch", "read_home", "read_hub", "read_local_copy"]

_ADDRESS: Final = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)(?::(?P<subset>[^@:]+))?(?:@(?P<revision>[\w./-]+))?")


def fetch(path: str, subset: str | None, revision: str | None, streaming: bool) -> Any:
    """The one call that reaches for images on the hub.

    `path` is owner/name or a local folder in a layout of the hub; gives a DatasetDict, or an
    IterableDatasetDict where streaming.
    """
    return datasets.load_dataset(path, subset, revision=revision, streaming=streaming)


def read_hub(address: str, config: SourceConfig, hints: Hints | None = None) -> Origin:
    """Read `hf:owner/name[:subset][@revision]` and record the commit that was read.

    Without a connection a copy in the cache of `datasets` is used. With `config.streaming` the images pass
    one by one, and only copies shrunk to `config.streaming_side` are kept on disk.

    Raises:
        UserError: the address is malformed, there is no such set, or it can't be reached.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise UserError(f"{address!r} is no address on the hub; expected hf:owner/name[:subset][@revision].")
    repository, subset = match["repository"], match["subset"]
    commit = _commit(repository, match["revision"])
    if commit is None and (config.streaming or not _cached(repository)):
        raise _unreachable(repository)
    revision = commit or match["revision"]
    try:
        loaded = fetch(repository, subset, revision, config.streaming)
        if config.streaming:
            loaded = _shrunk(loaded, repository, subset, revision, config)
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"{address} can't be loaded: {error} {_local_copy_advice(repository)}") from error
    return _origin(loaded, address, config, hints or Hints(), commit)


def read_home(name: str, home: Home, config: SourceConfig) -> Origin:
    """Read a classic set from its home on the hub.

    Raises:
        UserError: it can't be reached, or is a single file and to be streamed.
    """
    if home.file is None:
        asked = replace(
            config,
            image_column=config.image_column or home.image_column,
            label_column=config.label_column or home.label_column,
        )
        suffix = f"@{home.revision}" if home.revision else ""
        origin = read_hub(f"hf:{home.repository}{suffix}", asked, home.hints)
        return Origin(name, origin.parts, origin.hints, origin.revision)
    if config.streaming:
        raise UserError(f"{name} is one small file on the hub and can't be streamed; leave out --streaming.")
    commit = _commit(home.repository, home.revision)
    try:
        file = huggingface_hub.hf_hub_download(
            home.repository,
            home.file,
            repo_type="dataset",
            revision=home.revision,
            local_files_only=commit is None,
        )
    except OSError as error:
        raise _unreachable(home.repository, home.file) from error
    return Origin(name, read_npz(Path(file)).parts, home.hints, home.revision)


def read_local_copy(folder: Path, config: SourceConfig) -> Origin:
    """Read a folder of Parquet files as the hub has them (a cloned repository), or one that `save_to_disk`
    wrote.

    Raises:
        UserError: it is neither.
    """
    try:
        if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
            loaded = datasets.load_from_disk(str(folder))
        else:
            loaded = fetch(str(folder), None, None, streaming=False)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"{folder} can't be read as a copy of a hub set: {error}") from error
    if isinstance(loaded, datasets.Dataset):
        loaded = {"train": loaded}
    return _origin(loaded, str(folder), config, Hints(), None, folder.resolve().name)


def _origin(
    loaded: dict[str, Any],
    where: str,
    config: SourceConfig,
    hints: Hints,
    revision: str | None,
    name: str = "",
) -> Origin:
    parts = {split: loaded[key] for key, split in _splits(list(loaded), where).items()}
    first = next(iter(parts.values()))
    columns = find_columns(first.column_names, first.features, config, where)
    return Origin(name or where, standardise(parts, columns, where), hints, revision)


def _splits(keys: list[str], where: str) -> dict[str, str]:
    """Which of a set's own splits stand for which of ours."""
    if len(keys) == 1:
        return {keys[0]: WHOLE}
    known = {key: split for key in keys if (split := split_of(key)) is not None}
    if "train" not in known.values():
        raise UserError(f"{where} has the splits {', '.join(keys)}, but none to train on.")
    if passed := [key for key in keys if key not in known]:
        console.print(
            f"{where}: passed over {', '.join(passed)}, which are no train, val or test split.",
            style="yellow",
            markup=False,
        )
    return known


def _shrunk(streams: Any, repository: str, subset: str | None, revision: str | None, config: SourceConfig) -> Any:
    """Run each stream through once; the copies land in the cache of `datasets`, keyed by commit and side."""
    kept = {}
    for key in _splits(list(streams), repository):
        stream = streams[key]
        names = stream.column_names or list(next(iter(stream)))
        columns = find_columns(names, stream.features, config, f"hf:{repository}")
        features = None
        if stream.features is not None:
            features = datasets.Features({name: stream.features[name] for name in columns.all})
            features[columns.image] = datasets.Image()
        console.print(f"hf:{repository}: streaming {key}, keeping copies of {config.streaming_side} px.")
        kept[key] = datasets.Dataset.from_generator(
            _shrunk_rows,
            features=features,
            gen_kwargs={
                "repository": repository,
                "subset": subset,
                "revision": revision,
                "key": key,
                "columns": columns,
                "side": config.streaming_side,
            },
        )
    return kept


def _shrunk_rows(
    repository: str, subset: str | None, revision: str | None, key: str, columns: Columns, side: int
) -> Iterator[dict[str, Any]]:
    stream = fetch(repository, subset, revision, True)[key].select_columns(columns.all)
    for row in stream.cast_column(columns.image, datasets.Image(decode=False)):
        image = row[columns.image]
        encoded = image["bytes"]
        if encoded is None:
            with datasets.utils.file_utils.xopen(image["path"], "rb") as stream_file:
                encoded = stream_file.read()
        yield row | {columns.image: {"bytes": shrink(encoded, side), "path": None}}


def shrink(encoded: bytes, side: int) -> bytes:
    """Re-encode an image so that its shorter side is `side` px; one that is no larger stays as it is.

    JPEG and WebP become JPEG of quality 95, others PNG of their depth. What can't be decoded also stays as it
    is, to be counted among the bad images where every source's are, and so does 16-bit colour, which nothing
    writes.
    """
    try:
        pixels = decode(encoded, side)
    except DecodeError:
        return encoded
    height, width, channels = pixels.shape
    if min(height, width) <= side or (channels == 3 and pixels.dtype != "uint8"):
        return encoded
    factor = side / min(height, width)
    small = resize(pixels, max(side, round(height * factor)), max(side, round(width * factor)))
    array = small[:, :, 0] if channels == 1 else small
    if not encoded.startswith((b"\xff\xd8", b"RIFF")):
        return encode_png(array)
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def _commit(repository: str, revision: str | None) -> str | None:
    """The commit that `revision` (by default the newest) stands for; None without a connection."""
    try:
        return huggingface_hub.HfApi().dataset_info(repository, revision=revision, timeout=10).sha
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise UserError(
            f"The hub has no data set {repository}{f' at {revision}' if revision else ''} that you may read. "
            "Check the name; for a private or gated set, run `hf auth login` first."
        ) from error
    except Exception:
        # By version and proxy the client raises its own, httpx's or the system's errors; all mean no answer.
        return None


def _cached(repository: str) -> bool:
    owner, name = repository.split("/")
    return (Path(datasets.config.HF_DATASETS_CACHE) / f"{owner}___{camelcase_to_snakecase(name)}").is_dir()


def _local_copy_advice(repository: str) -> str:
    return (
        f"A local copy needs no connection: run `hf download --repo-type dataset {repository} --local-dir D` "
        "where there is one, and give --data D, or the .npz file in it. A folder of images does as well."
    )


def _unreachable(repository: str, file: str | None = None) -> UserError:
    what = f"{file} of the set {repository}" if file else f"the set {repository}"
    return UserError(
        f"The hub can't be reached, and no copy of {what} is in the cache. Check the connection, or work "
        f"from a local copy. {_local_copy_advice(repository)}"
    )
