"""What each of several processes does in tests/floor3/test_races.py. Imports little: there are many."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mltrack_tasks.content import store_file
from mltrack_tasks.errors import ConflictError
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores import Store, open_directory, open_s3
from mltrack_tasks.stores.s3_settings import S3Settings
from tests.floor3.limits import shrink

_start: Any


def prepare(start: Any) -> None:
    """Make small things large here too, and keep the barrier that lets all processes go at once."""
    global _start
    _start = start
    shrink(setattr)


def work(where: str | S3Settings, file: str, threads: int) -> list[tuple[str, str]]:
    """In several threads, store a file and a run, at the same moment as others -> (ref, outcome) of each."""
    store = open_directory(where) if isinstance(where, str) else open_s3(where)
    _start.wait(60)

    def store_both(number: int) -> tuple[str, str]:
        return str(store_file(store, file, "large")), _run(store, number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(store_both, range(threads)))


def _run(store: Store, number: int) -> str:
    try:
        store_run(store, "r", {"process": os.getpid(), "thread": number}, storage_mode="flat")
    except ConflictError as error:
        return type(error).__name__
    return "created"
