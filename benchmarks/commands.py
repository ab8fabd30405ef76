"""Commands of ours, run as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from fewlabel.files import read_json

__all__ = ["fewlabel", "finished"]


def fewlabel(*arguments: str) -> dict[str, Any]:
    """Run `fewlabel <arguments> --json`; its result."""
    done = subprocess.run(
        [sys.executable, "-m", "fewlabel", *arguments, "--json"], check=True, stdout=subprocess.PIPE, text=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def finished(command: str, out: Path, *arguments: str) -> dict[str, Any]:
    """The result of a resumable command in `out`: as it stands there, or after going on or beginning."""
    if not (out / "result.json").exists():
        begun = (out / "config.json").exists()
        given = ("--resume", str(out)) if begun else (*arguments, "--out", str(out))
        subprocess.run([sys.executable, "-m", "fewlabel", command, *given], check=True)
    result: dict[str, Any] = read_json(out / "result.json")
    return result
