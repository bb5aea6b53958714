"""Bounded work in threads, results in the caller's thread and in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def map_ordered(call: Callable[[S], T], items: Iterable[S], workers: int) -> Iterator[T]:
    """Apply ``call`` to items in ``workers`` threads; yield results in the items' order.

    At most ``workers`` results wait to be taken, so memory is bounded however long ``items`` is. The first
    error is raised in the caller's thread, after what had begun; what had not begun by then is dropped. Left
    by its caller before the end, it drops the same and waits for nothing.
    """
    waiting: deque[Future[T]] = deque()
    pool, left = ThreadPoolExecutor(max_workers=workers), False
    try:
        for item in items:
            waiting.append(pool.submit(copy_context().run, call, item))
            if len(waiting) >= workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except GeneratorExit:
        # It may come from the garbage collector: in any thread, also one of ours, which cannot wait for
        # itself, and inside of threading's own locks, which the others need for their end.
        left = True
        raise
    finally:
        for future in waiting:
            future.cancel()
        pool.shutdown(wait=not left)


def run_all(calls: Iterable[Callable[[], T]], workers: int) -> list[T]:
    """Run calls in ``workers`` threads -> their results in order; one or none run without a thread."""
    todo = list(calls)
    if len(todo) <= 1:
        return [call() for call in todo]
    return list(map_ordered(lambda call: call(), todo, min(workers, len(todo))))
