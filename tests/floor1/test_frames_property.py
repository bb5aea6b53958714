"""Random frames: they come back exactly, with the same bytes each time, or are refused by name."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks.errors import InvalidInputError
from tests.floor1.examples import objects
from tests.floor1.strict import assert_same, encoded, roundtrip

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
INT64 = st.integers(-(2**63), 2**63 - 1)
MARKERS = [None, np.nan, pd.NaT, pd.NA]
SCALARS = st.one_of(st.none(), st.booleans(), INT64, st.floats(), TEXT)
NESTED = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
)
CELLS = [
    TEXT,
    st.binary(max_size=5),
    st.booleans(),
    INT64,
    st.integers(0, 2**70),
    st.floats(allow_nan=False),
    st.dates(),
    st.datetimes().map(lambda moment: moment.replace(fold=0)),
    st.timedeltas(timedelta(-(10**8)), timedelta(10**8)),
    st.decimals(places=2, allow_nan=False, allow_infinity=False),
    st.decimals().filter(lambda number: not number.is_snan()),  # pandas cannot compare those
    st.lists(st.floats(), max_size=3),
    st.lists(NESTED, max_size=3),
    st.dictionaries(TEXT, NESTED, max_size=3),
    st.fixed_dictionaries({"a": INT64, "b": st.lists(TEXT, max_size=2)}),
    st.lists(st.floats(width=32), max_size=3).map(lambda v: np.array(v, dtype="f4")),
    st.one_of(SCALARS, st.tuples(SCALARS)),
]
RAW = [
    "int8",
    "uint8",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
    ">f8",
    "M8[s]",
    "M8[ns]",
]
NULLABLE = ["Int16", "UInt64", "Float32", "Float64", "boolean"]
ARROW = [
    pa.int32(),
    pa.float64(),
    pa.string(),
    pa.date32(),
    pa.timestamp("ms", "UTC"),
    pa.list_(pa.int8()),
]
ARROW_CELLS: dict[Any, st.SearchStrategy[Any]] = {
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.float64(): st.floats(),
    pa.string(): TEXT,
    pa.date32(): st.dates(),
    pa.timestamp("ms", "UTC"): st.integers(-(2**45), 2**45),
    pa.list_(pa.int8()): st.lists(st.none() | st.integers(-128, 127), max_size=3),
}


def lists(cell: st.SearchStrategy[Any], rows: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(cell, min_size=rows, max_size=rows)


def object_arrays(rows: int) -> st.SearchStrategy[Any]:
    cell = st.sampled_from(CELLS).flatmap(
        lambda cells: st.sampled_from(MARKERS).flatmap(lambda m: lists(cells | st.just(m), rows))
    )
    return cell.map(lambda values: objects(*values))


def raw_arrays(rows: int) -> st.SearchStrategy[Any]:
    def view(body: bytes, dtype: str) -> Any:
        return np.frombuffer(body, dtype=dtype)[:rows].copy()

    body = st.binary(min_size=8 * rows, max_size=8 * rows)
    numbers = st.builds(view, body, st.sampled_from(RAW))
    return numbers | lists(st.booleans(), rows).map(lambda v: np.array(v, dtype=bool))


def nullable_arrays(rows: int) -> st.SearchStrategy[Any]:
    def masked(body: bytes, mask: list[bool], name: str) -> Any:
        dtype: Any = pd.api.types.pandas_dtype(name)
        values = np.frombuffer(body, dtype="u1")[:rows] % 2 == 1
        if name != "boolean":
            values = np.frombuffer(body, dtype=dtype.numpy_dtype)[:rows].copy()
        return dtype.construct_array_type()(values, np.array(mask, dtype=bool))

    body = st.binary(min_size=8 * rows, max_size=8 * rows)
    return st.builds(masked, body, lists(st.booleans(), rows), st.sampled_from(NULLABLE))


def string_arrays(rows: int) -> st.SearchStrategy[Any]:
    dtypes = [pd.StringDtype(s, na_value=na) for s in ("python", "pyarrow") for na in (pd.NA, np.nan)]
    values = lists(st.none() | TEXT, rows)
    return st.builds(lambda v, d: pd.array(v, dtype=d), values, st.sampled_from(dtypes))


def category_arrays(rows: int) -> st.SearchStrategy[Any]:
    def make(labels: list[Any], picks: list[int], ordered: bool) -> Any:
        codes = [pick % (len(labels) + 1) - 1 for pick in picks]
        return pd.Categorical.from_codes(codes, pd.Index(labels), ordered=ordered)

    cells = st.one_of(*(st.lists(c, unique=True, max_size=4) for c in (TEXT, INT64, st.dates())))
    return st.builds(make, cells, lists(st.integers(0, 9), rows), st.booleans())


def arrow_arrays(rows: int) -> st.SearchStrategy[Any]:
    def make(exact: Any) -> st.SearchStrategy[Any]:
        cells = lists(st.none() | ARROW_CELLS[exact], rows)
        return cells.map(
            lambda v: pd.arrays.ArrowExtensionArray(pa.chunked_array([pa.array(v, exact)], exact))
        )

    return st.sampled_from(ARROW).flatmap(make)


def arrays(rows: int) -> st.SearchStrategy[Any]:
    kinds = [
        object_arrays,
        raw_arrays,
        nullable_arrays,
        string_arrays,
        category_arrays,
        arrow_arrays,
    ]
    return st.one_of(*(kind(rows) for kind in kinds))


def indexes(rows: int) -> st.SearchStrategy[pd.Index]:
    name = st.sampled_from([None, "a", "k", 0])
    flat = st.sampled_from([TEXT, INT64, st.dates(), st.floats(allow_nan=False)]).flatmap(
        lambda cells: st.builds(lambda v, n: pd.Index(v, name=n), lists(cells, rows), name)
    )
    ranges = st.builds(
        lambda start, step: pd.RangeIndex(start, start + rows * step, step),
        st.integers(-9, 9),
        st.integers(1, 9) | st.integers(-9, -1),
    )
    levels = st.lists(flat, min_size=1, max_size=3)
    multi = levels.map(lambda v: pd.MultiIndex.from_arrays(v, names=[i.name for i in v]))
    return st.one_of(flat, ranges, multi)


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    rows = draw(st.integers(0, 4))
    index = draw(indexes(rows))
    found = draw(st.lists(arrays(rows), max_size=4))
    series = {i: pd.Series(a, index=index, dtype=a.dtype) for i, a in enumerate(found)}
    frame = pd.DataFrame(series, index=index)
    frame.columns = draw(indexes(len(found)))
    return frame


@given(frames())
def test_random_frames_come_back_or_are_refused(frame: pd.DataFrame) -> None:
    try:
        body, _ = encoded(frame)
    except InvalidInputError:
        with pytest.raises(InvalidInputError, match=r"(?s)^data: .*dtype"):
            encoded(frame)
        return
    assert_same(frame, roundtrip(frame))
    assert encoded(frame.copy(deep=True))[0] == body


@given(st.sampled_from(CELLS[:11]), st.data())
def test_one_type_of_cells_is_never_refused(cell: Any, data: st.DataObject) -> None:
    cells = data.draw(lists(cell.filter(is_plain), 3))
    frame = pd.DataFrame({"x": pd.Series(objects(*cells), dtype=object)})
    assert_same(frame, roundtrip(frame))


def is_plain(cell: Any) -> bool:
    if isinstance(cell, int):
        return -(2**63) <= cell < 2**63
    return isinstance(cell, (str, bytes, bool, float, date, datetime, timedelta, Decimal))
