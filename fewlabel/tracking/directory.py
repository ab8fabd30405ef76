"""Where a run goes: a new directory of a made-up name, or the one that the user asked for."""

import re
from datetime import datetime
from pathlib import Path

from fewlabel.errors import UserError
from fewlabel.tracking.lock import LOCK_NAMES, DirectoryLock

__all__ = ["claim_directory", "make_directory"]


def make_directory(root: Path, command: str, slug: str) -> tuple[Path, DirectoryLock]:
    """Make and lock `root`/<command>-<local time>-<slug>; a number is added where that is taken.

    Raises:
        UserError: it can't be made.
    """
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    plain = re.sub(r"[^a-z0-9]+", "-", slug.lower()).strip("-")[:60].rstrip("-")
    name = "-".join(part for part in (command, stamp, plain) if part)
    for attempt in range(1, 1000):
        directory = root / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            root.mkdir(parents=True, exist_ok=True)
            directory.mkdir()
        except FileExistsError:
            if not root.is_dir():
                raise UserError(f"{root} is a file; runs go into a directory of that name.") from None
            continue
        except OSError as error:
            raise UserError(f"Can't make {directory}: {error.strerror}. Choose a place with --out.") from error
        return directory, DirectoryLock(directory)
    raise UserError(f"{root} already holds 999 runs named {name}. Choose another place with --out.")


def claim_directory(out: Path) -> DirectoryLock:
    """Lock the directory `out`, which must be new or empty.

    Raises:
        UserError: it holds something, is a file, is in use, or can't be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        _refuse_if_full(out)
    except FileExistsError:
        raise UserError(f"--out {out} is a file; give a directory that is new or empty.") from None
    except OSError as error:
        raise UserError(f"Can't make --out {out}: {error.strerror}. Choose another place.") from error
    lock = DirectoryLock(out)
    try:
        # Another run may have come and gone since the first look.
        _refuse_if_full(out)
    except BaseException:
        lock.release()
        raise
    return lock


def _refuse_if_full(out: Path) -> None:
    found = sorted(entry.name for entry in out.iterdir() if entry.name not in LOCK_NAMES)
    if not found:
        return
    message = (
        f"--out {out} isn't empty: it has {', '.join(found[:3])}{' and more' if len(found) > 3 else ''}. "
        "Give a directory that is new or empty; nothing is ever written over."
    )
    if "config.json" in found and "metrics.jsonl" in found and "result.json" not in found:
        message += f" If you meant to continue the run that it holds, say --resume {out}."
    raise UserError(message)
