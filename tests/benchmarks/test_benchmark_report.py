import json
from pathlib import Path

from benchmarks import report
from benchmarks.rows import at_least
from benchmarks.sides import Side

ROWS = [
    at_least(2.0, "training", 60.0, 20.0, "images/s", note="on 2 cores"),
    at_least(8.0, "loss", 0.5, 2.0, "s", lower_is_better=True),
]


def test_rows_compare_in_the_right_direction() -> None:
    assert [(row["ratio"], row["met"]) for row in ROWS] == [(3.0, True), (4.0, False)]


def test_report_holds_every_row_and_no_path_or_host(tmp_path: Path) -> None:
    origin = report.about("python -m benchmarks --data DATA", load=0.5)
    report.write(tmp_path / "results", {"views": [ROWS[1]]}, origin)
    written = report.write(tmp_path / "results", {"training": [ROWS[0]]}, origin)
    assert [path.name for path in written] == ["training.json", "latest.md"]
    record = json.loads(written[0].read_text())
    assert record["rows"] == [ROWS[0]]
    assert record["packages"]["torch"]
    lines = written[1].read_text().splitlines()
    assert "| training | 60 | 20 | images/s | 3.00 | at least 2 | yes | on 2 cores |" in lines
    # What was measured before stays.
    assert "| loss | 0.5 | 2 | s | 4.00 | at least 8 | no |  |" in lines
    assert [line for line in lines if line.startswith("## ")] == ["## training", "## views"]
    for path in written:
        assert str(Path.cwd()) not in path.read_text()


def test_a_side_answers_in_its_turn_and_is_stopped_outside_it() -> None:
    def state() -> str:
        return Path(f"/proc/{side.facts['pid']}/stat").read_text().rpartition(")")[2].split()[0]

    with Side("tests.benchmarks.echo") as side:
        for line in ("a line", "another"):
            assert side.ask(line) == {"heard": line}
            assert state() == "T"
    assert not Path(f"/proc/{side.facts['pid']}").exists()
