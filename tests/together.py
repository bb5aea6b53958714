"""Many callers at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def together(writers: int, call: Callable[[int], Any]) -> list[Any]:
    """Call with 0, 1, ... in as many threads, all let go at once -> results and errors in order."""
    start = threading.Barrier(writers)

    def run(number: int) -> Any:
        start.wait(30)
        try:
            return call(number)
        except Exception as error:
            return error

    with ThreadPoolExecutor(writers) as pool:
        return list(pool.map(run, range(writers)))
