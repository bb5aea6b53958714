"""SQL over stored data: right answers, few bytes, and errors that say what is wrong."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks import events
from mltrack_tasks.content import store_data, store_file
from mltrack_tasks.errors import ArchivedError, IntegrityError, InvalidInputError, NotFoundError
from mltrack_tasks.events import Event
from mltrack_tasks.query import query_data
from mltrack_tasks.refs import DataRef
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.cache import CachedStore
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.tables import rangefile
from tests.floor3.conftest import Place

RUNS = pd.DataFrame({"run": ["a", "b", "c"], "accuracy": [0.85, 0.91, 0.95], "n": [1, 2, 3]})


def sorted_frame(rows: int, columns: int = 20) -> pd.DataFrame:
    """Times in order beside random numbers: what a selective query is asked of."""
    numbers = np.random.default_rng(rows).random((rows, columns - 1))
    frame = pd.DataFrame(numbers, columns=[f"c{number:02}" for number in range(columns - 1)])
    frame.insert(0, "t", pd.date_range("2024-01-01", periods=rows, freq="s", unit="us"))
    return frame


@pytest.fixture(scope="module")
def kept() -> tuple[Store, DataRef]:
    """A store that keeps one large sorted frame."""
    store = GuardedStore(MemoryStore())
    return store, store_data(store, sorted_frame(400_000, 5), "sorted")


def test_the_guides_query_runs(place: Place) -> None:
    ref = store_data(place.store, RUNS, "runs")
    for given_ref in (ref, str(ref), ref.hash):
        result = query_data(place.store, given_ref, "SELECT * FROM s3object WHERE accuracy > 0.9")
        pd.testing.assert_frame_equal(result.frame, RUNS[1:].reset_index(drop=True))
        assert result.bytes_stored == ref.size_bytes


def test_several_refs_are_joined_by_name(store: Store) -> None:
    labels = store_data(store, pd.DataFrame({"run": ["b", "c"], "label": ["two", "three"]}), "labels")
    runs = store_data(store, RUNS, "runs")
    result = query_data(
        store,
        {"runs": runs, "labels": str(labels)},
        "SELECT label, n FROM runs JOIN labels USING (run) ORDER BY n DESC",
    )
    assert result.frame.values.tolist() == [["three", 3], ["two", 2]]
    assert result.bytes_stored == runs.size_bytes + labels.size_bytes
    twice = query_data(store, {"a": runs, "b": runs}, "SELECT count(*) AS c FROM a, b")
    assert twice.frame["c"].tolist() == [9]
    assert twice.bytes_stored == twice.bytes_read == 2 * runs.size_bytes


def test_the_account_is_exact(kept: tuple[Store, DataRef]) -> None:
    store, ref = kept
    counting = CountingStore(store)
    hour = "t >= TIMESTAMP '2024-01-03' AND t < TIMESTAMP '2024-01-03 01:00'"
    sql = f"SELECT t, c03 FROM s3object WHERE {hour}"
    result = query_data(counting, ref, sql)
    assert len(result.frame) == 3_600
    assert (result.bytes_read, result.requests) == (counting.received.total(), counting.requests)
    assert set(counting.calls) == {"get_range"}
    assert result.bytes_read < 0.2 * ref.size_bytes  # 2 of 5 columns of one of four row groups
    assert result.requests <= 3
    by_text = query_data(store, str(ref), sql)
    assert by_text.bytes_read == result.bytes_read
    assert by_text.requests == result.requests + 1


def test_a_small_table_is_one_request(store: Store) -> None:
    result = query_data(store, store_data(store, RUNS), "SELECT n FROM s3object")
    assert (result.requests, result.bytes_read) == (1, result.bytes_stored)


def test_a_result_prints_what_it_cost_and_no_rows(store: Store) -> None:
    result = query_data(store, store_data(store, RUNS), "SELECT run FROM s3object WHERE n > 1")
    size = f"{result.bytes_stored:,}"
    text = f"2 rows x 1 columns; read {size} of {size} bytes stored (100.0%) in 1 request"
    assert (str(result), repr(result)) == (text, f"<QueryResult {text}>")
    with pytest.raises(AttributeError):
        result.requests = 2  # type: ignore[misc]


def test_a_query_is_an_event(store: Store) -> None:
    seen: list[Event] = []
    ref = store_data(store, RUNS)
    query_data(store, ref, "SELECT n FROM s3object", observe=seen.append)
    assert [(event.name, event.subject) for event in seen] == [(events.DATA_QUERIED, str(ref))]
    assert seen[0].details["rows"] == 3


# what SQL sees of a frame


def ask(store: Store, frame: pd.DataFrame, sql: str) -> pd.DataFrame:
    found: pd.DataFrame = query_data(store, store_data(store, frame), sql).frame
    return found


def test_index_levels_are_columns_under_their_names(store: Store) -> None:
    index = pd.MultiIndex.from_product([["x", "y"], [1, 2]], names=["group", None])
    frame = pd.DataFrame({"v": [1, 2, 3, 4]}, index=index)
    found = ask(store, frame, "SELECT * FROM s3object WHERE \"group\" = 'y'")
    assert list(found.columns) == ["v", "group", "__index_level_1__"]
    assert found.values.tolist() == [[3, "y", 1], [4, "y", 2]]
    assert list(ask(store, pd.DataFrame({"v": [1]}), "SELECT * FROM s3object").columns) == ["v"]


@pytest.mark.parametrize(
    "name", ["a.b", "a b", "ü", 'a"b', "select", "a\nb", "$x", "__index_level_0__", "列"]
)
def test_columns_with_odd_names(store: Store, name: str) -> None:
    frame = pd.DataFrame({name: [1, 2], "other": [3, 4]})
    quoted = '"' + name.replace('"', '""') + '"'
    found = ask(store, frame, f"SELECT {quoted} FROM s3object WHERE {quoted} > 1 AND other = 4")
    assert (list(found.columns), found.iloc[0, 0]) == ([name], 2)


def test_names_that_differ_in_case_only(store: Store) -> None:
    frame = pd.DataFrame({"a": [1, 2], "A": ["x", "y"]})
    found = ask(store, frame, 'SELECT a, "A_1" FROM s3object WHERE "A_1" = \'y\'')
    assert found.values.tolist() == [[2, "y"]]


def test_labels_that_are_no_text(store: Store) -> None:
    frame = pd.DataFrame([[1, 2, 3]], columns=[0, "0", 1.5])
    found = ask(store, frame, "SELECT * FROM s3object")
    assert len(set(found.columns)) == 3
    assert {"0", "1.5"} < set(found.columns)


BROAD: dict[str, Any] = {
    "flag": [True, False, True],
    "i8": np.array([1, 2, 3], "i1"),
    "u64": np.array([1, 2, 2**64 - 1], "u8"),
    "f16": np.array([1.5, 2.5, 3.5], "f2"),
    "f32": np.array([1.5, np.nan, 3.5], "f4"),
    "big_endian": np.array([1, 2, 3], ">i4"),
    "nullable": pd.array([1, None, 2**62 + 1], "Int64"),
    "maybe": pd.array([True, None, False], "boolean"),
    "text": ["a", None, "ü"],
    "naive": pd.to_datetime(["2024-01-01 00:00", None, "2024-06-01 12:00"]),
    "nano": np.array(["2024-01-01T00:00:00.000000001"] * 3, "M8[ns]"),
    "zoned": pd.to_datetime(["2024-01-01", None, "2024-07-01"]).tz_localize("Europe/Berlin"),
    "took": pd.to_timedelta([1, None, 36], unit="h"),
    "period": pd.period_range("1970-01", periods=3, freq="M"),
    "category": pd.Categorical(["x", "y", None], categories=["y", "x", "z"], ordered=True),
    "interval": pd.interval_range(0, 3),
    "day": pd.Series([dt.date(2024, 1, 1), None, dt.date(2024, 1, 3)], dtype=object),
    "clock": pd.Series([dt.time(1, 2), None, dt.time(3)], dtype=object),
    "price": pd.Series([Decimal("1.5"), None, Decimal("2.5")], dtype=object),
    "mixed_price": pd.Series([Decimal("1.5"), None, Decimal("2.25")], dtype=object),
    "raw": pd.Series([b"a", None, b"\0c"], dtype=object),
    "list": pd.Series([[1, 2], None, []], dtype=object),
    "dict": pd.Series([{"a": 1, "b": "x"}, None, {"a": 2, "b": None}], dtype=object),
    "embedding": pd.Series([np.array([1.0, 2.0])] * 3, dtype=object),
}
SEEN: list[tuple[str, str, list[Any]]] = [
    ("flag", "n", [0, 2]),
    ("i8 > 1", "i8", [2, 3]),
    ("u64 > 9223372036854775807", "u64", [2**64 - 1]),
    ("f16 > 2", "f16", [2.5, 3.5]),
    ("f32 IS NULL", "n", [1]),
    ("f32 > 1.5", "f32", [3.5]),
    ("big_endian = 2", "big_endian", [2]),
    (f"nullable = {2**62 + 1}", "nullable", [2**62 + 1]),
    ("nullable IS NULL", "n", [1]),
    ("maybe IS NOT TRUE", "n", [1, 2]),
    ("text = 'ü'", "text", ["ü"]),
    ("text IN ('a', 'b')", "text", ["a"]),
    ("text LIKE '%'", "n", [0, 2]),
    ("naive > TIMESTAMP '2024-06-01'", "naive", [pd.Timestamp("2024-06-01 12:00")]),
    ("nano > TIMESTAMP '2024-01-01'", "n", [0, 1, 2]),
    ("zoned = TIMESTAMPTZ '2024-06-30 22:00:00+00'", "zoned", [pd.Timestamp("2024-06-30 22:00", tz="UTC")]),
    ("zoned < TIMESTAMPTZ '2024-01-01 00:00:00+00'", "n", [0]),
    ("took > INTERVAL 1 DAY", "took", [pd.Timedelta("36h")]),
    ("period = 1", "period", [1]),
    ("category = 'x'", "category", ["x"]),
    ('"interval"."right" = 2', "n", [1]),
    ("day >= DATE '2024-01-02'", "day", [dt.date(2024, 1, 3)]),
    ("clock < TIME '02:00'", "clock", [dt.time(1, 2)]),
    ("price = 1.5", "price", [Decimal("1.5")]),
    ("price > 2", "price", [Decimal("2.5")]),
    ("mixed_price::DECIMAL(10, 2) > 2", "mixed_price", ["2.25"]),
    ("raw = '\\x00c'::BLOB", "raw", [b"\0c"]),
    ("len(list) = 2", "list[2]", [2]),
    ("dict.a = 2", "dict.a", [2]),
    ("dict.b = 'x'", "n", [0]),
    ("list_sum(embedding) = 3", "n", [0, 1, 2]),
]


@pytest.fixture(scope="module")
def broad() -> tuple[Store, DataRef]:
    store = GuardedStore(MemoryStore())
    return store, store_data(store, pd.DataFrame({**BROAD, "n": [0, 1, 2]}), "broad")


@pytest.mark.parametrize(("where", "what", "expected"), SEEN, ids=[row[0] for row in SEEN])
def test_every_kind_of_column_can_be_asked(
    broad: tuple[Store, DataRef], where: str, what: str, expected: list[Any]
) -> None:
    store, ref = broad
    found = query_data(store, ref, f"SELECT {what} AS x FROM s3object WHERE {where} ORDER BY n").frame
    assert found["x"].tolist() == expected


def test_a_broad_frame_comes_back_whole(broad: tuple[Store, DataRef]) -> None:
    store, ref = broad
    found = query_data(store, ref, "SELECT * FROM s3object").frame
    assert list(found.columns) == [*BROAD, "n"]
    for name in (
        "flag",
        "i8",
        "u64",
        "f32",
        "nullable",
        "maybe",
        "naive",
        "took",
        "day",
        "clock",
        "price",
        "raw",
    ):
        expected = pd.Series(BROAD[name])
        assert found[name].isna().tolist() == expected.isna().tolist(), name
        assert found[name].dropna().tolist() == expected.dropna().tolist(), name


# against pandas


CELLS: dict[str, Any] = {
    "i": st.integers(-5, 5),
    "f": st.one_of(st.none(), st.floats(-5, 5, width=16)),
    "t": st.one_of(st.none(), st.sampled_from(["", "a", "b", "ab", "ü"])),
    "d": st.one_of(st.none(), st.datetimes(dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 3))),
}
CONSTANTS: dict[str, Any] = {
    "i": st.integers(-6, 6),
    "f": st.floats(-6, 6, width=16),
    "t": st.sampled_from(["", "a", "ab", "z"]),
    "d": st.datetimes(dt.datetime(2023, 12, 31), dt.datetime(2024, 1, 4)),
}
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": lambda a, b: a == b,
    "<>": lambda a, b: (a != b) & a.notna(),
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
}


def literal(value: Any) -> str:
    if isinstance(value, dt.datetime):
        return f"TIMESTAMP '{value.isoformat(sep=' ')}'"
    return f"'{value}'" if isinstance(value, str) else f"({value!r})"


@st.composite
def questions(draw: st.DrawFn) -> tuple[pd.DataFrame, list[tuple[str, str, Any]], str]:
    count = draw(st.integers(0, 40))
    columns = {name: draw(st.lists(cells, min_size=count, max_size=count)) for name, cells in CELLS.items()}
    frame = pd.DataFrame(columns).astype({"i": "int64", "f": "float64", "t": "str", "d": "M8[us]"})
    if draw(st.booleans()):
        frame = frame.sort_values(draw(st.sampled_from("ifd")), kind="stable", ignore_index=True)
    terms = []
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(CELLS)))
        terms.append((name, draw(st.sampled_from(sorted(OPERATORS))), draw(CONSTANTS[name])))
    return frame, terms, draw(st.sampled_from(["AND", "OR"]))


@given(questions())
def test_sql_and_pandas_agree(question: tuple[pd.DataFrame, list[tuple[str, str, Any]], str]) -> None:
    """Also on a file of many row groups, whose statistics rule some of them out; and the order is kept."""
    frame, terms, joined = question
    frame["n"] = np.arange(len(frame))
    masks = [
        OPERATORS[operator](frame[name], value).fillna(False).astype(bool) for name, operator, value in terms
    ]
    mask = np.logical_and.reduce(masks) if joined == "AND" else np.logical_or.reduce(masks)
    where = f" {joined} ".join(f"{name} {operator} {literal(value)}" for name, operator, value in terms)
    store = GuardedStore(MemoryStore())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mltrack_tasks.codecs.frames.ROW_GROUP_ROWS", 5)
        ref = store_data(store, frame)
    found = query_data(store, ref, f"SELECT * FROM s3object WHERE {where}").frame
    assert found["n"].tolist() == frame.loc[mask, "n"].tolist()
    pd.testing.assert_frame_equal(found, frame[mask].reset_index(drop=True), check_dtype=False)


@pytest.mark.parametrize("descending", [False, True])
def test_sorted_input_keeps_its_order(descending: bool, store: Store) -> None:
    frame = sorted_frame(600_000, 3)
    frame = frame[::-1].reset_index(drop=True) if descending else frame
    ref = store_data(store, frame)
    whole = query_data(store, ref, "SELECT t, c00 FROM s3object").frame
    pd.testing.assert_frame_equal(whole, frame[["t", "c00"]])
    part = query_data(store, ref, "SELECT t FROM s3object WHERE c00 < 0.5").frame
    assert part["t"].is_monotonic_decreasing if descending else part["t"].is_monotonic_increasing


# refs that cannot be asked


@pytest.mark.parametrize(
    ("data", "kind"),
    [(np.arange(3), "an array"), ({"a": 1}, "a JSON value"), (b"text", "bytes or a file of an unknown kind")],
)
def test_what_is_no_parquet_says_what_it_is(store: Store, data: Any, kind: str) -> None:
    ref = store_data(store, data, "things")
    counting = CountingStore(store)
    with pytest.raises(InvalidInputError, match=rf"'things'\) is {kind}.*not Parquet.*retrieve_data"):
        query_data(counting, ref, "SELECT * FROM s3object")
    assert not counting.log
    with pytest.raises(InvalidInputError, match=kind):
        query_data(store, ref.hash, "SELECT * FROM s3object")


@pytest.mark.parametrize("ref", [None, 1, "x", b"x", ["a"], {}, {"t": None}, {"t": "x"}])
def test_what_is_no_ref(store: Store, ref: Any) -> None:
    with pytest.raises(InvalidInputError):
        query_data(store, ref, "SELECT 1")


def test_a_frame_without_columns_is_no_table(store: Store) -> None:
    with pytest.raises(InvalidInputError, match="has no columns"):
        ask(store, pd.DataFrame(index=range(3)), "SELECT * FROM s3object")


def test_a_missing_blob(place: Place) -> None:
    store_data(place.store, b"something else")
    missing = "ab" * 32
    ref = DataRef(missing, "parquet", 10_000, f"data/ab/{missing}/data.parquet")
    for given_ref in (ref, str(ref), missing):
        for verify in (False, True):
            with pytest.raises(NotFoundError, match=missing):
                query_data(place.store, given_ref, "SELECT 1 FROM s3object", verify=verify)


def test_a_blob_that_goes_during_the_query(kept: tuple[Store, DataRef]) -> None:
    class Vanishing(CountingStore):
        def get_range(self, key: str, start: int, length: int) -> bytes | memoryview:
            if self.calls["get_range"] >= 2:
                raise NotFoundError(f"{key} is gone")
            return super().get_range(key, start, length)

    store, ref = kept
    with pytest.raises(NotFoundError, match=f"{ref.hash}.* is gone"):
        query_data(Vanishing(store), ref, "SELECT sum(c01) FROM s3object")


@pytest.mark.parametrize("verify", [False, True])
def test_an_archived_blob(s3_place: Place, s3_store: S3Store, verify: bool) -> None:
    ref = store_data(s3_place.store, RUNS)
    body = s3_place.raw.get(ref.storage_path)
    key = f"{s3_store.settings.prefix}/{ref.storage_path}"
    s3_store.client.put_object(
        Bucket=s3_store.settings.bucket, Key=key, Body=body, StorageClass="DEEP_ARCHIVE"
    )
    with pytest.raises(ArchivedError, match=rf"{ref.hash}.*restore"):
        query_data(s3_place.store, ref, "SELECT * FROM s3object", verify=verify)


# damage


@pytest.mark.parametrize("change", [-100, -1, 1, 100])
@pytest.mark.parametrize("verify", [False, True])
def test_a_ref_of_another_size(place: Place, change: int, verify: bool) -> None:
    ref = store_data(place.store, RUNS)
    wrong = replace(ref, size_bytes=ref.size_bytes + change)
    with pytest.raises(IntegrityError, match=rf"{ref.hash}.* the {wrong.size_bytes:,} bytes"):
        query_data(place.store, wrong, "SELECT * FROM s3object", verify=verify)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a page": lambda body: body[:2_000] + bytes([body[2_000] ^ 1]) + body[2_001:],
    "cut": lambda body: body[: len(body) // 2],
    "longer": lambda body: body + b"\0",
    "emptied": lambda body: b"",
    "other bytes": lambda body: random.Random(0).randbytes(len(body)),
    "the footer's end": lambda body: body[:-5] + b"\xff" + body[-4:],
    "no footer": lambda body: body[:-400] + b"\0" * 392 + body[-8:],
}


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("rows", [3_000, 60_000], ids=["one read", "several"])
def test_damage_is_noticed(place: Place, kind: str, verify: bool, rows: int) -> None:
    ref = store_data(place.store, sorted_frame(rows, 4), "d")
    assert (ref.size_bytes <= rangefile.WHOLE_BELOW) == (rows == 3_000)
    body = place.raw.get(ref.storage_path)
    assert body is not None
    place.raw.put(ref.storage_path, DAMAGES[kind](body))
    with pytest.raises(IntegrityError, match=ref.hash):
        query_data(place.store, ref, "SELECT * FROM s3object", verify=verify)
    place.raw.put(ref.storage_path, body)
    assert len(query_data(place.store, ref, "SELECT * FROM s3object", verify=verify).frame) == rows


def test_damage_outside_of_what_is_read_is_found_by_verify_only(store: Store) -> None:
    bare = MemoryStore()
    store = GuardedStore(bare)
    ref = store_data(store, sorted_frame(200_000, 3))
    body = bytearray(bare.get(ref.storage_path))
    body[len(body) // 2] ^= 1
    bare.delete([ref.storage_path])
    bare.create(ref.storage_path, bytes(body))
    sql = "SELECT count(c00) AS c FROM s3object WHERE t < TIMESTAMP '2024-01-01 00:01'"
    assert query_data(store, ref, sql).frame["c"].tolist() == [60]
    for verify_reads in (True, False):
        store.verify_reads = verify_reads
        with pytest.raises(IntegrityError, match=f"{ref.hash}.*do not hash to its name"):
            query_data(store, ref, sql, verify=True)


def test_verify_counts_what_it_reads(store: Store) -> None:
    ref = store_data(store, RUNS)
    result = query_data(store, ref, "SELECT n FROM s3object", verify=True)
    assert result.bytes_read == 2 * ref.size_bytes
    assert result.requests == 3  # HEAD, the whole, and the query's own


def test_forged_rows_of_the_right_size_are_found_by_verify_only(tmp_path: Path, store: Store) -> None:
    """Page checksums are no signature: who writes the pages writes them too. The digest is one."""
    bare = MemoryStore()
    store = GuardedStore(bare)
    files = [tmp_path / name for name in ("true.parquet", "forged.parquet")]
    for file, value in zip(files, (1, 2), strict=True):
        pq.write_table(pa.table({"v": [value]}), file, write_page_checksum=True, compression="none")
    ref = store_file(store, files[0])
    bare.delete([ref.storage_path])
    bare.create(ref.storage_path, files[1].read_bytes())
    assert query_data(store, ref, "SELECT v FROM s3object").frame["v"].tolist() == [2]
    with pytest.raises(IntegrityError, match="do not hash"):
        query_data(store, ref, "SELECT v FROM s3object", verify=True)


@pytest.mark.parametrize("verify", [False, True])
def test_a_cache_that_kept_damage_is_read_past(tmp_path: Path, verify: bool) -> None:
    bare = MemoryStore()
    store = GuardedStore(CachedStore(bare, tmp_path, 10**9))
    ref = store_data(store, sorted_frame(60_000, 4))
    body = bare.get(ref.storage_path)
    bare.delete([ref.storage_path])
    bare.create(ref.storage_path, DAMAGES["a page"](body))
    with pytest.raises(IntegrityError):
        query_data(store, ref, "SELECT * FROM s3object", verify=verify)
    bare.delete([ref.storage_path])
    bare.create(ref.storage_path, body)  # healed meanwhile: no piece of the damage may come back
    assert len(query_data(store, ref, "SELECT * FROM s3object", verify=verify).frame) == 60_000


# files by others


@pytest.mark.parametrize("checksums", [True, False])
def test_a_parquet_file_by_others_is_read_as_it_is(store: Store, tmp_path: Path, checksums: bool) -> None:
    table = pa.table({"a": list(range(5_000)), "s": pa.array(["x", "y"] * 2_500).dictionary_encode()})
    options: dict[str, Any] = {
        "compression": "snappy",
        "row_group_size": 500,
        "write_page_checksum": checksums,
    }
    pq.write_table(table, tmp_path / "f.parquet", **options)
    ref = store_file(store, tmp_path / "f.parquet")
    for given_ref in (ref, ref.hash):
        found = query_data(store, given_ref, "SELECT a FROM s3object WHERE s = 'y' AND a > 4990").frame
        assert found["a"].tolist() == [4991, 4993, 4995, 4997, 4999]


def test_a_file_that_only_looks_like_parquet(store: Store, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"PAR1 and more, but no footer PAR1")
    ref = store_file(store, tmp_path / "f")
    assert ref.format == "parquet"
    with pytest.raises(IntegrityError, match=f"{ref.hash}.*cannot be read as Parquet"):
        query_data(store, ref, "SELECT 1 FROM s3object")


# bad SQL


def test_bad_sql(store: Store) -> None:
    ref = store_data(store, RUNS)
    with pytest.raises(InvalidInputError, match=r'^Parser Error: syntax error at or near "SELEC"'):
        query_data(store, ref, "SELEC 1")
    with pytest.raises(InvalidInputError, match=r"reads from runs.*tables given \(s3object\)"):
        query_data(store, ref, "SELECT * FROM runs")
    with pytest.raises(InvalidInputError, match=r"reads from s3object.*tables given \(runs\)"):
        query_data(store, {"runs": ref}, "SELECT * FROM s3object")
    with pytest.raises(InvalidInputError, match="differ only in case"):
        query_data(store, {"t": ref, "T": ref}, "SELECT 1")
    with pytest.raises(InvalidInputError, match="cannot be the name"):
        query_data(store, {"": ref}, "SELECT 1")


def test_integers_in_lists_stay_exact_beside_a_null(store: Store) -> None:
    exact = 2**53 + 1
    ref = store_data(store, pd.DataFrame({"ids": [[exact, 1], [exact, None]]}))
    found = query_data(store, ref, "SELECT ids, {'n': ids} AS inside FROM s3object").frame
    assert [list(ids) for ids in found["ids"]] == [[exact, 1], [exact, None]]
    assert [list(row["n"]) for row in found["inside"]] == [[exact, 1], [exact, None]]
