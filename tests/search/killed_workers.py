"""Two workers on one search, each killed -9 at random instants and started anew, until nothing is left to do.

Arguments: the storage, the run's directory, how many kills, a seed, and as JSON the options of `quick_search`.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from quick_search import QuickTrainer, quick_search, quick_worker

from fewlabel.tracking.lock import DirectoryLock

SECONDS = 0.1
"""Of a training."""


def start(url, directory, index, options):
    """A worker in a process of its own, as this one has read all modules already."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        worker = quick_worker(url, directory, index, QuickTrainer(directory, seconds=SECONDS), **options)
        status = worker.work()
    finally:
        os._exit(status)


def main(url, directory, kills, seed, options):
    lock = DirectoryLock(directory)
    # What is read from disk only when a storage is first opened is then there for all.
    quick_search(url, **options)[0].storage.engine.dispose()
    chance = random.Random(seed)
    workers = {start(url, directory, index, options): index for index in range(2)}
    killed = begun = 0
    while workers:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended:
            index = workers.pop(ended)
            if os.WIFSIGNALED(status):
                workers[start(url, directory, index, options)] = index
            else:
                assert status == 0, f"worker {index} ended with {status}"
        elif killed < kills and begun < len(list(directory.glob("trials/*"))):
            # Not sooner: some get far and some don't, but all together they get on.
            time.sleep(chance.uniform(0, 4 * SECONDS))
            os.kill(chance.choice(sorted(workers)), signal.SIGKILL)
            killed, begun = killed + 1, len(list(directory.glob("trials/*")))
        time.sleep(0.005)
    lock.release()
    print(killed)


if __name__ == "__main__":
    url, directory, kills, seed, options = sys.argv[1:]
    main(url, Path(directory), int(kills), int(seed), json.loads(options))
