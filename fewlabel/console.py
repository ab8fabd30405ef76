"""The one console: every message and progress bar goes to standard error, results to standard output."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

__all__ = ["as_typed", "console", "print_table", "progress_bar", "say", "say_rows", "track"]

LOG_WIDTH = 120
"""Columns of a line where no terminal says how many it has."""

console = Console(
    stderr=True, quiet=os.environ.get("RANK", "0") != "0", width=None if sys.stderr.isatty() else LOG_WIDTH
)
"""Of several processes that do the same, the main one speaks."""

Item = TypeVar("Item")


def progress_bar(*columns: str) -> Progress:
    """A progress bar on the console with extra text `columns` (rich markup over `task.fields`).

    It shows nothing where standard error is no terminal, so that logs stay readable.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *(TextColumn(column) for column in columns),
        TimeRemainingColumn(),
        console=console,
        disable=console.quiet or not console.is_terminal,
    )


def track(items: Iterable[Item], description: str, total: int) -> Iterable[Item]:
    """Yield `items` under a progress bar of `total` steps."""
    with progress_bar() as bar:
        yield from bar.track(items, total=total, description=description)


def say(text: str) -> None:
    """Print a line as it is: ids and paths may hold what rich takes for markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def say_rows(rows: Mapping[str, str]) -> None:
    """Print a line for each name and what it stands for, e.g. what a run derived."""
    for name, value in rows.items():
        console.print(f"{name:<12}", style="dim", end="")
        say(value)


def as_typed(tool: str = "fewlabel") -> str:
    """What to type for a `tool` of this installation: its name where the shell finds it, else its path."""
    if shutil.which(tool):
        return tool
    path = Path(sys.executable).with_name(tool)
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def print_table(table: Table) -> None:
    """Print a command's result on standard output, whole lines where no terminal cuts them."""
    output = Console() if sys.stdout.isatty() else Console(width=240)
    output.print(table)
