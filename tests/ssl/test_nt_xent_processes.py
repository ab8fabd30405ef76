"""NT-Xent over real processes: one process with the concatenated batch is the measure."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fewlabel.ssl import nt_xent as module
from fewlabel.ssl.nt_xent import nt_xent

PAIRS, TEMPERATURE, WORLDS = 7, 0.15, (2, 3)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 11), nn.Tanh(), nn.Linear(11, 4)).double()


def images(world: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (world * PAIRS, 5)
    first, second = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return first, second


def step(model: nn.Module, first: Tensor, second: Tensor) -> Tensor:
    """As in training: one pass for both views, then the loss and its gradients."""
    loss = nt_xent(*model(torch.cat([first, second])).chunk(2), TEMPERATURE)
    loss.backward()
    return loss.detach()


def one_of_many(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    module._TILE_SIDE["cpu"] = 4
    for world in WORLDS:
        if rank < world:
            rendezvous = f"file://{folder}/rendezvous-{world}"
            dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world)
            model = DistributedDataParallel(network())
            first, second = (view[rank * PAIRS : (rank + 1) * PAIRS] for view in images(world))
            loss = step(model, first, second)
            gradients = [parameter.grad for parameter in model.parameters()]
            torch.save({"loss": loss, "gradients": gradients}, f"{folder}/{world}-{rank}.pt")
            dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each process of each world found; the same processes serve all worlds, for they start slowly."""
    folder = tmp_path_factory.mktemp("processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        mp.spawn(one_of_many, args=(str(folder),), nprocs=max(WORLDS))
    return folder


@pytest.mark.parametrize("world", WORLDS)
def test_equals_one_process(world: int, results: Path) -> None:
    found = [torch.load(results / f"{world}-{rank}.pt") for rank in range(world)]
    model = network()
    expected = step(model, *images(world))
    mean = torch.stack([one["loss"] for one in found]).mean()
    torch.testing.assert_close(mean, expected, rtol=1e-12, atol=0)
    assert found[0]["loss"] != found[1]["loss"]
    for one in found:
        for gradient, parameter in zip(one["gradients"], model.parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-10, atol=1e-13)
