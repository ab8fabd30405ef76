import pytest
import torch
from torch import nn

from fewlabel.errors import UserError
from fewlabel.training.config import TrainingConfig
from fewlabel.training.optimizers import build_optimizer, settle_optimizer


def settled(config, batch=256, *, convolutional=True):
    return settle_optimizer(config, batch, convolutional=convolutional)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.ones(1, 4, 8))
        self.linear = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)


def test_biases_norms_and_named_parameters_do_not_decay():
    net = Net()
    optimizer = build_optimizer(net, settled(TrainingConfig(weight_decay=0.1)), {"position"})
    decayed, spared = optimizer.param_groups
    assert decayed["weight_decay"] == 0.1
    assert spared["weight_decay"] == 0.0
    assert [parameter is net.linear.weight for parameter in decayed["params"]] == [True]
    assert len(spared["params"]) == 4


@pytest.mark.parametrize(("batch", "kind", "lr"), [(64, "AdamW", 1.5e-3), (256, "AdamW", 3e-3), (1024, "LARS", 1.2)])
def test_auto_takes_lars_for_large_batches_and_scales_the_rate(batch, kind, lr):
    optimizer = build_optimizer(Net(), settled(TrainingConfig(), batch))
    assert type(optimizer).__name__ == kind
    assert [group["peak_lr"] for group in optimizer.param_groups] == pytest.approx([lr, lr])


def test_networks_without_convolutions_get_a_third_of_the_rate():
    optimizer = build_optimizer(Net(), settled(TrainingConfig(), convolutional=False))
    assert optimizer.param_groups[0]["peak_lr"] == pytest.approx(1e-3)


def test_lars_moves_a_weight_by_its_trust_ratio():
    """One step from rest: w - lr * 0.001 * |w| / (|g| + d |w|) * (g + d w) (You et al. 2017, equation 6)."""
    torch.manual_seed(0)
    net = nn.Linear(5, 3, bias=False)
    before, gradient = net.weight.detach().clone(), torch.randn(3, 5)
    net.weight.grad = gradient.clone()
    build_optimizer(net, settled(TrainingConfig(optimizer="lars", lr=2.0, weight_decay=0.01))).step()
    trust = 0.001 * before.norm() / (gradient.norm() + 0.01 * before.norm())
    torch.testing.assert_close(net.weight.detach(), before - 2.0 * trust * (gradient + 0.01 * before))


def test_lars_without_decay_is_refused():
    with pytest.raises(UserError, match="LARS"):
        build_optimizer(Net(), settled(TrainingConfig(optimizer="lars", weight_decay=0.0)))


def test_settling_twice_changes_nothing_and_open_configs_are_refused():
    once = settled(TrainingConfig(lr=0.5), 64)
    assert settled(once, 4096, convolutional=False) == once
    with pytest.raises(ValueError, match="settle"):
        build_optimizer(Net(), TrainingConfig())
