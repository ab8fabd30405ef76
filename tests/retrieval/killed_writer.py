"""Changes an index again and again in processes that kill themselves at the n-th touch of a file in it.

Arguments: the index, the encoder's directory, a folder to add, an id to remove, and where to leave what remains: a
copy of the index for each change and instant, as <change>-<instant>.
"""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from fewlabel.backbones.encoder import load_encoder
from fewlabel.data.config import SourceConfig
from fewlabel.data.loading import load
from fewlabel.retrieval.index import Index

# Every call that opens, renames, cuts or deletes a file announces itself by one of these, before it happens.
TOUCHES = {"open", "os.rename", "os.remove", "os.truncate"}


def killed_at(instant: int, directory: Path, change) -> bool:
    """Whether a process that makes the change was killed by itself; False if it came to its end first."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return True
        assert status == 0, f"the writer failed with status {status}"
        return False
    touched = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal touched
        # What is opened for reading alone changes nothing: between two such instants the directory is the same.
        reads = event == "open" and (arguments[1] or "").startswith("r")
        if event in TOUCHES and not reads and str(arguments[0]).startswith(str(directory)):
            if touched == instant:
                os.kill(os.getpid(), signal.SIGKILL)
            touched += 1

    sys.addaudithook(count)
    try:
        change(directory)
        status = 0
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        status = 1
    os._exit(status)


def main(index: Path, encoder_directory: Path, folder: Path, identity: str, remains: Path) -> None:
    encoder = load_encoder(encoder_directory)
    source = load(SourceConfig(data=str(folder), val_share=0.0, test_share=0.0), least=1)

    def add(directory: Path) -> None:
        Index.open(directory, encoder=encoder).add(source)

    def remove(directory: Path) -> None:
        Index.open(directory, encoder=encoder).remove([identity])

    for name, change in (("add", add), ("remove", remove)):
        # Once to its end, which also leaves the features in the cache: the children compute none.
        shutil.copytree(index, remains / f"{name}-done")
        change(remains / f"{name}-done")
        instant = 0
        while True:
            directory = remains / f"{name}-{instant}"
            shutil.copytree(index, directory)
            if not killed_at(instant, directory, change):
                shutil.rmtree(directory)
                break
            instant += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], Path(sys.argv[5]))
