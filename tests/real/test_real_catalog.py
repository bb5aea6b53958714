"""The catalogue of runs on a real server: writers, revisions and compactions at the same time."""

from __future__ import annotations

from functools import partial
from typing import Any

from mltrack_tasks.catalog import current_manifests
from mltrack_tasks.compaction import CompactionReport, compact_catalog
from mltrack_tasks.query import query_runs
from mltrack_tasks.runs import get_run, list_runs, store_run
from mltrack_tasks.stores import Store
from mltrack_tasks.stores.observed import CountingStore
from tests.synthetic import make_run, write_runs
from tests.together import together

WRITERS, COMPACTORS, RUNS = 4, 3, 12


def write(store: Store, number: int) -> None:
    """Store runs of one's own, and revise one that everybody revises."""
    for value in range(RUNS):
        store_run(store, f"r{number}-{value}", metrics={"m": value}, storage_mode="flat")
        store_run(
            store, "shared", metrics={"m": number * RUNS + value}, storage_mode="flat", if_exists="revise"
        )


def act(store: Store, number: int) -> Any:
    if number < WRITERS:
        return write(store, number)
    return [compact_catalog(store, rebuild=number == WRITERS and turn == 1) for turn in range(3)]


def test_everything_at_once(store: Store) -> None:
    answers = together(WRITERS + COMPACTORS, partial(act, store))
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    ids = {f"r{number}-{value}" for number in range(WRITERS) for value in range(RUNS)} | {"shared"}
    for _ in range(2):
        found = current_manifests(store)
        assert {run.run_id for run in found} == ids
        assert len(found) == len(ids)
        assert found == [get_run(store, run.run_id) for run in found]
        report = compact_catalog(store)
        assert isinstance(report, CompactionReport)
        assert report.runs == len(ids)
    assert get_run(store, "shared").revision == WRITERS * RUNS
    assert list(store.list("runs/log/")) == []


def test_a_search_is_four_requests(store: Store) -> None:
    write_runs(store, [make_run(number) for number in range(200)])
    assert compact_catalog(store).added == 200
    counting = CountingStore(store)
    assert len(list_runs(counting, project="churn")) == 50
    assert counting.requests == 4
    found = query_runs(store, "SELECT count(*) AS n FROM runs WHERE project = 'churn' AND metrics.loss < 0.1")
    assert found.frame["n"].tolist() == [47]  # 1 / (1 + number) for every fourth of them
    assert found.requests == 4
