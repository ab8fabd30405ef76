"""Batch norm over two real processes equals one process on the whole batch."""

import copy
import os

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from timm.layers import BatchNormAct2d
from torch import nn

from fewlabel.training.batch_norm import GlobalBatchNorm, synchronize_batch_norm


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.Conv2d(6, 8, 3),
        BatchNormAct2d(8),
        nn.Flatten(),
        nn.Linear(128, 4),
    )


def images():
    return torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 3 + 1


def loss_of(outputs):
    return outputs.pow(3).mean()


def train_share(rank, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    net = nn.parallel.DistributedDataParallel(synchronize_batch_norm(network(), torch.device("cpu")))
    share = images()[rank * 5 : rank * 5 + 5].requires_grad_()
    loss_of(net(share)).backward()
    torch.save(
        {"share": share.grad / 2, **{name: p.grad for name, p in net.module.named_parameters()}},
        f"{folder}/{rank}",
    )
    torch.save(net.module.state_dict(), f"{folder}/state{rank}")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    net = network()
    whole = images().requires_grad_()
    loss_of(net(whole)).backward()
    multiprocessing.spawn(train_share, (str(tmp_path),), nprocs=2)
    shares = [torch.load(tmp_path / str(rank)) for rank in (0, 1)]
    torch.testing.assert_close(torch.cat([share["share"] for share in shares]), whole.grad, rtol=1e-4, atol=1e-6)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(shares[0][name], parameter.grad, rtol=1e-4, atol=1e-5)
    state = torch.load(tmp_path / "state0")
    for name, value in net.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-6)


def test_evaluation_mode_and_names_are_unchanged():
    net = network()
    net(images())
    converted = synchronize_batch_norm(copy.deepcopy(net), torch.device("cpu"))
    assert list(converted.state_dict()) == list(net.state_dict())
    assert sum(isinstance(module, GlobalBatchNorm) for module in converted.modules()) == 2
    torch.testing.assert_close(converted.eval()(images()), net.eval()(images()))
