"""The SimCLR module, with a backbone and views small enough to follow by hand."""

import math
import subprocess
import sys
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from fewlabel.backbones.backbone import Backbone
from fewlabel.errors import UserError
from fewlabel.ssl.config import SimCLRConfig
from fewlabel.ssl.nt_xent import nt_xent
from fewlabel.ssl.simclr import SimCLR


class Batch(NamedTuple):
    pixels: Tensor
    aspect: Tensor
    index: Tensor


class SmallBackbone(nn.Module):
    num_features = 12
    arrange = Backbone.arrange

    def __init__(self, convolutional: bool = True) -> None:
        super().__init__()
        self.convolutional = convolutional
        self.body = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.inputs: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.inputs.append(images)
        features: Tensor = self.body(images).mean((2, 3))
        return features


def noisy_views(pixels: Tensor, aspect: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    assert not torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")
    assert len(aspect) == len(pixels)
    images = pixels.float() / 255
    one, other = (
        images + 0.05 * torch.randn(images.shape, generator=generator, device=images.device) for _ in range(2)
    )
    return one, other


def batch(count: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return Batch(pixels, torch.ones(count), torch.arange(count))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(convolutional: bool = True, **config: int | float | str) -> SimCLR:
    torch.manual_seed(0)
    return SimCLR(SmallBackbone(convolutional), noisy_views, SimCLRConfig(**config))  # type: ignore[arg-type]


def test_loss_is_nt_xent_of_the_projected_views() -> None:
    task = make(temperature=0.3)
    outputs = task(batch(), seeded(1))
    first, second = noisy_views_without_checks(batch(), seeded(1))
    features = task.backbone(torch.cat([first, second]))
    expected = nt_xent(task.head(features[:16]), task.head(features[16:]), 0.3)
    # The head's batch norm sees both views at once, so projecting them apart gives another loss.
    assert outputs["loss"] != expected
    one, other = task.head(features).chunk(2)
    torch.testing.assert_close(outputs["loss"], nt_xent(one, other, 0.3))
    assert outputs.keys() == {"loss"}


def noisy_views_without_checks(images: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return noisy_views(images.pixels, images.aspect, generator)


def test_group_positives_are_a_view_of_each_image_and_one_of_its_partner() -> None:
    def one_view(pixels: Tensor, aspect: Tensor, generator: torch.Generator) -> Tensor:
        return noisy_views(pixels, aspect, generator)[0]

    task = make(temperature=0.3, positives="group")
    task.views = SimpleNamespace(one=one_view)  # type: ignore[assignment]
    images = batch(16)
    with torch.no_grad():
        views = one_view(images.pixels, images.aspect, seeded(1))
    first, second = task.head(task.backbone(views)).chunk(2)
    torch.testing.assert_close(task(images, seeded(1))["loss"], nt_xent(first, second, 0.3))


def test_one_backbone_pass_for_both_views_and_a_gradient_for_every_parameter() -> None:
    task = make()
    task(batch(), seeded(1))["loss"].backward()
    backbone = task.backbone
    assert isinstance(backbone, SmallBackbone)
    assert [len(images) for images in backbone.inputs] == [32]
    for name, parameter in task.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_the_generator_decides_the_views() -> None:
    task = make()
    losses = [task(batch(), seeded(seed))["loss"].item() for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_projections_have_the_width_and_depth_of_the_configuration() -> None:
    task = make(projection_dim=7, projection_hidden=20, projection_layers=3)
    shapes = [tuple(layer.weight.shape) for layer in task.head.modules() if isinstance(layer, nn.Linear)]
    assert shapes == [(20, 12), (20, 20), (7, 20)]
    first, second = task.project(batch(5), seeded(0))
    assert first.shape == second.shape == (5, 7)
    default = [tuple(layer.weight.shape) for layer in make().head.modules() if isinstance(layer, nn.Linear)]
    assert default == [(12, 12), (128, 12)]


@pytest.mark.parametrize("convolutional", [True, False])
def test_weights_are_channels_last_where_the_backbone_says_so(convolutional: bool) -> None:
    weight = next(make(convolutional).backbone.parameters())
    assert weight.is_contiguous(memory_format=torch.channels_last) is convolutional


def test_loss_is_float32_under_autocast() -> None:
    task = make()
    with torch.autocast("cpu", torch.bfloat16):
        loss = task(batch(), seeded(1))["loss"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(make()(batch(), seeded(1))["loss"].item(), rel=0.05)


def test_learns_to_tell_images_apart() -> None:
    task = make(temperature=0.2)
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-2)
    losses = []
    for step in range(60):
        loss = task(batch(), seeded(step))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] < math.log(31) + 1
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.0),
        ("temperature", 11.0),
        ("temperature", math.nan),
        ("projection_dim", 1),
        ("projection_hidden", 0),
        ("projection_layers", 1),
    ],
)
def test_configuration_names_what_is_out_of_range(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} is {value}; it must be"):
        SimCLRConfig(**{name: value})  # type: ignore[arg-type]


def test_configuration_loads_no_torch() -> None:
    code = "import sys, fewlabel.ssl.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
