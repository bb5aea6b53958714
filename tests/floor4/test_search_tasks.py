"""The tasks that search, and the flow that compacts: called, submitted, mapped; and what they show."""

from __future__ import annotations

from typing import Any

import httpx
import pandas as pd
import pytest
from prefect import flow, unmapped
from prefect.settings import PREFECT_API_URL

from flows.compact_catalog import compact_catalog as compact_flow
from mltrack_tasks import (
    CompactionReport,
    InvalidInputError,
    MLTrackStore,
    capture,
    compact_catalog,
    data_usage_stats,
    find_runs_by_data,
    list_runs,
    query_data,
    query_runs,
    rebuild_views,
    store_data,
    store_run,
    trace_lineage,
)

FRAME = pd.DataFrame({"x": [1, 2, 3], "accuracy": [0.8, 0.95, 0.99]})


def shown(key: str) -> str:
    """The text of the newest artifact of a key."""
    asked = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC", "limit": 1}
    answer = httpx.post(f"{PREFECT_API_URL.value()}/artifacts/filter", json=asked).raise_for_status().json()
    return str(answer[0]["data"])


def test_a_flow_that_searches(block: MLTrackStore) -> None:
    @flow
    def search() -> dict[str, Any]:
        ref = store_data(FRAME, "results", store=block)
        store_run("make", outputs={"results": ref}, project="p", metrics={"accuracy": 0.95}, store=block)
        store_run("use", inputs={"results": ref}, project="p", params={"depth": 3}, store=block)
        queries = ["SELECT count(*) AS n FROM s3object", "SELECT max(accuracy) AS n FROM s3object"]
        mapped = query_data.map(unmapped(ref), queries, store=unmapped(block))
        submitted = query_runs.submit("SELECT run_id FROM runs WHERE params.depth = 3", store=block)
        return {
            "compacted": compact_catalog(store=block).runs,
            "mapped": [found.frame["n"][0] for found in mapped.result()],
            "submitted": submitted.result().frame["run_id"].tolist(),
            "listed": [run.run_id for run in list_runs(metrics={"accuracy": "> 0.9"}, store=block)],
            "by data": find_runs_by_data.submit(ref, store=block).result(),
            "views": rebuild_views(store=block).created,
            "descent": [edge.kind for edge in trace_lineage(run_id="use", store=block).edges],
            "stored": data_usage_stats(store=block).stored.objects,
        }

    assert search() == {
        "compacted": 2,
        "mapped": [3, 0.99],
        "submitted": ["use"],
        "listed": ["make"],
        "by data": ["make", "use"],
        "views": 0,
        "descent": ["input", "output"],
        "stored": 1,
    }
    assert "```mermaid" in shown("mltrack-lineage")
    assert '"project": "p"' in shown("mltrack-usage")
    assert "data:image/svg+xml;base64," in shown("mltrack-usage-chart")
    assert "2 runs" in shown("mltrack-catalog")


def test_the_flow_that_compacts(block: MLTrackStore) -> None:
    store_run("r", project="p", store=block)
    block.save("compacted", overwrite=True)
    first, again = compact_flow(store="compacted"), compact_flow(store="compacted")
    assert isinstance(first, CompactionReport)
    assert (first.snapshot, first.runs, first.added, first.log_removed) == (1, 1, 1, 1)
    assert (again.snapshot, again.runs, again.added, again.log_removed) == (1, 1, 0, 0)
    assert compact_flow(rebuild=True, store="compacted").snapshot == 2
    assert compact_flow.name == "mltrack-compact-catalog"
    parameters = compact_flow.parameters.model_dump()["properties"]
    assert list(parameters) == ["rebuild", "store"]
    assert parameters["rebuild"]["type"] == "boolean"


def test_what_means_nothing_is_refused(block: MLTrackStore) -> None:
    for call in (
        lambda: query_runs.fn("SELECT nothing FROM runs", store=block),
        lambda: query_runs.fn("SELEC 1", store=block),
        lambda: list_runs.fn(metrics={"accuracy": "about 0.9"}, store=block),
        lambda: trace_lineage.fn(store=block),
    ):
        with pytest.raises(InvalidInputError):
            call()


def test_a_captured_flow_is_not_stored_over(block: MLTrackStore) -> None:
    """Both would take the flow run's id, and the end of the capture would hide the run that was stored."""

    @flow
    @capture(project="p", store=block)
    def train() -> list[str]:
        with pytest.raises(InvalidInputError, match="captured"):
            store_run.fn(metrics={"accuracy": 0.97}, storage_mode="flat", store=block)
        return [store_run.fn("own", metrics={"accuracy": 0.97}, storage_mode="flat", store=block).run_id]

    assert train() == ["own"]
    assert [run.run_id for run in list_runs.fn(metrics={"accuracy": "> 0.9"}, store=block)] == ["own"]
