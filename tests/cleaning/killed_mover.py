"""Moves files to a quarantine and back in processes that are killed.

Arguments: the folder of the images, the quarantine's folder, and either a seed, to kill after random whiles, or a
folder, to kill at each change to the disk in turn and to leave there what remains of both folders at each such instant
of the way there (as there-<instant>) and of the way back (as back-<instant>).
"""

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fewlabel.cleaning.quarantine import quarantine, undo

# Every call that makes, renames or deletes something announces itself by one of these, before it happens.
TOUCHES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "open"}


def killed_at(instant: int, change: Callable[[], Any]) -> bool:
    """Whether a process that makes the change was killed by itself; False if it came to its end first."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return True
        assert status == 0, f"the mover failed with status {status}"
        return False
    touched = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal touched
        reads = event == "open" and (arguments[1] or "r").startswith("r")
        if event in TOUCHES and not reads:
            if touched == instant:
                os.kill(os.getpid(), signal.SIGKILL)
            touched += 1

    sys.addaudithook(count)
    try:
        change()
        status = 0
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        status = 1
    os._exit(status)


def at_every_instant(folder: Path, place: Path, remains: Path) -> None:
    """Kill at each instant in turn, from the same beginning, and keep what each leaves."""
    wanted = wanted_in(folder)
    work = folder.parent

    def instants(way: str, change: Callable[[], Any]) -> None:
        beginning = remains / "beginning"
        shutil.copytree(work, beginning)
        instant = 0
        while killed_at(instant, change):
            shutil.copytree(work, remains / f"{way}-{instant}")
            for path in (folder, place):
                shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(beginning, work, dirs_exist_ok=True)
            instant += 1
        shutil.rmtree(beginning)

    instants("there", lambda: quarantine(folder, dict.fromkeys(wanted, ""), place, "first"))
    (log,) = place.glob("*.jsonl")
    instants("back", lambda: undo(log))


def at_random(folder: Path, place: Path, seed: int) -> int:
    """Kill again and again after a random while, there and back; how often that was in the midst of the moves."""
    drawn = random.Random(seed)
    before = {path.relative_to(folder): path.read_bytes() for path in files_in(folder)}

    def there() -> None:
        quarantine(folder, dict.fromkeys(wanted_in(folder), ""), place, "run")

    def back() -> None:
        for log in sorted(place.glob("*.jsonl")):
            assert not undo(log).refused

    def in_child(change: Callable[[], None], seconds: float | None) -> None:
        child = os.fork()
        if not child:
            change()
            os._exit(0)
        if seconds is not None:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or status == 0, f"the mover failed with status {status}"
        roots = [folder, *(path for path in place.glob("*") if path.is_dir())]
        found = [(path.relative_to(root), path) for root in roots for path in files_in(root)]
        assert len(found) == len(before), "a file is in two places or in none"
        assert {name: path.read_bytes() for name, path in found} == before

    started = time.monotonic()
    in_child(there, None)
    typical = time.monotonic() - started
    change, every, halfway = back, len(wanted_in(folder.parent)), 0
    for _ in range(60):
        in_child(change, drawn.random() * typical)
        here = len(wanted_in(folder))
        halfway += 0 < here < every
        change = back if here == 0 else there if here == every else change
        if halfway == 5:
            break
    in_child(back, None)
    assert {path.relative_to(folder) for path in files_in(folder)} == before.keys()
    return halfway


def files_in(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def wanted_in(root: Path) -> list[Path]:
    return [path for path in files_in(root) if path.name.startswith("bad")]


if __name__ == "__main__":
    folder, place, last = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    if last.isdigit():
        print(at_random(folder, place, int(last)))
    else:
        at_every_instant(folder, place, Path(last))
