"""Work in threads: results in order, errors in the caller's thread, and no waiting where nobody may wait."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mltrack_tasks.parallel import map_ordered, run_all


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(map_ordered(str, range(50), 4)) == [str(number) for number in range(50)]
    assert run_all([lambda: 1, lambda: 2], 4) == [1, 2]


def test_items_are_taken_as_results_are() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = map_ordered(str, items(), 4)
    next(results)
    assert taken == [0, 1, 2, 3]
    results.close()  # type: ignore[attr-defined]


def test_the_first_error_comes_after_what_had_begun() -> None:
    begun, ended = threading.Event(), []

    def call(number: int) -> None:
        if number == 0:
            begun.wait(60)
            raise ValueError("0")
        begun.set()
        ended.append(number)

    with pytest.raises(ValueError, match="0"):
        list(map_ordered(call, range(2), 2))
    assert ended == [1]


def test_the_garbage_collector_waits_for_no_thread() -> None:
    """A traceback can keep one that was left half way in a cycle, which is collected in whatever thread."""
    going_on = threading.Event()
    give_up = threading.Timer(60, going_on.set)
    give_up.start()
    circle: list[Any] = [map_ordered(lambda number: number and going_on.wait(), range(9), 3)]
    assert next(circle[0]) == 0
    circle.append(circle)
    del circle
    gc.collect()
    assert not going_on.is_set()
    going_on.set()
    give_up.cancel()


def test_one_that_is_collected_by_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", unraisable.append)
    left, collected = threading.Event(), threading.Event()

    def call(number: int) -> None:
        if number == 2:
            left.wait(60)
            gc.collect()
            collected.set()

    circle: list[Any] = [map_ordered(call, range(9), 3)]
    next(circle[0])
    circle.append(circle)
    del circle
    left.set()
    assert collected.wait(60)
    assert unraisable == []
