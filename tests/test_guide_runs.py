"""What the guide promises of runs, of how they are organised, and of queries: one test for each promise.

Runs on the bucket that tests/test_s3_integration.py uses, chosen in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest

from mltrack_tasks.compaction import compact_catalog
from mltrack_tasks.content import retrieve_data, store_data
from mltrack_tasks.query import query_data, query_runs
from mltrack_tasks.records import RunManifest
from mltrack_tasks.runs import find_runs_by_data, get_run, list_runs, store_run
from mltrack_tasks.stores import Store, open_s3
from mltrack_tasks.stores.observed import CountingStore
from mltrack_tasks.testing import RawS3
from tests.servers import S3Server
from tests.settings import chosen_settings

TRAIN = pd.DataFrame({"age": [34, 51, 28], "churned": [False, True, False]})
TEST = pd.DataFrame({"age": [45, 39], "churned": [True, False]})
RESULTS = pd.DataFrame({"model": ["a", "b", "c"], "accuracy": [0.85, 0.91, 0.97]})


@pytest.fixture
def store(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A fresh prefix of the bucket that the environment names, or of one in this process."""
    settings = chosen_settings(s3_server, monkeypatch)
    store = open_s3(settings)
    yield store
    client = store.inner.inner.client  # type: ignore[attr-defined]
    RawS3(client, settings.bucket, settings.prefix).clear()


def store_guide_run(store: Store, run_id: str = "exp_20240115_001", **changes: Any) -> RunManifest:
    """Store the run of the guide's section on runs."""
    arguments: dict[str, Any] = {
        "run_type": "experiment",
        "storage_mode": "by_project",
        "project": "customer_churn",
        "data": {
            "train_data": TRAIN,
            "test_data": TEST,
            "model_params": {"n_estimators": 100, "max_depth": 10},
            "metrics": {"accuracy": 0.89, "f1": 0.87},
        },
        "tags": {"author": "data-science-team", "version": "1.0"},
    }
    return store_run(store, run_id, **{**arguments, **changes})


def below(store: Store, folder: str) -> list[str]:
    return [stat.key.removeprefix(folder) for stat in store.list(folder)]


# Storing ML runs


def test_a_complete_run_is_stored_and_comes_back(store: Store) -> None:
    manifest = store_guide_run(store)
    assert get_run(store, "exp_20240115_001") == manifest
    refs = manifest.data_refs
    assert list(refs) == ["train_data", "test_data", "model_params", "metrics"]
    pd.testing.assert_frame_equal(retrieve_data(store, refs["train_data"]), TRAIN)
    pd.testing.assert_frame_equal(retrieve_data(store, refs["test_data"]), TEST)
    assert retrieve_data(store, refs["model_params"]) == {"n_estimators": 100, "max_depth": 10}
    assert retrieve_data(store, refs["metrics"]) == {"accuracy": 0.89, "f1": 0.87}
    assert manifest.tags == {"author": "data-science-team", "version": "1.0"}


def test_its_project_type_and_tags_find_it(store: Store) -> None:
    manifest = store_guide_run(store)
    store_guide_run(store, "exp_20240115_002", project="fraud", tags={"author": "somebody"})
    assert list_runs(store, project="customer_churn") == [manifest]
    assert list_runs(store, run_type="experiment", tags={"author": "data-science-team"}) == [manifest]


def test_its_data_finds_it(store: Store) -> None:
    manifest = store_guide_run(store)
    assert find_runs_by_data(store, manifest.data_refs["train_data"]) == ["exp_20240115_001"]


def test_its_params_and_metrics_are_columns(store: Store) -> None:
    store_guide_run(store)
    found = query_runs(
        store,
        "SELECT run_id, values.model_params.max_depth AS depth, values.metrics.accuracy, tags.author "
        "FROM runs WHERE values.metrics.accuracy > 0.8",
    )
    assert found.frame.to_dict("records") == [
        {"run_id": "exp_20240115_001", "depth": 10, "accuracy": 0.89, "author": "data-science-team"}
    ]


# Flexible organisation


def test_by_project(store: Store) -> None:
    store_guide_run(store, "a", project="churn")
    store_guide_run(store, "b", project="fraud")
    assert below(store, "runs/by_project/") == ["churn/a", "fraud/b"]
    assert [run.run_id for run in list_runs(store, project="fraud")] == ["b"]


def test_by_date(store: Store) -> None:
    for day in (16, 15, 17):
        moment = datetime(2024, 1, day, 23, 30, tzinfo=UTC)
        store_guide_run(store, f"r{day}", storage_mode="by_date", started_at=moment)
    assert below(store, "runs/by_date/") == ["2024-01-15/r15", "2024-01-16/r16", "2024-01-17/r17"]
    assert [run.run_id for run in list_runs(store)] == ["r17", "r16", "r15"]
    assert [run.run_id for run in list_runs(store, since="2024-01-16", until="2024-01-16")] == ["r16"]


def test_by_type(store: Store) -> None:
    for run_type in ("production", "experiment", "evaluation"):
        store_guide_run(store, f"one_{run_type}", storage_mode="by_type", run_type=run_type)
    assert below(store, "runs/by_type/") == [
        "evaluation/one_evaluation",
        "experiment/one_experiment",
        "production/one_production",
    ]
    assert [run.run_id for run in list_runs(store, run_type="production")] == ["one_production"]


def test_by_model_name_and_version(store: Store) -> None:
    for version in ("v1", "v2"):
        store_guide_run(store, f"r-{version}", storage_mode="by_model", model=f"churn-predictor/{version}")
    assert below(store, "runs/by_model/") == ["churn-predictor%2Fv1/r-v1", "churn-predictor%2Fv2/r-v2"]
    assert [run.run_id for run in list_runs(store, model="churn-predictor/v2")] == ["r-v2"]


def test_several_ways_at_once_and_none(store: Store) -> None:
    store_guide_run(store, "both", storage_mode=["by_project", "by_type"])
    store_guide_run(store, "neither", storage_mode="flat")
    assert below(store, "runs/by_project/") == ["customer_churn/both"]
    assert below(store, "runs/by_type/") == ["experiment/both"]
    assert {run.run_id for run in list_runs(store, project="customer_churn")} == {"both", "neither"}


# Query


@pytest.mark.parametrize("form", [lambda ref: ref, str, lambda ref: ref.hash])
def test_the_query_of_the_guide(form: Callable[[Any], Any], store: Store) -> None:
    ref = store_data(store, RESULTS, "results")
    found = query_data(store, form(ref), "SELECT * FROM s3object WHERE accuracy > 0.9")
    assert found.frame.to_dict("records") == [
        {"model": "b", "accuracy": 0.91},
        {"model": "c", "accuracy": 0.97},
    ]


def test_querying_does_not_download(store: Store) -> None:
    frame = pd.DataFrame({f"c{number}": range(number, 300_000 + number) for number in range(12)})
    ref = store_data(store, frame, "wide")
    counting = CountingStore(store)
    found = query_data(counting, ref, "SELECT max(c3) AS top FROM s3object WHERE c3 < 100")
    assert found.frame["top"].tolist() == [99]
    assert found.bytes_stored == ref.size_bytes
    assert found.bytes_read == counting.received.total() < ref.size_bytes / 5


def test_searching_many_runs_is_a_few_requests(store: Store) -> None:
    for number in range(12):
        store_run(store, f"r{number}", project="p", metrics={"accuracy": number / 12})
    compact_catalog(store)
    counting = CountingStore(store)
    assert [run.run_id for run in list_runs(counting, metrics={"accuracy": "> 0.9"})] == ["r11"]
    assert counting.requests == 4
