"""Different frames never share bytes, equal ones always do, the rest is refused by name."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dateutil.tz import tzoffset

from mltrack_tasks import codecs
from mltrack_tasks.codecs.parquet import ROW_GROUP_ROWS
from mltrack_tasks.errors import InvalidInputError
from tests.floor1.examples import arrow, column, indexed, labelled, objects
from tests.floor1.strict import assert_same, encoded, roundtrip

PLAIN = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
STR = pd.StringDtype(na_value=np.nan)


def categorical(values: list[Any], categories: list[Any], ordered: bool = False) -> pd.DataFrame:
    return column(pd.Categorical(values, categories, ordered=ordered))


def with_attrs(attrs: dict[str, Any]) -> pd.DataFrame:
    frame = PLAIN.copy()
    frame.attrs = attrs
    return frame


DIFFERENT: dict[str, tuple[pd.DataFrame, pd.DataFrame]] = {
    "column renamed": (PLAIN, PLAIN.rename(columns={"a": "c"})),
    "columns reordered": (PLAIN, PLAIN[["b", "a"]]),
    "int64 and int32": (PLAIN, PLAIN.astype("int32")),
    "int64 and uint32": (PLAIN, PLAIN.astype("uint32")),
    "int64 and float64": (PLAIN, PLAIN.astype("float64")),
    "int and bool": (column(np.array([1, 0])), column(np.array([True, False]))),
    "int and datetime": (PLAIN, PLAIN.astype("M8[ns]")),
    "datetime units": (PLAIN.astype("M8[ns]"), PLAIN.astype("M8[us]")),
    "datetime and timedelta": (PLAIN.astype("M8[ns]"), PLAIN.astype("m8[ns]")),
    "naive and UTC": (PLAIN.astype("M8[ns]"), PLAIN.astype("datetime64[ns, UTC]")),
    "byte order": (column(np.array([1], "<i4")), column(np.array([1], ">i4"))),
    "category and str": (categorical(["a", "b"], ["a", "b"]), column(pd.array(["a", "b"]))),
    "ordered": (categorical(["a"], ["a"], True), categorical(["a"], ["a"])),
    "unused category": (categorical(["a"], ["a", "b"]), categorical(["a"], ["a"])),
    "order of categories": (categorical(["a"], ["a", "b"]), categorical(["a"], ["b", "a"])),
    "None and NaN": (column(objects("a", None)), column(objects("a", np.nan))),
    "None and NaT": (column(objects("a", None)), column(objects("a", pd.NaT))),
    "None and NA": (column(objects("a", None)), column(objects("a", pd.NA))),
    "NaN and NaT alone": (column(objects(np.nan)), column(objects(pd.NaT))),
    "None and the text None": (column(objects(None)), column(objects("None"))),
    "NaN and NA in strings": (column(["a", None], STR), column(["a", None], "string")),
    "storage of strings": (column(["a"], "string[python]"), column(["a"], "string[pyarrow]")),
    "str and object": (column(["a"], STR), column(objects("a"))),
    "str and bytes": (column(objects("a")), column(objects(b"a"))),
    "True and 1": (column(objects(True)), column(objects(1))),
    "1 and 1.0": (column(objects(1)), column(objects(1.0))),
    "0.0 and -0.0": (column(np.array([0.0])), column(np.array([-0.0]))),
    "digits of decimals": (column(objects(Decimal("1.0"))), column(objects(Decimal("1.00")))),
    "list and array": (column(objects([1, 2])), column(objects(np.array([1, 2])))),
    "dtypes of array cells": (
        column(objects(np.zeros(2, "f4"))),
        column(objects(np.zeros(2, "i4"))),
    ),
    "no cells and one null": (column(objects([])), column(objects([None]))),
    "absent and None": (column(objects({"a": None})), column(objects({}))),
    "number and text in JSON": (column(objects([1, "a"])), column(objects('[1,"a"]'))),
    "Int64 and int64": (column([1], "Int64"), column([1], "int64")),
    "Int64 and Arrow": (column([1], "Int64"), column([1], "int64[pyarrow]")),
    "Arrow strings": (arrow(["a"], pa.string()), arrow(["a"], pa.large_string())),
    "empty with other columns": (PLAIN[:0], PLAIN[:0].rename(columns={"a": "c"})),
    "empty with other dtypes": (PLAIN[:0], PLAIN[:0].astype("int8")),
    "nothing at all": (pd.DataFrame(), pd.DataFrame(index=pd.RangeIndex(1))),
    "range and numbers": (indexed(pd.RangeIndex(2)), indexed(pd.Index([0, 1]))),
    "start of the range": (indexed(pd.RangeIndex(2)), indexed(pd.RangeIndex(1, 3))),
    "step of the range": (indexed(pd.RangeIndex(2)), indexed(pd.RangeIndex(0, 4, 2))),
    "name of the index": (indexed(pd.Index([1])), indexed(pd.Index([1], name="n"))),
    "type of the name": (indexed(pd.Index([1], name="0")), indexed(pd.Index([1], name=0))),
    "type of the index": (indexed(pd.Index([1])), indexed(pd.Index([1], dtype="int8"))),
    "levels": (indexed(pd.Index(["a"])), indexed(pd.MultiIndex.from_arrays([["a"]]))),
    "freq": (
        indexed(pd.date_range("2024", periods=2, freq="D")),
        indexed(pd.DatetimeIndex(["2024-01-01", "2024-01-02"])),
    ),
    "index and column": (PLAIN.set_index("b"), PLAIN),
    "labels 1 and '1'": (labelled([1]), labelled(["1"])),
    "labels of a range": (labelled(pd.RangeIndex(2)), labelled(pd.Index([0, 1]))),
    "tuples and levels": (
        labelled(pd.Index([("a", 1)], tupleize_cols=False)),
        labelled(pd.MultiIndex.from_tuples([("a", 1)])),
    ),
    "repeated labels": (labelled(["a", "a"]), labelled(["a", "a_2"])),
    "name of the labels": (labelled(pd.Index(["a"])), labelled(pd.Index(["a"], name="n"))),
    "attrs": (PLAIN, with_attrs({"a": 1})),
    "types in attrs": (with_attrs({"a": 1}), with_attrs({"a": 1.0})),
    "flags": (PLAIN, PLAIN.set_flags(allows_duplicate_labels=False)),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_different_frames_have_different_bytes(name: str) -> None:
    left, right = DIFFERENT[name]
    assert encoded(left)[0] != encoded(right)[0]
    assert_same(left, roundtrip(left))
    assert_same(right, roundtrip(right))


TWO = pd.MultiIndex.from_arrays([["a", "b", "c"], [1, 2, 3]])
CHUNKS = pa.chunked_array([["z", "a"], ["b", None]])
FRESH = pa.chunked_array([["a", "b", None]])
NAN = np.array([0x7FF8000000000000, 0xFFF8000000000001], dtype="u8").view("f8")


def pairs(hidden: int) -> Any:
    """Two fixed lists, the second missing, with some value behind it."""
    mask = pa.array([False, True])
    lists = pa.FixedSizeListArray.from_arrays(pa.array([1, 2, hidden, 3]), 2, mask=mask)
    return pd.arrays.ArrowExtensionArray(pa.chunked_array([lists]))


EQUAL: dict[str, tuple[pd.DataFrame, pd.DataFrame]] = {
    "a copy": (PLAIN, PLAIN.copy(deep=True)),
    "block layout": (PLAIN, pd.DataFrame(np.array([[1, 3], [2, 4]]), columns=["a", "b"])),
    "memory order": (PLAIN, pd.DataFrame(np.asfortranarray([[1, 3], [2, 4]]), columns=["a", "b"])),
    "a slice": (PLAIN, pd.concat([PLAIN, PLAIN], ignore_index=True)[:2]),
    "strides": (column(np.arange(0, 9, 3)), column(np.arange(9).reshape(3, 3)[:, 0])),
    "chunks and offsets": (
        column(pd.arrays.ArrowExtensionArray(CHUNKS.slice(1))),
        column(pd.arrays.ArrowExtensionArray(FRESH)),
    ),
    "unused levels": (
        pd.DataFrame({"x": [5]}, index=TWO[1:2]),
        pd.DataFrame({"x": [5]}, index=pd.MultiIndex.from_arrays([["b"], [2]])),
    ),
    "under the mask": (
        column(pd.arrays.IntegerArray(np.array([1, 7]), np.array([False, True]))),
        column(pd.array([1, None], dtype="Int64")),
    ),
    "under the nulls of lists": (column(pairs(1)), column(pairs(2))),
    "bits of NaN": (column(NAN), column(np.array([np.nan, np.nan]))),
    "bits of NaN beside NA": (
        column(pd.arrays.FloatingArray(NAN, np.array([False, True]))),
        column(pd.arrays.FloatingArray(NAN[[1, 0]], np.array([False, True]))),
    ),
    "order of dicts": (column(objects({"a": 1, "b": 2})), column(objects({"b": 2, "a": 1}))),
    "strides of array cells": (
        column(objects(np.arange(6)[::2])),
        column(objects(np.array([0, 2, 4]))),
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_equal_frames_have_equal_bytes(name: str) -> None:
    left, right = EQUAL[name]
    pd.testing.assert_frame_equal(left, right)
    assert encoded(left)[0] == encoded(right)[0]


def attrs_of(value: Any) -> pd.DataFrame:
    frame = column([1])
    frame.attrs = {"note": value}
    return frame


REFUSED: dict[str, tuple[pd.DataFrame, str]] = {
    "complex": (column(np.array([1j])), "column 'x' .dtype complex128"),
    "longdouble": (column(np.array([1], "longdouble")), "column 'x' .dtype float128"),
    "sparse": (column(pd.arrays.SparseArray([0, 1])), "column 'x' .dtype Sparse.*to_dense"),
    "mixed cells": (column(objects([1], "a")), "column 'x' .dtype object.*list, str"),
    "number and text": (column(objects(1, "a")), "column 'x' .dtype object.*int, str"),
    "True and 1": (column(objects(True, 1)), "bool, int"),
    "1 and 0.5": (column(objects(1, 0.5)), "float, int"),
    "None and NaN": (column(objects("a", None, np.nan)), "None and nan"),
    "NaT and NA": (column(objects(pd.NaT, pd.NA)), "NA and NaT"),
    "tuples": (column(objects((1, 2))), "tuple; use lists"),
    "tuples in lists": (column(objects([(1, 2)])), "column 'x' .*tuple"),
    "dict with numbers as keys": (column(objects({1: "a"})), "column 'x' .*key 1"),
    "any object": (column(objects(object())), "type object"),
    "numpy scalars": (column(objects(np.int64(1))), "numpy.int64; use infer_objects"),
    "timestamps as objects": (column(objects(pd.Timestamp(0))), "infer_objects"),
    "huge integers": (column(objects(2**64)), "beyond 64 bits"),
    "both ends of 64 bits": (column(objects(-1, 2**63)), "beyond 64 bits"),
    "matrix cells": (column(objects(np.zeros((1, 2)))), "one-dimensional"),
    "arrays of two dtypes": (column(objects(np.zeros(1, "f4"), np.zeros(1, "f8"))), "differ"),
    "arrays of objects": (column(objects(objects("a"))), "dtype object"),
    "datetimes with a zone": (column(objects(datetime(2024, 1, 1, tzinfo=UTC))), "row 0 is"),
    "datetimes with a fold": (column(objects(datetime(2024, 1, 1, fold=1))), "row 0 is .*fold"),
    "long timedeltas": (column(objects(timedelta(10**9 - 1))), "column 'x' .dtype object"),
    "lone surrogates": (column(objects("\ud800")), "column 'x' .*surrogates"),
    "seconds beyond Parquet": (column(np.array([2**62], "M8[s]")), "column 'x' .dtype datetime64"),
    "time within a date64": (arrow([5], pa.date64()), "column 'x' .*date64"),
    "arrow dictionary": (
        column(pd.array(["a"], dtype=pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string())))),
        "column 'x' .*dictionary",
    ),
    "arrow struct without fields": (arrow([{}], pa.struct([])), "column 'x' .*struct"),
    "mixed categories": (
        column(pd.Categorical([1, "a"])),
        "column 'x' .dtype category., its categories .dtype object",
    ),
    "mixed index": (indexed(pd.Index([1, "a"], dtype=object)), "the index .dtype object"),
    "tuples as index": (indexed(pd.Index([(1, 2)], tupleize_cols=False)), "the index .*tuple"),
    "complex level": (indexed(pd.MultiIndex.from_arrays([[1], [1j]])), "index level 1 None"),
    "name of the index": (indexed(pd.Index([1], name=np.int64(1))), "name of the index is"),
    "custom holidays": (
        indexed(pd.date_range("2024", periods=2, freq=pd.offsets.CDay(holidays=["2024-01-01"]))),
        "freq",
    ),
    "labels": (labelled(pd.Index([object()])), "column labels"),
    "label with a surrogate": (labelled(pd.Index(["\ud800"], dtype=object)), "surrogate"),
    "attrs with a tuple": (attrs_of((1, 2)), r"\.attrs\['note'\] is a tuple"),
    "attrs with a frame": (attrs_of(PLAIN), "DataFrame"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    frame, message = REFUSED[name]
    with pytest.raises(InvalidInputError, match=f"(?s)^data.*?{message}"):
        encoded(frame)


def test_local_time_zones_are_refused() -> None:
    frame = column(pd.date_range("2024", periods=1, tz=tzoffset("local", 60)).array)
    with pytest.raises(InvalidInputError, match="no portable name"):
        encoded(frame)


def test_pytz_zones_come_back() -> None:
    pytz = pytest.importorskip("pytz")
    for zone in (pytz.timezone("Europe/Berlin"), pytz.UTC, pytz.FixedOffset(90)):
        frame = column(pd.date_range("2024", periods=2, tz=zone).array)
        assert_same(frame, roundtrip(frame))


def test_row_groups_have_a_constant_size() -> None:
    rows = ROW_GROUP_ROWS + 5
    cells = objects(*([None] * (rows - 2)), [1], [2])
    cats = pd.Categorical.from_codes(np.arange(rows) % 2, ["a", "b"])
    index = pd.MultiIndex.from_arrays([np.arange(rows) % 3, np.arange(rows)])
    frame = pd.DataFrame({"n": np.arange(rows), "c": cats}, index=index)
    frame["o"] = pd.Series(cells, dtype=object, index=index)
    body, _ = encoded(frame)
    metadata = pq.ParquetFile(io.BytesIO(body)).metadata
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert sizes == [ROW_GROUP_ROWS, 5]
    pd.testing.assert_frame_equal(roundtrip(frame), frame, check_exact=True)


def test_a_failure_late_in_the_frame_leaves_no_complete_file() -> None:
    cells = objects(*(["a"] * ROW_GROUP_ROWS), "\ud800")
    sink = io.BytesIO()
    with pytest.raises(InvalidInputError, match="column 'x'"):
        codecs.encode(column(cells), sink)
    assert sink.getvalue()[:4] == b"PAR1"
    assert codecs.sniff(sink.getvalue()[:8], sink.getvalue()[-8:]) == "bin"


def test_other_readers_see_natural_values() -> None:
    frame = pd.DataFrame(
        {
            "grade": pd.Categorical(["b", "a"], ["a", "b", "c"]),
            "age": pd.cut([20, 40], [18, 30, 50]),
            "when": pd.date_range("2024-01-01", periods=2, tz="Europe/Berlin", unit="us"),
            "note": objects("x", None),
            7: [1.5, np.nan],
        },
        index=pd.Index([10, 20], name="id"),
    )
    table = pq.read_table(io.BytesIO(encoded(frame)[0]))
    assert table.column_names == ["grade", "age", "when", "note", "7", "id"]
    rows = table.drop_columns("when").to_pylist()
    assert rows == [
        {"grade": "b", "age": "(18, 30]", "note": "x", "7": 1.5, "id": 10},
        {"grade": "a", "age": "(30, 50]", "note": None, "7": None, "id": 20},
    ]
    assert table.schema.field("when").type == pa.timestamp("us", "Europe/Berlin")


def test_index_levels_take_names_that_are_free() -> None:
    frame = PLAIN.set_index(pd.MultiIndex.from_arrays([[1, 2], [3, 4], [5, 6]], names=["a", "k", None]))
    names = pq.read_schema(io.BytesIO(encoded(frame)[0])).names
    assert names == ["a", "b", "__index_level_0__", "k", "__index_level_2__"]


def test_statistics_compression_and_checksums_are_on() -> None:
    body, _ = encoded(PLAIN)
    chunk = pq.ParquetFile(io.BytesIO(body)).metadata.row_group(0).column(0)
    assert chunk.compression == "ZSTD"
    assert (chunk.statistics.min, chunk.statistics.max) == (1, 2)
