"""`python -m benchmarks.bench_backbones`: what a training step costs on every family, and beside public networks.

Each measurement runs in a process of its own, so that its memory is its own.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from math import log2
from pathlib import Path
from typing import Any

from benchmarks import backbones_page
from fewlabel.console import track
from fewlabel.files import write_json

__all__ = ["main"]

SMALL_SIZE = 32
STEPS = 3
OPERATIONS_A_STEP = {"cpu": 2e11, "cuda": 2e13}
"""The batch is chosen so that a step has about as many."""
FEWEST, MOST = 4, {"cpu": 256, "cuda": 4096}
"""Views in a step."""


def step_cost(name: str, image_size: int) -> dict[str, Any]:
    """Time and memory of SimCLR's step on `name`, in this process."""
    import torch

    from benchmarks.measure import Memory, median_seconds
    from benchmarks.training_fewlabel import matmul_peak
    from fewlabel.backbones.cost import count_flops
    from fewlabel.backbones.meta import without_weights
    from fewlabel.backbones.registry import create
    from fewlabel.data.store import ImageBatch
    from fewlabel.ssl.config import SimCLRConfig
    from fewlabel.ssl.simclr import SimCLR
    from fewlabel.training.config import TrainingConfig
    from fewlabel.training.optimizers import build_optimizer, settle_optimizer
    from fewlabel.training.processes import choose_precision

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = choose_precision("auto")
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    with without_weights():
        forward = count_flops(create(name, image_size=image_size))
    views = 2 ** round(log2(OPERATIONS_A_STEP[device.type] / (3 * forward)))
    views = min(max(views, FEWEST), MOST[device.type])

    generator = torch.Generator(device).manual_seed(0)
    images = torch.randn(views, 3, image_size, image_size, device=device, generator=generator)
    batch = ImageBatch(images[: views // 2], torch.ones(views // 2, device=device), torch.arange(views // 2))
    memory = Memory(device)
    torch.manual_seed(0)
    backbone = create(name, image_size=image_size)
    task = SimCLR(backbone, lambda *_: (images[: views // 2], images[views // 2 :]), SimCLRConfig()).to(device)
    training = settle_optimizer(TrainingConfig(), views // 2, convolutional=backbone.convolutional)
    optimizer = build_optimizer(task, training, backbone.no_weight_decay())

    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = task(batch, generator)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    seconds = median_seconds(step, device, STEPS)
    # Not counted on the step itself: torch's counter takes the backward pass of a grouped convolution for a full one.
    rate = 3 * forward * views / seconds
    peak = matmul_peak(device, dtype, torch.cuda.synchronize if device.type == "cuda" else lambda: None)
    return {
        "member": backbone.name,
        "image_size": image_size,
        "batch": views,
        "views_per_second": views / seconds,
        "memory_mib": memory.peak_mib(),
        "gflops_per_second": rate / 1e9,
        "share": rate / peak,
        "precision": precision,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all families and all peers, write the figures, then docs/backbones.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("NAME", "PIXELS"), help=argparse.SUPPRESS)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--memory", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="+", default=[], help="families or peers to measure again; the rest stays")
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(step_cost(options.one[0], int(options.one[1]))))
        return 0
    if options.peer:
        from benchmarks.backbone_peers import compare, peak_mib

        print(json.dumps(peak_mib(options.peer, options.memory) if options.memory else compare(options.peer)))
        return 0
    return _all(options.only)


def _asked(*words: str) -> Any:
    """What this program answers to `words` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_backbones", *words]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


def _all(only: Sequence[str]) -> int:
    import torch

    from benchmarks.backbone_peers import PEERS
    from fewlabel.backbones.registry import all_families
    from fewlabel.files import read_json
    from fewlabel.tracking.provenance import provenance

    measured = [family for family in all_families() if not only or family.name in only]
    compared = [name for name in PEERS if not only or name in only]
    old = read_json(backbones_page.MEASURED) if only else {"families": [], "peers": []}
    found: dict[str, list[dict[str, Any]]] = {
        "families": [row for row in old["families"] if row["family"] not in only],
        "peers": [row for row in old["peers"] if row["key"] not in only],
    }
    for family in track(measured, "Families", len(measured)):
        for size in (SMALL_SIZE, family.members[family.large].image_size):
            found["families"].append({"family": family.name, **_asked("--one", family.name, str(size))})
    for name in track(compared, "Peers", len(compared)):
        memory = {f"{side}_mib": _asked("--peer", name, "--memory", side) for side in ("ours", "peer")}
        found["peers"].append({**_asked("--peer", name), **memory})
    found["families"].sort(key=lambda row: (row["family"], row["image_size"]))
    machine = provenance()["machine"]
    device = machine["gpus"][0] if machine["gpus"] else f"{machine['cpu']}, {machine['cores']} cores"
    origin = {
        "date": datetime.now(UTC).date().isoformat(),
        "device": device,
        "torch": torch.__version__,
        "precision": found["families"][0]["precision"],
        "steps": STEPS,
    }
    write_json(Path(backbones_page.MEASURED), {**origin, **found})
    return backbones_page.main()


if __name__ == "__main__":
    raise SystemExit(main())
