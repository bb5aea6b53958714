"""The guide's story on S3: basic storage, runs, deduplication, the tree in the bucket.

    export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... MLTRACK_TEST_S3_BUCKET=...
    pytest tests/test_s3_integration.py -v

Optional: MLTRACK_TEST_S3_ENDPOINT (a server that is not AWS) and whatever else boto3 understands. All of it
happens under a prefix of its own, which is removed. Without a bucket the tests run on an S3 in this process.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from mltrack_tasks.access import check_access
from mltrack_tasks.content import (
    forget_data,
    list_data,
    retrieve_data,
    retrieve_file,
    store_data,
    store_file,
)
from mltrack_tasks.errors import AccessError, ConflictError, InvalidInputError, MLTrackError
from mltrack_tasks.refs import DataRef
from mltrack_tasks.runs import get_run, store_run
from mltrack_tasks.stores import Store, open_s3
from mltrack_tasks.stores.observed import CountingStore
from mltrack_tasks.stores.s3_settings import Keys, S3Settings
from mltrack_tasks.testing import RawS3
from tests.servers import S3Server
from tests.settings import chosen_settings

FRAME = pd.DataFrame({"a": [1, 2, 3], "b": [4, 5, 6]})


@pytest.fixture
def settings(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Settings:
    """A fresh prefix of the bucket that the environment names, or of one in this process."""
    return chosen_settings(s3_server, monkeypatch)


@pytest.fixture
def store(settings: S3Settings) -> Iterator[Store]:
    """A store under that prefix, which is removed."""
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


def attempt(call: Callable[[], DataRef]) -> DataRef | MLTrackError:
    """Give what the call gives, or the error: what a server refuses differs from server to server."""
    try:
        return call()
    except (AccessError, InvalidInputError) as refusal:
        return refusal


def test_encrypting_sensitive_data(store: Store, settings: S3Settings) -> None:
    """The guide's ``s3_extra_args``: every object is written so, or the server's refusal is passed on."""
    encrypted = open_s3(settings.with_extra_args({"ServerSideEncryption": "AES256"}))
    ref = attempt(lambda: store_data(encrypted, FRAME))
    if isinstance(ref, MLTrackError):  # MinIO without a key server, Ceph without TLS
        assert settings.endpoint_url, f"AWS encrypts: {ref}"
        assert list(store.list("")) == []
        return
    client = store.inner.inner.client  # type: ignore[attr-defined]
    for key in (ref.storage_path, "format.json"):
        head = client.head_object(Bucket=settings.bucket, Key=f"{settings.prefix}/{key}")
        assert head["ServerSideEncryption"] == "AES256"
    pd.testing.assert_frame_equal(retrieve_data(store, ref), FRAME)


def test_arguments_that_would_be_ignored_are_refused(settings: S3Settings) -> None:
    with pytest.raises(InvalidInputError, match=r"ACL, which this store does not set.*ServerSideEncryption"):
        settings.with_extra_args({"ACL": "public-read"})
    with pytest.raises(InvalidInputError, match="choose one of AES256"):
        settings.with_extra_args({"ServerSideEncryption": "rot13"})


def test_troubleshooting_a_bucket_that_is_not_there(settings: S3Settings) -> None:
    nowhere = open_s3(replace(settings, bucket="mltrack-no-such-bucket-7c1f"))
    says = r"(?s)mltrack-no-such-bucket-7c1f.*Check the bucket's name, region"
    with pytest.raises(AccessError, match=says):
        store_data(nowhere, FRAME)
    with pytest.raises(AccessError, match=says):
        list_data(nowhere)
    with pytest.raises(AccessError, match=says):
        get_run(nowhere, "exp_20240115_001")
    assert not check_access(nowhere).ok


def test_troubleshooting_the_region(store: Store, settings: S3Settings) -> None:
    """A server without regions takes any; else the report says which one to set."""
    elsewhere = open_s3(replace(settings, region="ap-southeast-2"))
    report = check_access(elsewhere, write=False)
    if report.ok:
        assert store_data(elsewhere, FRAME).created
    else:
        assert any("Set region_name=" in check.fix for check in report.checks), report.rows()
    assert check_access(store).ok


def test_troubleshooting_access_denied(store: Store, settings: S3Settings) -> None:
    """A server that checks nobody lets everyone in; else the error says what to check."""
    stranger = open_s3(replace(settings, keys=Keys("AKIAUNKNOWNUNKNOWN00", "wrong")))
    ref = attempt(lambda: store_data(stranger, FRAME))
    if isinstance(ref, MLTrackError):
        assert re.search(f"(?s)s3:.* on s3://{settings.bucket}/.*Check the access key", str(ref)), ref
    else:
        pd.testing.assert_frame_equal(retrieve_data(store, ref), FRAME)
