"""Files moved to a quarantine and back: bit for bit, also through kills, and never over or outside of anything."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fewlabel
from fewlabel.cleaning.quarantine import check_quarantine, quarantine, undo
from fewlabel.errors import UserError
from fewlabel.files import atomic_write_text

NAMES = ["a/bad1.png", "a/good.png", "b/deep/bad2.png", "bad3.jpg", "b/bad [4] 'x'.png", "b/bad\n5.png"]


@pytest.fixture
def folder(tmp_path) -> Path:
    root = tmp_path / "work" / "photos"
    for number, name in enumerate([*NAMES, os.fsdecode(b"b/bad\xff6.png")]):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(number).randbytes(100 + number))
        os.utime(path, ns=(10**18 + number, 10**18 + number))
        path.chmod(0o640)
    return root


def bad(folder: Path) -> dict[Path, str]:
    return {path: "" for path in folder.rglob("*") if path.name.startswith("bad")}


def state(root: Path) -> dict[str, tuple[bytes, int, int]]:
    """All files with what a user can see of them."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode)
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".jsonl"
    }


def mover(*arguments: object) -> str:
    """Run `killed_mover.py`; what it printed."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("killed_mover.py"), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(fewlabel.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_file_that_changes_after_the_log_was_written_stays(folder, monkeypatch) -> None:
    """The log would not know it again, and undo would refuse it."""
    write = atomic_write_text

    def write_and_change(path: Path, text: str) -> None:
        write(path, text)
        (folder / "a/bad1.png").write_bytes(b"another")

    monkeypatch.setattr("fewlabel.cleaning.quarantine.atomic_write_text", write_and_change)
    moves = quarantine(folder, bad(folder), folder.with_name("aside"), "first")
    assert [refusal.file for refusal in moves.refused] == ["a/bad1.png"]
    assert (folder / "a/bad1.png").read_bytes() == b"another"
    assert len(moves.moved) == 5


def test_there_and_back_bit_for_bit(folder) -> None:
    before = state(folder)
    into = folder.with_name("photos.quarantine")
    moves = quarantine(folder, bad(folder), into, "first")
    assert (len(moves.moved), moves.refused) == (6, [])
    assert set(state(folder)) == {"a/good.png"}
    assert {name: now for name, now in before.items() if name != "a/good.png"} == state(into / "first")
    assert moves.log == into / "first.jsonl"
    back = undo(moves.log)
    assert (sorted(back.moved), back.refused) == (sorted(moves.moved), [])
    assert state(folder) == before
    # Of the quarantine the log stays; to undo again does nothing.
    assert list(into.iterdir()) == [moves.log]
    again = undo(moves.log)
    assert (again.moved, again.refused, state(folder)) == ([], [], before)


def test_quarantines_of_one_name_keep_apart(folder) -> None:
    into = folder.with_name("q")
    first = quarantine(folder, {folder / "bad3.jpg": ""}, into, "run")
    (folder / "bad3.jpg").write_bytes(b"another")
    second = quarantine(folder, {folder / "bad3.jpg": ""}, into, "run")
    assert [first.log, second.log] == [into / "run.jsonl", into / "run-2.jsonl"]
    assert (into / "run-2/bad3.jpg").read_bytes() == b"another"


def test_every_instant_of_a_kill_leaves_each_file_in_one_place(folder, tmp_path) -> None:
    before = state(folder)
    remains = tmp_path / "remains"
    remains.mkdir()
    place = folder.with_name("photos.quarantine")
    mover(folder, place, remains)
    assert state(folder) == before
    left = {way: sorted(remains.glob(f"{way}-*")) for way in ("there", "back")}
    assert all(len(found) > len(bad(folder)) for found in left.values())
    seen = set()
    for found in left.values():
        for remain in found:
            inside, aside = state(remain / "photos"), state(remain / "photos.quarantine/first")
            assert not inside.keys() & aside.keys()
            # Besides the files there may be the log under a name of its own, until it is whole.
            assert inside | aside == before
            seen.add(len(aside))
            for log in (remain / "photos.quarantine").glob("*.jsonl"):
                # The copy lies elsewhere than the log says.
                log.write_text(log.read_text().replace(str(folder.parent), str(remain)))
                assert undo(log).refused == []
                assert state(remain / "photos") == before
                assert not (remain / "photos.quarantine/first").exists()
    assert seen == set(range(len(bad(folder)) + 1))


def test_random_kills_in_a_row(folder) -> None:
    """Three hundred files go there and back, the process killed after a random while, again and again."""
    for number in range(300):
        (folder / f"bad-{number:03d}.png").write_bytes(random.Random(number).randbytes(50))
    before = state(folder)
    assert int(mover(folder, folder.with_name("q"), 7)) >= 1, "no kill fell in the midst of the moves"
    assert state(folder) == before


def test_a_changed_file_is_refused_and_the_rest_restored(folder) -> None:
    before = state(folder)
    into = folder.with_name("q")
    log = quarantine(folder, bad(folder), into, "run").log
    # As long as before, so that only its content tells.
    changed = into / "run/a/bad1.png"
    changed.write_bytes(bytes(changed.stat().st_size))
    (folder / "bad3.jpg").write_bytes(b"new here")
    (into / "run/b/deep/bad2.png").unlink()
    moves = undo(log)
    assert dict(moves.refused) == {
        "a/bad1.png": "it was changed in the quarantine",
        "bad3.jpg": f"something stands in its old place, {folder / 'bad3.jpg'}: move that away and undo again",
        "b/deep/bad2.png": "it is in neither of its places",
    }
    assert len(moves.moved) == 3
    assert (folder / "bad3.jpg").read_bytes() == b"new here"
    assert (into / "run/bad3.jpg").read_bytes() == before["bad3.jpg"][0]
    (folder / "bad3.jpg").unlink()
    assert undo(log).moved == ["bad3.jpg"]
    (folder / "bad3.jpg").write_bytes(b"changed after it was restored")
    assert dict(undo(log).refused)["bad3.jpg"] == (
        "it is gone from the quarantine, and something else stands in its old place"
    )


def test_what_is_not_the_folder_s_own_stays(folder, tmp_path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "bad.png").write_bytes(b"far")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "bad-link.png").symlink_to(folder / "a/good.png")
    digest = hashlib.blake2b((folder / "a/bad1.png").read_bytes(), digest_size=16).hexdigest()
    files = {
        folder / "linked/bad.png": "",
        folder / "bad-link.png": "",
        folder / "a/bad1.png": digest,
        folder / "bad3.jpg": digest,
        folder / "gone.png": "",
    }
    moves = quarantine(folder, files, folder.with_name("q"), "run")
    assert moves.moved == ["a/bad1.png"]
    reasons = {Path(file).name: reason for file, reason in moves.refused}
    assert reasons == {
        "bad.png": "it lies outside the folder and is linked there; leave it out with --apply exclude",
        "bad-link.png": "it is a link and no file; leave it out with --apply exclude",
        "bad3.jpg": "it has changed since it was looked at",
        "gone.png": "No such file or directory",
    }
    assert (elsewhere / "bad.png").read_bytes() == b"far"


def test_nothing_to_move_leaves_no_trace(folder) -> None:
    moves = quarantine(folder, {folder / "gone.png": ""}, folder.with_name("q"), "run")
    assert (moves.log, moves.moved, len(moves.refused)) == (None, [], 1)
    assert not folder.with_name("q").exists()


def test_places_that_cannot_be_right(folder, tmp_path, monkeypatch) -> None:
    for into in (folder / "inside", folder, folder.parent):
        with pytest.raises(UserError, match="lie in one another"):
            check_quarantine(folder, into)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        check_quarantine(folder, tmp_path / "file")
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == folder.stat().st_dev:
        pytest.skip("no second file system here")
    with pytest.raises(UserError, match=r"another file system.*--quarantine-dir"):
        quarantine(folder, bad(folder), shared_memory / "fewlabel-test-quarantine", "run")
    assert len(bad(folder)) == 6


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("../outside.png", "leaves the folder"),
        ("/etc/hostname", "leaves the folder"),
        ("a/../../outside.png", "leaves the folder"),
        ("link/outside.png", "leads out of the folder"),
        ("", "leaves the folder"),
    ],
)
def test_a_log_cannot_reach_out_of_the_two_folders(folder, tmp_path, file, reason) -> None:
    log = quarantine(folder, {folder / "bad3.jpg": ""}, folder.with_name("q"), "run").log
    assert log is not None
    outside = tmp_path / "work/q/outside.png"
    outside.write_bytes(b"keep")
    (tmp_path / "work/q/run/link").symlink_to(tmp_path / "work/q")
    header, line = log.read_text().splitlines()
    content = hashlib.blake2b(b"keep", digest_size=16).hexdigest()
    forged = json.dumps({"file": file, "size": 4, "mtime_ns": 0, "content": content})
    log.write_text(f"{json.dumps(json.loads(header) | {'files': 2})}\n{line}\n{forged}\n")
    moves = undo(log)
    assert moves.moved == ["bad3.jpg"]
    assert [refusal.file for refusal in moves.refused] == [file]
    assert reason in moves.refused[0].reason
    assert outside.read_bytes() == b"keep"


@pytest.mark.parametrize("content", ["", "{}", "no log", '{"kind": "fewlabel quarantine, version 2"}', "[1]\n[2]"])
def test_what_is_no_log_is_refused(tmp_path, content) -> None:
    (tmp_path / "log.jsonl").write_text(content)
    with pytest.raises(UserError, match=r"log\.jsonl.*log of a quarantine"):
        undo(tmp_path / "log.jsonl")
    with pytest.raises(UserError, match="No such file"):
        undo(tmp_path / "nothing.jsonl")


def test_a_log_that_was_cut_is_refused_before_anything_moves(folder) -> None:
    log = quarantine(folder, bad(folder), folder.with_name("q"), "run").log
    assert log is not None
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match="lines are missing"):
        undo(log)
    assert len(bad(folder)) == 0


def test_one_process_at_a_time_and_a_folder_that_is_gone(folder) -> None:
    import fcntl

    log = quarantine(folder, bad(folder), folder.with_name("q"), "run").log
    assert log is not None
    with log.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="Another process"):
            undo(log)
    shutil.move(folder, folder.with_name("moved"))
    with pytest.raises(UserError, match="is gone"):
        undo(log)
