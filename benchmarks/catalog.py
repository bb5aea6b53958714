"""Searching 10,000 runs: requests and seconds, before and after the first compaction."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.server import Target
from mltrack_tasks.compaction import compact_catalog
from mltrack_tasks.query import query_runs
from mltrack_tasks.runs import list_runs
from mltrack_tasks.stores import open_s3
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.observed import CountingStore
from tests.synthetic import make_run, write_runs

SIZES = (1_000, 10_000)
MATCHING = 20
SQL = (
    "SELECT run_id, metrics.loss, params.max_depth FROM runs "
    "WHERE project = 'wanted' AND params.max_depth > 3 ORDER BY metrics.loss"
)


def run(target: Target) -> bool:
    """Print what each way costs; True if the requests do not depend on the runs that do not match."""
    print(f"catalogue of runs, {MATCHING} of them match (server {target.server})")
    print(f"  {'runs':>6}  {'what':34} {'requests':>8} {'received':>12} {'seconds':>8}")
    counts = []
    for size in SIZES:
        store = open_s3(replace(target.settings, prefix=f"{target.settings.prefix}/runs{size}"))
        began = time.perf_counter()
        write_runs(store, [make_run(number) for number in range(size - MATCHING)])
        write_runs(store, [make_run(10**6 + number, "wanted") for number in range(MATCHING)])
        print(
            f"  {size:6,}  {'(written by 16 threads)':34} {'':8} {'':12} {time.perf_counter() - began:8.2f}"
        )
        _cost(store, size, "list_runs, not compacted", _search)
        _cost(store, size, "first compaction", compact_catalog)
        listed = _cost(store, size, "list_runs(project=...)", _search)
        queried = _cost(store, size, "query_runs", lambda store: query_runs(store, SQL))
        _cost(store, size, "compaction with nothing new", compact_catalog)
        counts.append((listed, queried))
    print("  bar: list_runs and query_runs take the same requests for all sizes")
    return len(set(counts)) == 1


def _search(store: Store) -> None:
    found = len(list_runs(store, project="wanted"))
    if found != MATCHING:
        raise AssertionError(f"{found} runs were found, not {MATCHING}")


def _cost(store: Store, size: int, what: str, act: Callable[[Store], Any]) -> int:
    counting = CountingStore(store)
    began = time.perf_counter()
    act(counting)
    took = time.perf_counter() - began
    print(f"  {size:6,}  {what:34} {counting.requests:8,} {counting.received.total():12,} {took:8.2f}")
    return counting.requests
