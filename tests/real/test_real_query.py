"""SQL over stored data on a real server: the bytes that a selective query reads, counted at the store."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mltrack_tasks.content import retrieve_data, store_data
from mltrack_tasks.errors import ArchivedError, IntegrityError, NotFoundError
from mltrack_tasks.query import query_data
from mltrack_tasks.refs import DataRef
from mltrack_tasks.stores import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.observed import CountingStore
from mltrack_tasks.stores.retry import RetryingStore
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_settings import S3Settings
from mltrack_tasks.testing import RawS3
from tests.real.expectations import Expected

ROWS, COLUMNS = 1_400_000, 20
START = pd.Timestamp("2024-01-10")
STOP = START + pd.Timedelta(seconds=ROWS // 100)
SELECTIVE = f"SELECT t, c07 FROM s3object WHERE t >= '{START}' AND t < '{STOP}'"


def sorted_frame(rows: int) -> pd.DataFrame:
    """20 columns, sorted by time, of numbers that hardly compress."""
    numbers = np.random.default_rng(7).random((rows, COLUMNS - 1))
    frame = pd.DataFrame(numbers, columns=[f"c{number:02}" for number in range(1, COLUMNS)])
    frame.insert(0, "t", pd.date_range("2024-01-01", periods=rows, freq="s", unit="us"))
    return frame


@pytest.fixture(scope="module")
def large(fresh: Any) -> tuple[Store, DataRef, pd.DataFrame]:
    """A store with a sorted table of 200 MB, and what the selective query should find in it."""
    store = GuardedStore(RetryingStore(S3Store(fresh())))
    frame = sorted_frame(ROWS)
    ref = store_data(store, frame, "sorted")
    assert ref.size_bytes > 200e6
    rows = (frame["t"] >= START) & (frame["t"] < STOP)
    return store, ref, frame.loc[rows, ["t", "c07"]].reset_index(drop=True)


def test_a_selective_query_reads_under_5_percent(large: tuple[Store, DataRef, pd.DataFrame]) -> None:
    store, ref, expected = large
    counting = CountingStore(store)
    result = query_data(counting, ref, SELECTIVE)
    assert len(result.frame) == ROWS // 100
    pd.testing.assert_frame_equal(result.frame, expected)
    assert (result.bytes_read, result.requests) == (counting.received.total(), counting.requests)
    assert set(counting.calls) == {"get_range"}
    assert result.bytes_stored == ref.size_bytes
    assert result.bytes_read < 0.05 * ref.size_bytes
    assert result.requests <= 5  # the end of the file, and 2 columns in at most 2 row groups
    print(result)


def test_all_rows_of_one_column(large: tuple[Store, DataRef, pd.DataFrame]) -> None:
    store, ref, _ = large
    result = query_data(store, ref, "SELECT count(*) AS n, min(t) AS first, max(t) AS last FROM s3object")
    assert result.frame.loc[0, "n"] == ROWS
    assert result.frame.loc[0, "last"] - result.frame.loc[0, "first"] == pd.Timedelta(seconds=ROWS - 1)
    assert result.bytes_read < 0.08 * ref.size_bytes


def test_the_whole_table_comes_in_order(large: tuple[Store, DataRef, pd.DataFrame]) -> None:
    store, ref, _ = large
    result = query_data(store, ref, "SELECT * FROM s3object")
    pd.testing.assert_frame_equal(result.frame, retrieve_data(store, ref))
    assert result.bytes_read >= 0.999 * ref.size_bytes
    few = query_data(store, ref, "SELECT * FROM s3object LIMIT 10")
    pd.testing.assert_frame_equal(few.frame, result.frame[:10])
    assert few.bytes_read < 0.15 * ref.size_bytes


RUNS = pd.DataFrame({"run": ["a", "b"], "accuracy": [0.89, 0.93]})


def test_the_guides_query(store: Store) -> None:
    ref = store_data(store, RUNS, "runs")
    for given in (ref, str(ref), ref.hash):
        result = query_data(store, given, "SELECT * FROM s3object WHERE accuracy > 0.9", verify=True)
        assert result.frame.values.tolist() == [["b", 0.93]]


def test_what_is_wrong_with_a_blob(
    store: Store, raw: RawS3, client: Any, settings: S3Settings, expected: Expected
) -> None:
    ref = store_data(store, RUNS, "runs")
    body = raw.get(ref.storage_path)
    assert body is not None
    page = body.index(np.float64(0.93).tobytes())
    raw.put(ref.storage_path, body[:page] + bytes([body[page] ^ 1]) + body[page + 1 :])
    for verify in (False, True):
        with pytest.raises(IntegrityError, match=ref.hash):
            query_data(store, ref, "SELECT * FROM s3object", verify=verify)
    raw.delete(ref.storage_path)
    with pytest.raises(NotFoundError, match=ref.hash):
        query_data(store, ref, "SELECT * FROM s3object")
    if expected.has_storage_classes:
        key = f"{settings.prefix}/{ref.storage_path}"
        client.put_object(Bucket=settings.bucket, Key=key, Body=body, StorageClass="GLACIER")
        with pytest.raises(ArchivedError, match=ref.hash):
            query_data(store, ref, "SELECT * FROM s3object")
