"""Threads that keep the order of their work."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["ordered_map"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int | None = None
) -> Generator[Result, None, None]:
    """Yield `function(item)` for each item in order, computed by `workers` threads at most `ahead` items
    early.

    `items` is drawn from the calling thread and only as far as `ahead` (by default twice the workers), so
    memory stays bounded. An exception of `function` is raised at its item's turn. Closing the iterator early
    cancels what has not begun and waits for the rest: no thread outlives it.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="fewlabel-data")
    pending: deque[Future[Result]] = deque()
    source = iter(items)
    try:
        for item in islice(source, ahead if ahead is not None else 2 * workers):
            pending.append(pool.submit(function, item))
        while pending:
            result = pending.popleft().result()
            for item in islice(source, 1):
                pending.append(pool.submit(function, item))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
