"""Commands of ours, run as a user runs them."""

import json
import subprocess
import sys
from typing import Any

__all__ = ["fewlabel"]


def fewlabel(*arguments: str) -> dict[str, Any]:
    """Run `fewlabel <arguments> --json`; its result."""
    done = subprocess.run(
        [sys.executable, "-m", "fewlabel", *arguments, "--json"], check=True, stdout=subprocess.PIPE, text=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result
