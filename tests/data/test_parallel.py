"""Ordered threads: order, errors in their turn, bounded reach, and no thread left behind."""

import threading
import time
from collections.abc import Iterator

import pytest

from fewlabel.data.parallel import ordered_map


def living() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("fewlabel-data")]


def test_results_come_in_order_although_work_ends_in_another() -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.02 if item % 4 == 0 else 0)
        return item * item

    assert list(ordered_map(slow_first, range(20), 4)) == [item * item for item in range(20)]
    assert not living()


def test_an_error_is_raised_at_its_turn() -> None:
    results = ordered_map(lambda item: 1 // (3 - item), range(10), 2)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert not living()


def test_closing_early_ends_the_threads_and_draws_no_further() -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            drawn.append(item)
            yield item

    results = ordered_map(lambda item: item, items(), 2, ahead=3)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert not living()
    assert len(drawn) <= 4
