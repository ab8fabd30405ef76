"""Our side of the training benchmark: the product's own path from images to the loop, paced from outside.

A process of `sides.Side`. It answers `train N` with the seconds of N steps, and `peak` with what the machine's
matrix products reach.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.images import training_images
from benchmarks.sides import answers
from fewlabel.backbones.registry import create
from fewlabel.data.loader import Loader
from fewlabel.data.store import ImageBatch, mean_and_std
from fewlabel.data.views import TwoViews
from fewlabel.ssl.config import SimCLRConfig
from fewlabel.ssl.simclr import SimCLR
from fewlabel.tracking.run import Run
from fewlabel.training.config import TrainingConfig
from fewlabel.training.loop import fit
from fewlabel.training.optimizers import build_optimizer, settle_optimizer
from fewlabel.training.processes import choose_precision, make_accelerator
from fewlabel.training.schedule import plan_steps

UNLIMITED = 10**6
"""Steps: more than any benchmark takes."""

PEAK_SIDE = {"cpu": 4096, "cuda": 8192}
PEAK_REPEATS = 5


class PacedLoader(Loader):
    """The product's loader, which hands out as many batches as each line of standard input asks for.

    The time of a turn runs until the loop comes for a batch again: all that it does to and for a step counts.
    """

    answer: Callable[[dict[str, Any]], None]
    peak: Callable[[], float]
    wait: Callable[[], None]

    def iterate(self, start_step: int, stop_step: int) -> Generator[ImageBatch, None, None]:
        batches = super().iterate(start_step, stop_step)
        try:
            for line in sys.stdin:
                if line.strip() == "peak":
                    self.answer({"flops_per_second": self.peak()})
                    continue
                started = time.perf_counter()
                for _ in range(int(line.split()[1])):
                    yield next(batches)
                self.wait()
                self.answer({"seconds": time.perf_counter() - started})
        finally:
            batches.close()


def count_flops(task: SimCLR, batch: ImageBatch) -> int:
    """Floating-point operations of one step, forward and backward, counted operation by operation."""
    device = next(task.parameters()).device
    moved = ImageBatch(*(part.to(device) for part in batch))
    with FlopCounterMode(display=False) as counter:
        task(moved, torch.Generator(device).manual_seed(0))["loss"].backward()
    task.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def matmul_peak(device: torch.device, dtype: torch.dtype, wait: Callable[[], None]) -> float:
    """Floating-point operations a second of the best of several products of large square matrices."""
    side = PEAK_SIDE[device.type]
    left, right, product = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(3))
    seconds = []
    for _ in range(PEAK_REPEATS):
        wait()
        started = time.perf_counter()
        torch.mm(left, right, out=product)
        wait()
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds)


def serve(data: str, images: int, batch_size: int, image_size: int, stem: str, scratch: Path) -> None:
    answer = answers()
    training = TrainingConfig(
        max_steps=UNLIMITED, batch_size=batch_size, checkpoint_steps=UNLIMITED, evaluate_steps=UNLIMITED
    )
    precision = choose_precision(training.precision)
    accelerator = make_accelerator(training, precision)
    device = accelerator.device
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    source, store = training_images(data, images, image_size, scratch)
    loader = PacedLoader(store, batch_size, seed=training.seed)
    views = TwoViews("natural", image_size, *mean_and_std(store, training.seed))
    torch.manual_seed(training.seed)
    backbone = create("resnet18", image_size=image_size, small_stem=stem == "small")
    task = SimCLR(backbone, views, SimCLRConfig()).to(device)
    optimizer = build_optimizer(
        task, settle_optimizer(training, batch_size, convolutional=True), task.backbone.no_weight_decay()
    )
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16 if precision == "fp16" else torch.float32
    loader.answer, loader.wait = answer, wait
    loader.peak = lambda: matmul_peak(device, dtype, wait)
    facts = {
        "device": device.type,
        "precision": precision,
        "images": len(store),
        "side": store.side,
        "fingerprint": source.fingerprint[:16],
        "flops_per_step": count_flops(task, loader.batch_at(0)),
    }
    with Run.create("benchmark", {}, out=scratch / "run") as run:
        answer(facts)
        plan = plan_steps(training, loader.steps_per_epoch, None)
        fit(
            task,
            optimizer,
            loader,
            plan,
            accelerator,
            run,
            seed=training.seed,
            clip_grad_norm=training.clip_grad_norm,
            evaluate=lambda step: {},
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("images", type=int)
    parser.add_argument("batch_size", type=int)
    parser.add_argument("image_size", type=int)
    parser.add_argument("stem", choices=("small", "imagenet"))
    options = parser.parse_args()
    os.environ["WANDB_MODE"] = "offline"
    with tempfile.TemporaryDirectory() as folder:
        serve(**vars(options), scratch=Path(folder))
