"""Strict equality of values, cell types, dtypes, indexes, attrs, without the code under test."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from mltrack_tasks import codecs
from mltrack_tasks.codecs import Description


def encoded(value: Any, what: str = "data") -> tuple[bytes, Description]:
    sink = io.BytesIO()
    description = codecs.encode(value, sink, what=what)
    return sink.getvalue(), description


def roundtrip(value: Any) -> Any:
    """Encode, describe and decode; check on the way that both descriptions agree."""
    body, description = encoded(value)
    assert codecs.describe(description.format, io.BytesIO(body)) == description
    return codecs.decode(description.format, memoryview(body), what="data")


def assert_same(left: Any, right: Any) -> None:
    """Raise AssertionError unless both values are indistinguishable."""
    assert type(left) is type(right)
    if isinstance(left, pd.DataFrame):
        assert_frames_same(left, right)
        if not any(map(has_nested_nan, left.to_numpy(dtype=object).ravel())):
            pd.testing.assert_frame_equal(left, right, check_exact=True, check_freq=True)
    else:
        assert same_cell(left, right), f"{left!r} is not {right!r}"


def has_nested_nan(cell: Any) -> bool:
    """Tell what pandas cannot compare: for it, a NaN inside a list differs from itself."""
    if isinstance(cell, (list, dict)):
        inner = cell.values() if isinstance(cell, dict) else cell
        return any(has_nested_nan(item) or (isinstance(item, float) and item != item) for item in inner)
    return isinstance(cell, Decimal) and cell.is_nan()


def assert_frames_same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    assert_indexes_same(left.columns, right.columns)
    assert_indexes_same(left.index, right.index)
    assert same_cell(dict(left.attrs), dict(right.attrs))
    assert left.flags.allows_duplicate_labels == right.flags.allows_duplicate_labels
    for number in range(left.shape[1]):
        assert_arrays_same(left.iloc[:, number].array, right.iloc[:, number].array)


def assert_indexes_same(left: pd.Index, right: pd.Index) -> None:
    assert type(left) is type(right)
    assert same_cell(list(left.names), list(right.names))
    if isinstance(left, pd.MultiIndex):
        assert [str(d) for d in left.dtypes] == [str(d) for d in right.dtypes]
        assert left.nlevels == right.nlevels
        for level in range(left.nlevels):
            assert_arrays_same(left.get_level_values(level).array, right.get_level_values(level).array)
        return
    if isinstance(left, pd.RangeIndex):
        assert (left.start, left.stop, left.step) == (right.start, right.stop, right.step)
    assert getattr(left, "freq", None) == getattr(right, "freq", None)
    assert_arrays_same(left.array, right.array)


def assert_arrays_same(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    assert same_dtype(left.dtype, right.dtype), f"{left.dtype!r} is not {right.dtype!r}"
    assert len(left) == len(right)
    for row, (a, b) in enumerate(zip(left, right, strict=True)):
        assert same_cell(a, b), f"row {row}: {a!r} is not {b!r}"


def same_dtype(left: Any, right: Any) -> bool:
    if isinstance(left, pd.CategoricalDtype):
        assert_indexes_same(left.categories, right.categories)
    if isinstance(left, pd.DatetimeTZDtype):
        assert type(left.tz) is type(right.tz)
        assert str(left.tz) == str(right.tz)
    return type(left) is type(right) and bool(left == right) and repr(left) == repr(right)


def same_cell(left: Any, right: Any) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same_cell(left[k], right[k]) for k in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same_cell, left, right))
    if isinstance(left, np.ndarray):
        layout = (left.dtype, left.shape, left.dtype.str) == (
            right.dtype,
            right.shape,
            right.dtype.str,
        )
        return layout and left.tobytes() == right.tobytes()
    if left is None or left is pd.NA or left is pd.NaT:
        return left is right
    if isinstance(left, (float, np.floating)):
        return bool(np.isnan(left) and np.isnan(right)) or repr(left) == repr(right)
    if isinstance(left, Decimal):
        return left.as_tuple() == right.as_tuple()
    return bool(left == right) and repr(left) == repr(right)
