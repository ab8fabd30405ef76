"""The networks written here beside the nearest public implementation, or beside the form that one writes first."""

from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measure import Memory, median_seconds
from fewlabel.backbones.registry import create

__all__ = ["PEERS", "Unfolded", "compare", "peak_mib"]

ROUNDS = 5

Pair = tuple[nn.Module, nn.Module, tuple[Tensor, ...], str, str]
"""Ours, the peer, arguments of both, the peer's name, and a note."""


class Unfolded(nn.Module):
    """Involution through `F.unfold`: every pixel's surroundings side by side, K^2 times the features."""

    def forward(self, features: Tensor, kernels: Tensor) -> Tensor:
        batch, groups, size, _, height, width = kernels.shape
        patches = F.unfold(features, size, padding=size // 2)
        patches = patches.view(batch, groups, -1, size * size, height, width)
        return (patches * kernels.flatten(2, 3).unsqueeze(2)).sum(3).flatten(1, 2)


class _Involution(nn.Module):
    def forward(self, features: Tensor, kernels: Tensor) -> Tensor:
        from fewlabel.backbones.involution import involution

        out: Tensor = involution(features, kernels, 1)
        return out


def _involution() -> Pair:
    features = torch.randn(16, 64, 56, 56, requires_grad=True)
    kernels = torch.randn(16, 4, 7, 7, 56, 56, requires_grad=True)
    return _Involution(), Unfolded(), (features, kernels), "unfold form", "7x7, batch 16, 64 channels at 56x56"


def _cct() -> Pair:
    from vit_pytorch.cct import CCT

    theirs = CCT(
        img_size=32,
        embedding_dim=256,
        n_conv_layers=1,
        kernel_size=3,
        stride=1,
        padding=1,
        num_layers=7,
        num_heads=4,
        mlp_ratio=2.0,
        num_classes=10,
        attention_dropout=0.0,
        stochastic_depth_rate=0.0,
        positional_embedding="learnable",
    )
    return create("cct_7_3x1", image_size=32), theirs, (torch.randn(16, 3, 32, 32),), "vit-pytorch", "batch 16"


def _fnet() -> Pair:
    from transformers.models.fnet.configuration_fnet import FNetConfig
    from transformers.models.fnet.modeling_fnet import FNetEncoder

    config = FNetConfig(
        hidden_size=192, intermediate_size=768, num_hidden_layers=8, hidden_act="gelu", hidden_dropout_prob=0.0
    )
    ours = create("fnet_tiny_32", image_size=32).body.blocks
    return ours, _First(FNetEncoder(config)), (torch.randn(64, 64, 192),), "transformers", "8 blocks, 64 x 64 tokens"


def _perceiver() -> Pair:
    from transformers.models.perceiver.configuration_perceiver import PerceiverConfig
    from transformers.models.perceiver.modeling_perceiver import PerceiverImagePreprocessor, PerceiverModel

    ours = create("perceiver_32", image_size=32, iterations=1)
    config = PerceiverConfig(
        num_latents=128,
        d_latents=256,
        d_model=69,
        num_blocks=1,
        num_self_attends_per_block=4,
        num_self_attention_heads=8,
        num_cross_attention_heads=1,
        attention_probs_dropout_prob=0.0,
    )
    preprocessor = PerceiverImagePreprocessor(
        config,
        prep_type="pixels",
        spatial_downsample=1,
        position_encoding_type="fourier",
        in_channels=3,
        out_channels=3,
        concat_or_add_pos="concat",
        fourier_position_encoding_kwargs={
            "num_bands": 16,
            "max_resolution": (32, 32),
            "sine_only": False,
            "concat_pos": True,
        },
    )
    theirs = _First(PerceiverModel(config, input_preprocessor=preprocessor))
    return ours, theirs, (torch.randn(8, 3, 32, 32),), "transformers", "one iteration, batch 8"


class _First(nn.Module):
    """The first of a network's outputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *arguments: Tensor) -> Tensor:
        out: Tensor = self.network(*arguments)[0]
        return out


PEERS: dict[str, Callable[[], Pair]] = {
    "involution": _involution,
    "cct_7_3x1": _cct,
    "fnet_tiny_32": _fnet,
    "perceiver_32": _perceiver,
}


def compare(name: str) -> dict[str, Any]:
    """Seconds of a step, forward and backward, of both sides in turns, on the GPU or the CPU."""
    device = _device()
    *networks, arguments, peer, note = _made(name, device)
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(ROUNDS + 1):
        for taken, network in zip(seconds, networks, strict=True):
            one = median_seconds(lambda network=network: _step(network, arguments), device, 1)
            if turn:
                taken.append(one)
    ours, theirs = map(median, seconds)
    return {"key": name, "peer": peer, "note": note, "seconds": ours, "peer_seconds": theirs}


def peak_mib(name: str, side: str) -> float:
    """The memory that a step of one side, `ours` or `peer`, needs beyond its weights; in a process of its own."""
    device = _device()
    ours, theirs, arguments, *_ = _made(name, device)
    memory = Memory(device)
    _step(ours if side == "ours" else theirs, arguments)
    return memory.peak_mib()


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _made(name: str, device: torch.device) -> Pair:
    torch.manual_seed(0)
    ours, theirs, arguments, peer, note = PEERS[name]()
    arguments = tuple(value.detach().to(device).requires_grad_(value.requires_grad) for value in arguments)
    return ours.to(device), theirs.to(device), arguments, peer, note


def _step(network: nn.Module, arguments: tuple[Tensor, ...]) -> None:
    network(*arguments).square().mean().backward()
    for value in (*network.parameters(), *arguments):
        value.grad = None
