"""What W&B gets of a study as a whole: plots and the table of trials, read back from its own folder."""

import json

import pytest
import wandb
from made_studies import compound_study, new_study

from fewlabel.search.mirror import log_study
from fewlabel.tracking.run import Run


@pytest.fixture
def files(monkeypatch, tmp_path):
    """Log a study to a W&B run of its own, offline; its folder of media."""
    monkeypatch.setenv("WANDB_MODE", "offline")

    def log(study):
        with Run.create("search", {}, out=tmp_path / "run", group=study.study_name, project="test") as record:
            folder = record.wandb_directory
            log_study(record, study)
            record.finish({})
        return folder / "files" / "media"

    yield log
    wandb.teardown()


def test_plots_and_trials_get_there(files, storage):
    media = files(compound_study(storage))
    names = {file.name.rpartition("_")[0].rpartition("_")[0] for file in (media / "plotly").iterdir()}
    assert names == {"scaling", "cost_law", "history", "importances", "parallel_coordinate"}
    (table,) = (media / "table").iterdir()
    written = json.loads(table.read_text())
    rows = [dict(zip(written["columns"], row, strict=True)) for row in written["data"]]
    assert len(rows) == 9
    assert rows[3]["slot"] == "resolution"
    assert (rows[3]["accuracy"], rows[3]["low"], rows[3]["high"]) == pytest.approx((0.66, 0.65, 0.67))
    assert rows[-1]["outcome"] == "rejected: over the budget of 4x"
    assert rows[-1]["accuracy"] is None


def test_a_study_without_a_trial_gives_an_empty_table(files, storage):
    media = files(new_study(storage))
    (table,) = (media / "table").iterdir()
    assert json.loads(table.read_text())["data"] == []
    assert not (media / "plotly").exists()
