"""What a worker does beside its trainings: it hears signals, shows that it lives, and sees that its search goes on."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from types import FrameType

from fewlabel.console import say
from fewlabel.tracking.lock import is_locked

__all__ = ["ending_with", "noting_signals", "repeating"]

LOOK_SECONDS = 1.0
"""How often a worker looks whether its search goes on."""


@contextmanager
def noting_signals(noted: list[int]) -> Iterator[None]:
    """Collect SIGTERM and SIGINT, for when no training collects them itself; a second SIGINT ends all at once."""

    def note(number: int, frame: FrameType | None) -> None:
        if noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ending_with(directory: Path) -> Iterator[None]:
    """End this process, as a signal would, once nobody has locked `directory` any more."""

    def look() -> None:
        if not is_locked(directory):
            signal.raise_signal(signal.SIGTERM)

    with repeating(LOOK_SECONDS, look):
        yield


@contextmanager
def repeating(seconds: float, act: Callable[[], None], last: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Call `act` every so many seconds beside the block, and `last` at the end, in a thread of their own."""
    done = Event()

    def repeat() -> None:
        while not done.wait(seconds):
            try:
                act()
            except Exception as error:
                # The next may succeed: a storage that is away for a moment is no reason to give up a training.
                say(f"{type(error).__name__}: {error}")
        last()

    thread = Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
