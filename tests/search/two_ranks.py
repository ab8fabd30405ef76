"""One worker of two processes; each says what it was told to train. Arguments: the storage and the run's directory."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from accelerate.utils import broadcast_object_list
from quick_search import QuickTrainer, quick_worker

from fewlabel.search.worker import Stopped, follow
from fewlabel.tracking.lock import DirectoryLock
from fewlabel.training.config import TrainingConfig
from fewlabel.training.processes import make_accelerator

OPTIONS = {"trials": 6, "pruner": "halving", "confirm": 1}


@dataclass
class Telling(QuickTrainer):
    """Writes a line for each training, and how it ended."""

    def train(self, candidate, log, report, *, full, checkpoint):
        told = {"candidate": candidate.as_json(), "full": full, "directory": str(log.directory), "steps": 0}

        def counting(step, value):
            told["steps"] = step
            report(step, value)

        try:
            # Only the main process has a lock on the slot and a record to write.
            (self.folder / os.environ["RANK"]).mkdir(exist_ok=True)
            return QuickTrainer(self.folder / os.environ["RANK"], diverges_above=1.5).train(
                candidate, log, counting, full=full, checkpoint=checkpoint
            )
        except Stopped as stop:
            told["ended"] = str(stop)
            raise
        finally:
            with (self.folder / f"rank-{os.environ['RANK']}.jsonl").open("a") as file:
                file.write(json.dumps(told) + "\n")


def main(url, directory):
    accelerator = make_accelerator(TrainingConfig(processes=2), "fp32")
    if accelerator.is_main_process:
        lock = DirectoryLock(directory)
        worker = quick_worker(url, directory, 0, Telling(directory), **OPTIONS)
        worker.share, worker.processes = broadcast_object_list, accelerator.num_processes
        status = worker.work()
        lock.release()
    else:
        follow(Telling(directory), broadcast_object_list)
        status = 0
    accelerator.end_training()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
