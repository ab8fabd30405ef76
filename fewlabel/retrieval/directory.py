"""Changing an index directory so that a kill at any instant leaves the old index or the new one, never half."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fewlabel.files import atomic_path, write_json
from fewlabel.retrieval.description import INDEX, Description, StoredFile
from fewlabel.tracking.lock import DirectoryLock

__all__ = ["NewFiles", "commit", "discard_leftovers", "writing"]

_ENDINGS = {"vectors": ".faiss", "manifest": ".parquet", "thumbnails": ".parquet"}


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Let this process alone change the index in `directory`.

    Raises:
        UserError: another process is changing it; the message names that one.
    """
    lock = DirectoryLock(directory, "index")
    try:
        yield
    finally:
        lock.release()


class NewFiles:
    """The files of the generation to come; they belong to nothing until `commit` names them."""

    def __init__(self, directory: Path, generation: int) -> None:
        self._directory, self.generation, self._thumbnails = directory, generation, 0

    def write(self, kind: str, write: Callable[[Path], None]) -> StoredFile:
        """Let `write` make a file of `kind` ("vectors", "manifest" or "thumbnails"); it is on disk when this returns.

        Raises:
            UserError: the disk is full or the directory can't be written.
        """
        number = ""
        if kind == "thumbnails":
            self._thumbnails += 1
            number = f"-{self._thumbnails}"
        path = self._directory / f"{kind}-{self.generation}{number}{_ENDINGS[kind]}"
        with atomic_path(path) as temporary:
            write(temporary)
        return StoredFile.of(path)


def commit(directory: Path, description: Description) -> None:
    """Make `description` the index: from the instant when `index.json` is renamed, readers find the new files.

    Raises:
        UserError: the disk is full or the directory can't be written.
    """
    write_json(directory / INDEX, description.as_json())
    discard_leftovers(directory, description)


def discard_leftovers(directory: Path, description: Description) -> None:
    """Delete what `description` does not name: the generation before, and what a killed writer left.

    Only the holder of the directory may call this. Readers that have the files open keep them until they close.
    """
    named = {file.name for file in description.files}
    for path in directory.iterdir():
        own = any(path.name.startswith(f"{kind}-") and path.suffix == ending for kind, ending in _ENDINGS.items())
        if (own and path.name not in named) or (path.name.startswith(".") and path.suffix == ".tmp"):
            path.unlink()
