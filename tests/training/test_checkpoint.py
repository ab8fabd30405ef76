"""Checkpoints: round trip, atomicity under a real kill and a real write limit, refusal of foreign files."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from torch import nn

from fewlabel.errors import UserError
from fewlabel.training.checkpoint import latest_checkpoint, read_checkpoint, restore, save_latest


def trained(seed=0, steps=3):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(steps):
        net(torch.randn(6, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return net, optimizer


def save(folder, net, optimizer, step=3):
    return save_latest(folder, step=step, seed=5, model=net, optimizer=optimizer, scaler={}, wandb_id="abc")


def test_round_trip_goes_on_with_identical_weights(tmp_path):
    net, optimizer = trained()
    save(tmp_path, net, optimizer)
    other, other_optimizer = trained(seed=1, steps=1)
    checkpoint = latest_checkpoint(tmp_path)
    assert (checkpoint.step, checkpoint.seed, checkpoint.wandb_id) == (3, 5, "abc")
    restore(checkpoint, other, other_optimizer, None)
    for model, its_optimizer in ((net, optimizer), (other, other_optimizer)):
        torch.manual_seed(9)
        model(torch.randn(6, 4)).square().sum().backward()
        its_optimizer.step()
    for one, two in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_only_the_newest_are_kept(tmp_path):
    net, optimizer = trained()
    for step in (1, 2, 10):
        save(tmp_path, net, optimizer, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-00000002.safetensors",
        "step-00000010.safetensors",
    ]


def test_a_spoilt_newest_falls_back_to_the_one_before(tmp_path):
    net, optimizer = trained()
    save(tmp_path, net, optimizer, 1)
    save(tmp_path, net, optimizer, 2).write_bytes(b"spoilt")
    assert latest_checkpoint(tmp_path).step == 1


def test_no_checkpoint_is_none_and_all_spoilt_is_an_error(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    (tmp_path / "step-00000001.safetensors").write_bytes(b"spoilt")
    with pytest.raises(UserError, match="No checkpoint"):
        latest_checkpoint(tmp_path)


def test_a_pickle_is_refused_unopened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    path = tmp_path / "step-00000001.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="not a checkpoint"):
        read_checkpoint(path)
    assert not (tmp_path / "exploded").exists()


def test_another_model_is_refused(tmp_path):
    net, optimizer = trained()
    save(tmp_path, net, optimizer)
    other = nn.Linear(3, 3)
    with pytest.raises(UserError, match="another model"):
        restore(latest_checkpoint(tmp_path), other, torch.optim.AdamW(other.parameters()), None)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    """A limit on file size stands for the full disk: the kernel refuses the write in the middle all the same."""
    net, optimizer = trained()
    save(tmp_path, net, optimizer, 1)
    script = textwrap.dedent(
        f"""
        import pathlib, resource, signal, torch
        from fewlabel.errors import UserError
        from fewlabel.training.checkpoint import save_latest
        net = torch.nn.Linear(1000, 1000)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save_latest(pathlib.Path({str(tmp_path)!r}), step=2, seed=0, model=net,
                        optimizer=torch.optim.SGD(net.parameters(), lr=1), scaler={{}}, wandb_id="")
        except UserError as error:
            print(error)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Could not write" in done.stdout
    assert "Free some space" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.safetensors"]
    assert latest_checkpoint(tmp_path).step == 1


def test_a_kill_at_any_instant_leaves_a_good_checkpoint(tmp_path):
    script = textwrap.dedent(
        f"""
        import pathlib, torch
        from fewlabel.training.checkpoint import save_latest
        net = torch.nn.Linear(1500, 1500)
        optimizer = torch.optim.SGD(net.parameters(), lr=1)
        for step in range(1, 10_000):
            save_latest(pathlib.Path({str(tmp_path)!r}), step=step, seed=0, model=net, optimizer=optimizer,
                        scaler={{}}, wandb_id="")
            print(step, flush=True)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    for _ in range(3):
        written = int(process.stdout.readline())
    time.sleep(0.013)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert latest_checkpoint(tmp_path).step >= written
