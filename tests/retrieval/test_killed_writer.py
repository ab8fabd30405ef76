"""A writer that is killed at any instant leaves the old index or the new one, and the next writer finds its way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fewlabel
from fewlabel.retrieval import Index


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_instant_leaves_the_old_or_the_new_index(index, encoder, photos, draw, tmp_path, read):
    more = tmp_path / "more"
    for number in range(3):
        draw(more / f"{number}.png", 700 + number)
    # A file that holds another image than before, so that adding also drops a vector and a thumbnail.
    draw(photos / "train/up/3.png", 710)
    table = tmp_path / "all.csv"
    paths = [*more.glob("*.png"), photos / "train/up/3.png"]
    table.write_text("\n".join(["path", *map(str, sorted(paths))]))
    remains = tmp_path / "remains"
    remains.mkdir()
    script = Path(__file__).with_name("killed_writer.py")
    arguments = [index.directory, encoder.directory, table, "train/across/1.png", remains]
    # A script looks for modules beside itself and then among the installed; what is tested may be another checkout.
    tested = str(Path(fewlabel.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": tested, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    source = read(table)
    for name, change in (
        ("add", lambda one: one.add(source)),
        ("remove", lambda one: one.remove(["train/across/1.png"])),
    ):
        old, new = state(index), state(Index.open(remains / f"{name}-done"))
        assert old != new
        left = sorted(remains.glob(f"{name}-[0-9]*"), key=lambda path: int(path.name.rpartition("-")[2]))
        assert len(left) >= 10
        generations = []
        for directory in left:
            found = Index.open(directory, encoder=encoder)
            generations.append(found.description.generation)
            assert state(found) == (old if generations[-1] == 1 else new), directory.name
            if generations[-1] == 1:
                change(found)
                assert state(Index.open(directory)) == new
            else:
                found.add(source)
            named = {file.name for file in found.description.files}
            assert {path.name for path in directory.iterdir()} == named | {"index.json", "encoder", ".lock"}
        # One instant parts the old from the new.
        assert generations == sorted(generations)
        assert set(generations) == {1, 2}


def state(index):
    """All that a reader gets to see."""
    entries = sorted(index.entries, key=lambda entry: entry.id)
    vectors = index.features([entry.key for entry in entries])
    return [(entry, vector.tobytes(), index.thumbnail(entry)) for entry, vector in zip(entries, vectors, strict=True)]
