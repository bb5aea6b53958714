"""The guide's story on S3: basic storage, runs, deduplication, the tree in the bucket.

    export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... MLTRACK_TEST_S3_BUCKET=...
    pytest tests/test_s3_integration.py -v

Optional: MLTRACK_TEST_S3_ENDPOINT (a server that is not AWS) and whatever else boto3 understands. All of it
happens under a prefix of its own, which is removed. Without a bucket the tests run on an S3 in this process.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from mltrack_tasks.content import (
    forget_data,
    list_data,
    retrieve_data,
    retrieve_file,
    store_data,
    store_file,
)
from mltrack_tasks.errors import ConflictError
from mltrack_tasks.runs import get_run, store_run
from mltrack_tasks.stores import Store, open_s3
from mltrack_tasks.stores.observed import CountingStore
from mltrack_tasks.testing import RawS3
from tests.servers import S3Server
from tests.settings import chosen_settings

FRAME = pd.DataFrame({"a": [1, 2, 3], "b": [4, 5, 6]})


@pytest.fixture
def store(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store under a fresh prefix of the bucket that the environment names, or of one in this process."""
    settings = chosen_settings(s3_server, monkeypatch)
    store = open_s3(settings)
    yield store
    client = store.inner.inner.client  # type: ignore[attr-defined]
    RawS3(client, settings.bucket, settings.prefix).clear()


def test_basic_data_storage(store: Store) -> None:
    metadata = {"experiment": "baseline", "date": "2024-01-15"}
    ref = store_data(store, FRAME, "experiment_results", metadata=metadata)
    assert re.fullmatch("[0-9a-f]{64}", ref.hash)
    assert ref.created
    pd.testing.assert_frame_equal(retrieve_data(store, ref), FRAME)
    [item] = list_data(store, "experiment_results")
    assert (item.ref, item.ref.metadata) == (ref, metadata)
    assert [found.name for found in forget_data(store, "experiment_results")] == ["experiment_results"]


def test_storing_an_ml_run(store: Store) -> None:
    arguments = {
        "run_type": "experiment",
        "storage_mode": "by_project",
        "project": "customer_churn",
        "data": {
            "train_data": FRAME,
            "test_data": FRAME.iloc[:1],
            "model_params": {"n_estimators": 100, "max_depth": 10},
            "metrics": {"accuracy": 0.89, "f1": 0.87},
        },
        "tags": {"author": "data-science-team", "version": "1.0"},
    }
    run = store_run(store, "exp_20240115_001", **arguments)
    assert get_run(store, "exp_20240115_001") == run
    pd.testing.assert_frame_equal(retrieve_data(store, run.data_refs["train_data"]), FRAME)
    assert retrieve_data(store, run.data_refs["metrics"]) == {"accuracy": 0.89, "f1": 0.87}
    assert store_run(store, "exp_20240115_001", **arguments).created is False
    with pytest.raises(ConflictError):
        store_run(store, "exp_20240115_001", storage_mode="flat")


def test_content_deduplication(store: Store) -> None:
    data = pd.DataFrame({"x": range(1000), "y": range(1000)})
    first = store_data(store, data, "dataset_v1")
    counting = CountingStore(store)
    second = store_data(counting, data, "dataset_v2")
    assert first.hash == second.hash
    assert (first.created, second.created) == (True, False)
    assert [verb for verb, key in counting.log if key == first.storage_path][-1] == "head"
    assert [stat.key for stat in store.list("data/")] == [
        first.storage_path,
        f"{first.storage_path.rsplit('/', 1)[0]}/metadata.json",
    ]


def test_the_tree_in_the_bucket(store: Store) -> None:
    ref = store_data(store, FRAME, "frame")
    store_run(
        store,
        "exp_20240115_001",
        {"frame": ref},
        storage_mode=["by_project", "by_type"],
        project="customer_churn",
    )
    keys = [stat.key for stat in store.list("")]
    assert f"data/{ref.hash[:2]}/{ref.hash}/data.parquet" in keys
    assert f"data/{ref.hash[:2]}/{ref.hash}/metadata.json" in keys
    assert "manifests/exp_20240115_001.json" in keys
    assert "runs/by_project/customer_churn/exp_20240115_001" in keys
    assert "runs/by_type/experiment/exp_20240115_001" in keys
    body = store.get(f"data/{ref.hash[:2]}/{ref.hash}/data.parquet")
    assert hashlib.sha256(body).hexdigest() == ref.hash


def test_files_of_any_kind(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "model.pkl"
    source.write_bytes(bytes(range(256)) * 1_000)
    ref = store_file(store, source)
    out = retrieve_file(store, str(ref), tmp_path / "restored" / "model.pkl")
    assert out.read_bytes() == source.read_bytes()
