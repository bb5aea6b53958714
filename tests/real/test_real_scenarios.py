"""What users do, on a real server, looked at from behind the library's back."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mltrack_tasks import events
from mltrack_tasks.content import (
    forget_data,
    list_data,
    retrieve_data,
    retrieve_file,
    store_data,
    store_file,
)
from mltrack_tasks.digest import composite_checksum
from mltrack_tasks.errors import ConflictError, IntegrityError, NotFoundError
from mltrack_tasks.events import Event
from mltrack_tasks.refs import DataRef
from mltrack_tasks.runs import get_run, store_run
from mltrack_tasks.stores import Store
from mltrack_tasks.stores.s3_settings import S3Settings
from mltrack_tasks.testing import RawS3
from tests.floor3 import invariants
from tests.real.expectations import Expected
from tests.together import together

MiB = 1024 * 1024
VALUES: dict[str, Any] = {
    "frame": pd.DataFrame(
        {
            "a": [1, 2, 3],
            "b": ["x", None, "ü"],
            "t": pd.to_datetime(["2024-01-15", None, "2024-02-29"], utc=True),
        }
    ),
    "array": np.arange(24, dtype=">f4").reshape(2, 3, 4),
    "json": {"n_estimators": 100, "nan": float("nan"), "nested": [1, 1.0, True, None, {"$x": "ü"}]},
    "bytes": bytes(range(256)) * 100,
    "empty": b"",
}


def same(left: Any, right: Any) -> bool:
    if isinstance(left, pd.DataFrame):
        pd.testing.assert_frame_equal(left, right, check_exact=True)
        return True
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    return type(left) is type(right) and repr(left) == repr(right)


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 MiB and a byte: six parts, the last of them small."""
    path = tmp_path_factory.mktemp("large") / "large.bin"
    path.write_bytes(random.Random(80).randbytes(80 * MiB + 1))
    return path


@pytest.mark.parametrize("kind", VALUES)
def test_values_come_back_and_are_named_by_their_bytes(store: Store, raw: RawS3, kind: str) -> None:
    ref = store_data(store, VALUES[kind], f"{kind} 1/ü", metadata={"kind": kind})
    assert ref.created
    assert same(retrieve_data(store, ref), VALUES[kind])
    assert same(retrieve_data(store, str(ref)), VALUES[kind])
    body = raw.get(ref.storage_path)
    assert body is not None
    assert hashlib.sha256(body).hexdigest() == ref.hash
    assert len(body) == ref.size_bytes
    [named] = list_data(store)
    assert (named.name, named.ref, named.ref.metadata) == (f"{kind} 1/ü", named.ref, {"kind": kind})
    invariants.check_finished(store)


def test_equal_data_is_stored_once(store: Store, raw: RawS3) -> None:
    first = store_data(store, VALUES["frame"], "dataset_v1")
    again = store_data(store, VALUES["frame"].copy(), "dataset_v2")
    assert (first.created, again.created) == (True, False)
    assert first == again
    assert len([key for key in raw.list() if key.startswith("data/") and "/data." in key]) == 1
    assert [named.name for named in list_data(store)] == ["dataset_v1", "dataset_v2"]
    forget_data(store, "dataset_v1")
    assert [named.name for named in list_data(store)] == ["dataset_v2"]
    assert same(retrieve_data(store, first), VALUES["frame"])


def test_a_small_file(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(b"a\nb\n")
    ref = store_file(store, file)
    assert ref.format == "bin"
    assert retrieve_file(store, ref, tmp_path / "back").read_bytes() == b"a\nb\n"
    assert store_file(store, file).created is False


def test_a_large_file_in_parts(
    store: Store,
    raw: RawS3,
    client: Any,
    settings: S3Settings,
    expected: Expected,
    large: Path,
    tmp_path: Path,
) -> None:
    body = large.read_bytes()
    ref = store_file(store, large)
    assert ref.created
    assert ref.hash == hashlib.sha256(body).hexdigest()
    assert store_file(store, large, "again").created is False
    assert hashlib.sha256(retrieve_file(store, ref, tmp_path / "back").read_bytes()).hexdigest() == ref.hash
    head = client.head_object(
        Bucket=settings.bucket, Key=f"{settings.prefix}/{ref.storage_path}", ChecksumMode="ENABLED"
    )
    assert head["ContentLength"] == 80 * MiB + 1
    assert head["ETag"].strip('"').endswith("-6")
    parts = [body[start : start + 16 * MiB] for start in range(0, len(body), 16 * MiB)]
    composite = composite_checksum(hashlib.sha256(part).digest() for part in parts)
    stat = store.head(ref.storage_path, checksum=True)
    assert stat is not None
    assert stat.composite == (composite if expected.attests_parts else None)
    assert not raw.open_uploads()
    invariants.check_finished(store)


@pytest.mark.parametrize("damage", [b"", b"y" * 5_000, b"x" * 4_999 + b"y"], ids=["empty", "all", "one byte"])
def test_a_damaged_blob_is_found_and_healed(store: Store, raw: RawS3, damage: bytes) -> None:
    data = b"x" * 5_000
    ref = store_data(store, data)
    raw.put(ref.storage_path, damage)
    with pytest.raises(IntegrityError, match="damaged"):
        retrieve_data(store, ref)
    seen: list[Event] = []
    again = store_data(store, data, observe=seen.append)
    assert again == ref
    assert [event.name for event in seen if event.subject == ref.storage_path] == [events.BLOB_HEALED]
    assert retrieve_data(store, ref) == raw.get(ref.storage_path) == data
    invariants.check_finished(store)


def test_a_damaged_large_blob_is_found_and_healed(
    store: Store, raw: RawS3, large: Path, tmp_path: Path
) -> None:
    ref = store_file(store, large)
    raw.put(ref.storage_path, b"short")
    with pytest.raises(IntegrityError, match="damaged"):
        retrieve_file(store, ref, tmp_path / "back")
    assert not list(tmp_path.iterdir())
    seen: list[Event] = []
    store_file(store, large, observe=seen.append)
    assert [event.name for event in seen if event.subject == ref.storage_path] == [events.BLOB_HEALED]
    assert retrieve_file(store, ref, tmp_path / "back").stat().st_size == 80 * MiB + 1
    assert not raw.open_uploads()


def test_a_lost_blob_is_missed_and_comes_back(store: Store, raw: RawS3) -> None:
    ref = store_data(store, b"data")
    raw.delete(ref.storage_path)
    with pytest.raises(NotFoundError, match=ref.hash):
        retrieve_data(store, ref)
    assert store_data(store, b"data").created
    assert retrieve_data(store, ref) == b"data"


def test_equal_data_from_32_threads_is_one_blob(store: Store) -> None:
    refs = together(32, lambda number: store_data(store, {"same": "for all"}, "n"))
    assert all(isinstance(ref, DataRef) for ref in refs), refs
    assert len(set(refs)) == 1
    assert sum(ref.created for ref in refs) == 1
    assert retrieve_data(store, refs[0]) == {"same": "for all"}
    assert len(invariants.blobs(store)) == 1
    assert len(list_data(store)) == 1
    invariants.check_finished(store)


def test_a_run_comes_back(store: Store, raw: RawS3) -> None:
    stored = store_run(
        store,
        "exp_20240115_001",
        {"train": VALUES["frame"], "params": VALUES["json"]},
        storage_mode=["by_project", "by_date", "by_type", "by_model"],
        project="customer churn",
        model="m/1",
        inputs={"raw": VALUES["bytes"]},
        metrics={"auc": 0.89},
    )
    assert get_run(store, "exp_20240115_001") == stored
    assert same(retrieve_data(store, stored.data["train"]), VALUES["frame"])
    assert "runs/by_project/customer%20churn/exp_20240115_001" in raw.list()
    assert "runs/by_model/m%2F1/exp_20240115_001" in raw.list()
    invariants.check_finished(store)


def test_one_run_id_with_different_contents_has_one_winner(store: Store) -> None:
    results = together(
        16, lambda number: store_run(store, "r", {"n": number}, storage_mode="by_type", tags={"n": number})
    )
    [winner] = [result for result in results if not isinstance(result, Exception)]
    assert get_run(store, "r") == winner
    for number, result in enumerate(results):
        if result is not winner:
            assert isinstance(result, ConflictError), result
            assert result.existing == winner.to_content()
            assert result.offered["tags"] == {"n": number}
    invariants.check_finished(store)
