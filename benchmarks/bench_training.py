"""SimCLR training from images to updated weights, beside lightly's documented PyTorch example.

Both sides train the same ResNet-18 on the same images and machine, in turns of a few steps. What is measured
on our side is the product's own path: source, store, loader, views, task and loop, with its record.
"""

from pathlib import Path
from statistics import median

from benchmarks.rows import Row, at_least
from benchmarks.sides import PEER_SETTINGS, Side

__all__ = ["run"]

BATCH_SIZE, IMAGE_SIZE = 256, 32
ROUNDS = 3
STEPS_A_TURN = {"cpu": 1, "cuda": 50}
"""A GPU's turns are longer than what the peer's loader has prepared ahead."""
IMAGES = {"cpu": (ROUNDS + 1) * STEPS_A_TURN["cpu"] * BATCH_SIZE, "cuda": 50_000}
"""On a CPU only as many as are trained on."""

STEMS = {"small": "stem for small images", "imagenet": "ImageNet's stem"}
"""ImageNet's makes an image cheap that is small, which is what a laptop can do."""

LEAST_RATIO = {"cpu": 2.3, "cuda": 2.0}
LEAST_SHARE = 0.6


def run(data: Path) -> list[Row]:
    """Throughput with either stem, and share of the machine's peak; `data` is a source of small colour images."""
    small, share = _compared(data, small_stem=True)
    imagenet, _ = _compared(data, small_stem=False)
    return [small, imagenet, share]


def _compared(data: Path, *, small_stem: bool) -> tuple[Row, Row]:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    stem = "small" if small_stem else "imagenet"
    arguments = [str(data.resolve()), *map(str, (IMAGES[device], BATCH_SIZE, IMAGE_SIZE)), stem]
    request = f"train {STEPS_A_TURN[device]}"
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    peaks: list[float] = []
    with (
        Side("benchmarks.training_fewlabel", *arguments) as ours,
        Side("benchmarks.training_lightly", *arguments, settings=PEER_SETTINGS) as peer,
    ):
        for _ in range(ROUNDS + 1):
            seconds["ours"].append(ours.ask(request)["seconds"])
            seconds["peer"].append(peer.ask(request)["seconds"])
            peaks.append(ours.ask("peak")["flops_per_second"])
        facts, peer_facts = ours.facts, peer.facts
    # The first round warms up.
    step = {side: median(taken[1:]) / STEPS_A_TURN[device] for side, taken in seconds.items()}

    model = f"ResNet-18 at {IMAGE_SIZE} px, {STEMS[stem]}, batch {BATCH_SIZE}"
    throughput = at_least(
        LEAST_RATIO[device],
        f"SimCLR training, {model}",
        BATCH_SIZE / step["ours"],
        BATCH_SIZE / step["peer"],
        "images/s",
        note=f"ours in {facts['precision']}, lightly in {peer_facts['precision']} with {peer_facts['workers']} loader "
        f"workers; {facts['images']:,} images stored at {facts['side']} px, source {facts['fingerprint']}",
    )
    if device == "cpu" and facts["precision"] != "bf16":
        throughput["target"] += " with bf16"
        throughput["note"] += "; this CPU doesn't compute in bf16"
    share = at_least(
        LEAST_SHARE,
        f"SimCLR training step's share of the matrix-multiply peak, {model}",
        facts["flops_per_step"] / step["ours"] / 1e9,
        max(peaks) / 1e9,
        "GFLOP/s",
        note=f"both in {facts['precision']}; {facts['flops_per_step'] / 1e9:,.1f} GFLOP a step counted; "
        "the peer is the best of the machine's own products of large matrices",
    )
    return throughput, share
