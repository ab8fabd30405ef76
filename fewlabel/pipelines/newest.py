"""What a command takes where the user names nothing: the newest of the runs that have it."""

from collections.abc import Callable
from pathlib import Path

from fewlabel.console import as_typed, say
from fewlabel.errors import UserError

__all__ = ["newest_of"]


def newest_of(kind: str, newest: Callable[[Path], Path | None], command: str) -> Path:
    """The newest `kind` in runs/, which is told.

    Args:
        kind: "encoder", say, which is also the name of the flag that names one.
        newest: finds it in a folder of runs; see `tracking.catalogue`.
        command: what makes one.

    Raises:
        UserError: there is none.
    """
    runs = Path("runs")
    found = newest(runs)
    if found is None:
        raise UserError(
            f"There is no finished run with {'an' if kind[0] in 'aeiou' else 'a'} {kind} in {runs.resolve()}. Make one "
            f"with `{as_typed()} {command} --data your/folder`, or name one with --{kind}."
        )
    say(f"{kind.capitalize()}: {found}, the newest")
    return found
