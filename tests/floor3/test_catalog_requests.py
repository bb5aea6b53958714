"""What searching costs: requests and bytes, counted at the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mltrack_tasks.compaction import compact_catalog, merged_count
from mltrack_tasks.query import query_runs
from mltrack_tasks.runs import list_runs
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore
from tests.synthetic import make_run, write_runs

MATCHING = 20


def filled(store: Store, others: int) -> CountingStore:
    """A compacted store with MATCHING runs of one project among others."""
    write_runs(store, [make_run(number) for number in range(others)], workers=2)
    write_runs(store, [make_run(10**5 + number, "wanted") for number in range(MATCHING)], workers=2)
    compact_catalog(store)
    return CountingStore(store)


def search(store: Store) -> list[str]:
    return sorted(run.run_id for run in list_runs(store, project="wanted"))


def query(store: Store) -> list[str]:
    found = query_runs(store, "SELECT run_id FROM runs WHERE project = 'wanted' ORDER BY run_id")
    return list(found.frame["run_id"])


@pytest.mark.parametrize("ask", [search, query])
def test_requests_do_not_grow_with_runs_that_do_not_match(ask: Callable[[Store], Any]) -> None:
    few, many = filled(MemoryStore(), 50), filled(MemoryStore(), 1_200)
    assert ask(few) == ask(many) == [f"run_{10**5 + number:06d}" for number in range(MATCHING)]
    assert few.requests == many.requests == 4  # the log, the snapshots, the newest one, its part


def test_a_newer_run_costs_one_request(store: Store) -> None:
    counting = filled(store, 100)
    write_runs(store, [make_run(7_000, "wanted")])
    assert len(search(counting)) == MATCHING + 1
    assert counting.requests == 5


def test_without_a_catalogue_each_run_costs_one_request(store: Store) -> None:
    write_runs(store, [make_run(number) for number in range(30)])
    counting = CountingStore(store)
    assert len(list_runs(counting)) == 30
    assert counting.requests == 30 + 3  # the log, the snapshots, the manifests


def test_compaction_reads_what_is_new_only(store: Store) -> None:
    filled(store, 200)
    write_runs(store, [make_run(7_000 + number) for number in range(10)])
    counting = CountingStore(store)
    report = compact_catalog(counting)
    assert (report.added, report.runs) == (10, 200 + MATCHING + 10)
    assert [verb for verb, key in counting.log if key.startswith("manifests/")] == [
        "list",
        *["get_range"] * 10,
    ]


def test_nothing_new_writes_nothing(store: Store) -> None:
    counting = filled(store, 30)
    compact_catalog(counting)
    assert set(counting.calls) == {"list", "get_range"}


def test_many_compactions_leave_few_parts(store: Store) -> None:
    """The number of parts grows with the logarithm of the runs, and rows are seldom rewritten."""
    written = 0
    for number in range(64):
        write_runs(store, [make_run(number)])
        counting = CountingStore(store)
        report = compact_catalog(counting)
        assert report.runs == number + 1
        assert report.parts <= 7
        written += sum(1 for verb, key in counting.log if verb == "create" and "/parts/" in key)
    assert written == 64


@pytest.mark.parametrize(
    ("rows", "added", "merged"),
    [
        ((), 5, 0),
        ((10,), 5, 0),
        ((9,), 5, 1),
        ((40, 20, 10), 5, 0),
        ((100, 20, 9), 5, 2),
        ((4, 2, 1), 1, 3),
    ],
)
def test_merging(rows: tuple[int, ...], added: int, merged: int) -> None:
    assert merged_count(rows, added) == merged
