import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fewlabel.errors import UserError
from fewlabel.tracking import lock as lock_module
from fewlabel.tracking.lock import DirectoryLock, is_locked

HOLDER = """
import sys, time
from pathlib import Path
from fewlabel.tracking.lock import DirectoryLock
held = DirectoryLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_refused_by_name_until_the_first_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            assert is_locked(tmp_path)
            with pytest.raises(UserError, match=f"in use by process {holder.pid},"):
                DirectoryLock(tmp_path)
        finally:
            holder.send_signal(signal.SIGKILL)
    assert not is_locked(tmp_path)
    DirectoryLock(tmp_path).release()


def test_one_process_can_not_lock_twice(tmp_path: Path) -> None:
    held = DirectoryLock(tmp_path)
    with pytest.raises(UserError, match=f"in use by process {os.getpid()},"):
        DirectoryLock(tmp_path)
    held.release()
    held.release()
    DirectoryLock(tmp_path).release()


def test_asking_neither_takes_nor_makes_anything(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not is_locked(tmp_path / "missing")
    held = DirectoryLock(tmp_path)
    assert is_locked(tmp_path)
    assert is_locked(tmp_path)
    held.release()
    assert not is_locked(tmp_path)


def test_without_file_locks_a_marker_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_here(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock_module.fcntl, "flock", none_here)
    held = DirectoryLock(tmp_path)
    assert is_locked(tmp_path)
    with pytest.raises(UserError, match=rf"process {os.getpid()},.*delete {tmp_path}/\.lock\.held"):
        DirectoryLock(tmp_path)
    held.release()
    assert not is_locked(tmp_path)
    DirectoryLock(tmp_path).release()


def test_a_place_that_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Can't write.*No such file.*--out"):
        DirectoryLock(tmp_path / "missing")
