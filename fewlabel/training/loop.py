"""The one loop that trains everything."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from fewlabel.console import console, progress_bar
from fewlabel.data.loader import Loader
from fewlabel.data.store import ImageBatch
from fewlabel.errors import Diverged
from fewlabel.training.checkpoint import Checkpoint, restore, save_latest, write_checkpoint
from fewlabel.training.schedule import Plan, warmup_cosine
from fewlabel.training.task import Task

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Interrupted", "RunLog", "fit", "step_seed"]

Evaluate = Callable[[int], dict[str, float]]


class RunLog(Protocol):
    """What the loop needs of a run's record."""

    @property
    def directory(self) -> Path:
        """Where the run's files are."""

    @property
    def wandb_id(self) -> str:
        """The record's id in W&B, kept in checkpoints."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Remember figures of a step."""


class Interrupted(Exception):
    """A signal ended training after `step` steps; its checkpoint is written."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}")
        self.step = step
        self.number = number


def step_seed(seed: int, step: int, rank: int) -> int:
    """The 63-bit seed of everything random in one step of one process, so that no generator state need be kept."""
    digest = blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def _noting_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT in a list, for the loop to act on between steps.

    One that came too late for that, in the last step, is handed on to the caller's own handler, where it has one.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(number)
        console.print("Stopping after this step; once more Ctrl-C stops at once.")

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    earlier = before[signal.Signals(noted[0])] if noted else None
    if callable(earlier) and earlier is not signal.default_int_handler:
        earlier(noted[0], None)


def fit(
    task: Task,
    optimizer: Optimizer,
    loader: Loader,
    plan: Plan,
    accelerator: "Accelerator",
    run: RunLog,
    *,
    seed: int,
    clip_grad_norm: float,
    evaluate: Evaluate,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Train `task` from `checkpoint` (or the start) to the end of `plan`, or until it says that it is done.

    Args:
        task: what is trained, on whatever device.
        optimizer: its groups carry `peak_lr`.
        loader: this process's share of the batches.
        plan: durations in steps.
        accelerator: processes, device and precision.
        run: the record (on the main process).
        seed: the run's.
        clip_grad_norm: largest gradient norm; 0 for no limit.
        evaluate: `evaluate(step)` gives figures to log; called on every process, `task` in training mode after.
        checkpoint: where to go on from.

    Raises:
        Interrupted: SIGTERM or SIGINT came; a checkpoint of that step is written.
        Diverged: the loss became NaN or infinite.
        UserError: a checkpoint can't be written.
    """
    first = checkpoint.step if checkpoint else 0
    task.to(accelerator.device)
    if checkpoint:
        restore(checkpoint, task, optimizer, accelerator.scaler)
    if task.is_done():
        return
    prepared_task, prepared = accelerator.prepare(task, optimizer)
    folder = run.directory / "checkpoints"
    rank, world, device = accelerator.process_index, accelerator.num_processes, accelerator.device
    generator = torch.Generator(device)

    def state(step: int) -> dict[str, object]:
        scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else {}
        return {
            "step": step,
            "seed": seed,
            "model": task,
            "optimizer": optimizer,
            "scaler": scaler,
            "wandb_id": run.wandb_id,
        }

    clock = _Clock(views=task.views_per_image * loader.batch_size * world)
    batches = loader.iterate(first, plan.total_steps)
    with _noting_signals() as signals, progress_bar("{task.fields[figures]}") as bar:
        shown = bar.add_task("Training", total=plan.total_steps, completed=first, figures="")
        try:
            for step, batch in enumerate(batches, start=first):
                clock.start()
                for group in optimizer.param_groups:
                    group["lr"] = group["peak_lr"] * warmup_cosine(step, plan)
                own_seed = step_seed(seed, step, rank)
                torch.manual_seed(own_seed)
                generator.manual_seed(own_seed)
                moved = ImageBatch(*(part.to(device, non_blocking=True) for part in batch))
                outputs: dict[str, Tensor] = prepared_task(moved, generator)
                accelerator.backward(outputs["loss"])
                mean_loss = accelerator.reduce(outputs["loss"].detach(), "mean").item()
                if not math.isfinite(mean_loss):
                    _stop_on_bad_loss(mean_loss, batch, step, accelerator, folder.parent, state(step))
                figures = {"loss": mean_loss, "learning_rate": optimizer.param_groups[0]["lr"]}
                if clip_grad_norm > 0:
                    norm = accelerator.clip_grad_norm_(prepared_task.parameters(), clip_grad_norm)
                    figures["gradient_norm"] = float(norm)
                prepared.step()
                prepared.zero_grad(set_to_none=True)
                done = step + 1
                task.after_step(done)
                clock.stop()
                figures |= {"epoch": done / plan.steps_per_epoch, "views_per_second": clock.views_per_second}
                bar.update(
                    shown,
                    completed=done,
                    figures=f"loss {mean_loss:.3f}  {clock.views_per_second:,.0f} views/s",
                )
                last = done == plan.total_steps
                if done % plan.evaluate_steps == 0 or last:
                    figures |= evaluate(done)
                    task.train()
                    last = last or task.is_done()
                run.log(done, figures)
                stop = _agreed(signals, accelerator)
                if accelerator.is_main_process and (stop or done % plan.checkpoint_steps == 0 or last):
                    save_latest(folder, **state(done))
                if last:
                    break
                if stop:
                    raise Interrupted(done, stop)
        finally:
            batches.close()


class _Clock:
    """Views a second over the steps alone, without evaluations and the first steps' warming up."""

    def __init__(self, views: int, skipped: int = 2) -> None:
        self._views, self._skipped = views, skipped
        self._steps, self._seconds, self._started = 0, 0.0, 0.0

    def start(self) -> None:
        self._started = time.perf_counter()

    def stop(self) -> None:
        seconds = time.perf_counter() - self._started
        self._steps += 1
        # Until the warm-up is over, the latest step stands for all.
        self._seconds = self._seconds + seconds if self._steps > self._skipped + 1 else seconds

    @property
    def views_per_second(self) -> float:
        return self._views * max(1, self._steps - self._skipped) / self._seconds if self._seconds else 0.0


def _agreed(signals: list[int], accelerator: "Accelerator") -> int:
    """The signal that any process has noted, known to all of them in the same step; 0 for none."""
    own = signals[0] if signals else 0
    if accelerator.num_processes == 1:
        return own
    return int(accelerator.gather(torch.tensor([own], device=accelerator.device)).max().item())


def _stop_on_bad_loss(
    loss: float,
    batch: ImageBatch,
    step: int,
    accelerator: "Accelerator",
    directory: Path,
    state: dict[str, object],
) -> None:
    """Save the state before the bad step with the batch's indices, and stop.

    Raises:
        Diverged: always.
    """
    indices = accelerator.gather(batch.index.to(accelerator.device)).tolist()
    path = directory / f"bad-step-{step:08d}.safetensors"
    if accelerator.is_main_process:
        write_checkpoint(path, **state)  # type: ignore[arg-type]
    raise Diverged(
        f"The loss of step {step} is {loss}. The weights before it are saved for replay in {path}; the batch was the "
        f"training images number {indices}. Lower --lr, lengthen --warmup-epochs or take --precision fp32, "
        "and start a new run."
    )
