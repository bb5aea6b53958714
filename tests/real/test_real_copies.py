"""Copies of blobs on a real server: made and proven without moving them through this process."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mltrack_tasks.content import store_data, store_file
from mltrack_tasks.copies import copy_blob
from mltrack_tasks.digest import base64_from_raw
from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.layout import blob_parts_key
from mltrack_tasks.recordstore import read_record
from mltrack_tasks.refs import DataRef
from mltrack_tasks.stores import Store
from mltrack_tasks.stores.observed import CountingStore
from mltrack_tasks.stores.s3_settings import S3Settings
from mltrack_tasks.testing import RawS3
from tests.real.expectations import Expected

MiB = 1024 * 1024
SMALL = random.Random(1).randbytes(1_024)
TARGET = "models/production/Größe 100%/1/files/a+b #1.bin"


@pytest.fixture(scope="session")
def large_body() -> bytes:
    """80 MiB and a byte: six parts."""
    return random.Random(80).randbytes(80 * MiB + 1)


@pytest.fixture
def large(store: Store, large_body: bytes, tmp_path: Any) -> DataRef:
    file = tmp_path / "large.bin"
    file.write_bytes(large_body)
    return store_file(store, file)


def copy(store: Store, ref: DataRef) -> int:
    return copy_blob(store, ref.hash, ref.format, ref.size_bytes, TARGET)


def head(client: Any, settings: S3Settings, key: str) -> dict[str, Any]:
    """What the server says, asked past the library."""
    answer: dict[str, Any] = client.head_object(
        Bucket=settings.bucket, Key=f"{settings.prefix}/{key}", ChecksumMode="ENABLED"
    )
    return answer


def test_a_small_copy_is_proven_by_the_server(
    store: Store, raw: RawS3, client: Any, settings: S3Settings, expected: Expected
) -> None:
    ref = store_data(store, SMALL)
    raw.put(TARGET, b"before")
    counting = CountingStore(store)
    assert copy(counting, ref) == 0
    assert counting.received.total() == 0
    assert raw.get(TARGET) == SMALL
    source, target = head(client, settings, ref.storage_path), head(client, settings, TARGET)
    assert target["ETag"] == source["ETag"]
    told = target.get("ChecksumSHA256")
    assert told == (base64_from_raw(bytes.fromhex(ref.hash)) if expected.proves_copies == "sha256" else None)


def test_a_large_copy_is_proven_by_the_server(
    store: Store,
    raw: RawS3,
    client: Any,
    settings: S3Settings,
    expected: Expected,
    large: DataRef,
    large_body: bytes,
) -> None:
    raw.put(TARGET, b"before")
    counting = CountingStore(store)
    assert copy(counting, large) == 0
    assert {key for verb, key in counting.log if verb.startswith("get")} <= {blob_parts_key(large.hash)}
    assert counting.sent.total() == 0
    assert raw.get(TARGET) == large_body
    assert not raw.open_uploads()
    source, target = head(client, settings, large.storage_path), head(client, settings, TARGET)
    told = target.get("ChecksumSHA256")
    if expected.proves_large_copies == "composite":
        assert told == read_record(store, blob_parts_key(large.hash)).content["composite"]
    else:
        assert told is None
        assert target["ETag"] == source["ETag"]
        assert target["ETag"].strip('"').endswith("-6")


def test_a_damaged_blob_is_not_taken_for_good(
    store: Store, raw: RawS3, expected: Expected, large: DataRef
) -> None:
    """By ETags alone, a blob that was exchanged for another of its size is copied as it is."""
    ref = store_data(store, SMALL)
    raw.put(ref.storage_path, SMALL[::-1])
    if expected.proves_copies == "sha256":
        with pytest.raises(IntegrityError, match=f"{ref.hash}.*is damaged"):
            copy(store, ref)
    else:
        assert copy(store, ref) == 0
        assert raw.get(TARGET) == SMALL[::-1]
    for damage in (b"short", bytes(large.size_bytes)):
        raw.put(large.storage_path, damage)
        with pytest.raises(IntegrityError, match=f"{large.hash}.*is damaged"):
            copy(store, large)
    assert not raw.open_uploads()


def test_copies_race(store: Store, raw: RawS3, large: DataRef, large_body: bytes) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda number: copy(store, large), range(4))) == [0] * 4
    assert raw.get(TARGET) == large_body
    assert not raw.open_uploads()
