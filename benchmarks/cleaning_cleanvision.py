"""What cleanvision finds in a folder, for the cleaning benchmark. A process of `sides.Side` in a venv of its own.

One file that can't be decoded stops it with an exception. So it is asked once what it does with the whole folder, and
then given the files that it can take, by name; telling which these are takes none of its time.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from cleanvision import Imagelab
from cleanvision.utils.utils import get_max_n_jobs
from PIL import Image

from benchmarks.sides import answers


def serve(folder: Path, out: Path) -> None:
    answer = answers()
    try:
        Imagelab(data_path=str(folder), verbose=False).find_issues(verbose=False)
        stopped = ""
    except Exception as error:
        stopped = type(error).__name__
    listed = Imagelab(data_path=str(folder), verbose=False).issues.index
    taken = [path for path in listed if _readable(path)]
    answer({"stopped": stopped, "listed": len(listed), "images": len(taken), "workers": get_max_n_jobs()})
    for _ in sys.stdin:
        started = time.perf_counter()
        lab = Imagelab(filepaths=taken, verbose=False)
        lab.find_issues(verbose=False)
        seconds = time.perf_counter() - started
        out.write_text(json.dumps(_found(lab, folder)), encoding="utf-8")
        answer({"seconds": seconds})


def _readable(path: str) -> bool:
    try:
        with Image.open(path) as image:
            image.copy()
    except Exception:
        return False
    return True


def _found(lab: Any, folder: Path) -> dict[str, Any]:
    """Ids by issue, and of duplicates the groups."""
    prefix, suffix = "is_", "_issue"
    found: dict[str, Any] = {"images": {}, "groups": {}}
    for column in lab.issues.columns:
        if column.startswith(prefix):
            issue = column.removeprefix(prefix).removesuffix(suffix)
            rows = lab.issues.index[lab.issues[column]]
            found["images"][issue] = [str(Path(path).relative_to(folder)) for path in rows]
    for issue in ("exact_duplicates", "near_duplicates"):
        sets = lab.info[issue]["sets"]
        found["groups"][issue] = [[str(Path(path).relative_to(folder)) for path in group] for group in sets]
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    serve(options.folder, options.out)
