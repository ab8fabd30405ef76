import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fewlabel.errors import UserError
from fewlabel.training import processes
from fewlabel.training.config import TrainingConfig
from fewlabel.training.processes import choose_precision, make_accelerator


def test_fp16_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="needs a GPU"):
        choose_precision("fp16")


@pytest.mark.parametrize(("capable", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_takes_bf16_only_where_the_processor_has_it(monkeypatch, capable, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(processes, "_cpu_computes_bf16", lambda: capable)
    assert choose_precision("auto") == expected
    assert choose_precision("bf16") == "bf16"


def test_another_number_of_processes_than_asked_for_is_an_error():
    with pytest.raises(UserError, match="2 processes were asked for, but 1"):
        make_accelerator(TrainingConfig(processes=2), "fp32")


def test_one_process_may_compute_in_one_precision_after_another():
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32), ("bf16", torch.bfloat16)):
        accelerator = make_accelerator(TrainingConfig(), precision)
        with accelerator.autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_one_failing_process_stops_all_and_gives_its_status(tmp_path):
    """A stand-in for the package on the path: process 1 fails, process 0 would sleep for ever."""
    package = tmp_path / "fewlabel"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import os, pathlib, time\n"
        "rank, world = os.environ['RANK'], os.environ['WORLD_SIZE']\n"
        "pathlib.Path(f'rank{rank}of{world}').write_text(os.environ['MASTER_PORT'])\n"
        "if rank == '1': raise SystemExit(7)\n"
        "time.sleep(1000)\n"
    )
    script = (
        "from fewlabel.training import processes\n"
        "processes._stop.__defaults__ = (0.2,)\n"
        "raise SystemExit(processes.run_processes([], 2))"
    )
    root = str(Path(processes.__file__).parents[2])
    # The launcher is this package; what it starts is the stand-in, found first in the working folder.
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r})\n{script}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 7, done.stderr
    assert {path.name for path in tmp_path.glob("rank*")} == {"rank0of2", "rank1of2"}
