"""Columns whose dtype names one arrow type: numpy numbers, masked, string and Arrow dtypes."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mltrack_tasks.codecs.column import ColumnPlan, expect, fill, no_nulls, refuse
from mltrack_tasks.codecs.parquet import pack_array, unpack_array
from mltrack_tasks.codecs.spec import Spec, get
from mltrack_tasks.errors import FormatError

_MASKED: dict[str, Any] = {
    str(dtype): dtype
    for dtype in (
        *(pd.Int8Dtype(), pd.Int16Dtype(), pd.Int32Dtype(), pd.Int64Dtype()),
        *(pd.UInt8Dtype(), pd.UInt16Dtype(), pd.UInt32Dtype(), pd.UInt64Dtype()),
        *(pd.Float32Dtype(), pd.Float64Dtype(), pd.BooleanDtype()),
    )
}


def plan_number(array: Any, where: str) -> ColumnPlan:
    """bool, int, uint, float of numpy -> the same in Arrow; NaN, its missing value, -> null."""
    dtype = array.dtype
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise refuse(where, _number_hint(dtype))
    values = np.asarray(array)
    native = dtype.newbyteorder("=")
    stored = pa.from_numpy_dtype(native)

    def convert(start: int, stop: int) -> Any:
        return pa.array(values[start:stop].astype(native, copy=False), stored, from_pandas=True)

    return ColumnPlan({"kind": "number", "dtype": str(dtype)}, stored, convert, where)


def restore_number(spec: Spec, column: Any) -> Any:
    """Arrow number -> ndarray."""
    dtype = np.dtype(get(spec, "dtype", str))
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise ValueError(f"{dtype} is not a number dtype")
    expect(column, pa.from_numpy_dtype(dtype.newbyteorder("=")))
    return fill(column if dtype.kind == "f" else no_nulls(column), dtype)


def plan_masked(array: Any, where: str) -> ColumnPlan:
    """Int64, Float64, boolean, ... -> the same in Arrow; NA -> null, and NaN stays NaN."""
    numpy_dtype = array.dtype.numpy_dtype
    stored = pa.from_numpy_dtype(numpy_dtype)

    def convert(start: int, stop: int) -> Any:
        part = array[start:stop]
        values = part.to_numpy(dtype=numpy_dtype, na_value=numpy_dtype.type(0))
        return pa.array(_one_nan(values), stored, mask=np.asarray(part.isna()), from_pandas=False)

    return ColumnPlan({"kind": "masked", "dtype": str(array.dtype)}, stored, convert, where)


def is_masked(dtype: Any) -> bool:
    """Tell whether ``dtype`` is one of pandas' own masked dtypes."""
    return type(_MASKED.get(str(dtype))) is type(dtype)


def restore_masked(spec: Spec, column: Any) -> Any:
    """Arrow number -> IntegerArray, FloatingArray, BooleanArray."""
    dtype = _MASKED[get(spec, "dtype", str)]
    expect(column, pa.from_numpy_dtype(dtype.numpy_dtype))
    mask = fill(column.is_null(), np.bool_)
    values = fill(column, dtype.numpy_dtype, dtype.numpy_dtype.type(0).item())
    return dtype.construct_array_type()(values, mask)


def plan_string(array: Any, where: str) -> ColumnPlan:
    """str, string[python], string[pyarrow] -> large_string; missing -> null."""
    dtype = array.dtype
    na = "NA" if dtype.na_value is pd.NA else "nan"
    spec: Spec = {"kind": "string", "dtype": str(dtype), "storage": dtype.storage, "na": na}
    stored = pa.large_string()
    return ColumnPlan(spec, stored, lambda a, b: pa.array(array[a:b], stored), where)


def restore_string(spec: Spec, column: Any) -> Any:
    """large_string -> the string array of the described storage."""
    storage, na = get(spec, "storage", str), get(spec, "na", str)
    if storage not in ("python", "pyarrow") or na not in ("NA", "nan"):
        raise ValueError(f"string storage {storage!r} with {na!r} is not known")
    dtype = _string_dtype(storage, na)
    expect(column, pa.large_string())
    if storage == "python":
        return pd.array(fill(column, object), dtype=dtype)
    return dtype.__from_arrow__(column)


def _string_dtype(storage: str, na: str) -> Any:
    if na == "NA":
        return pd.StringDtype(storage)
    try:
        return pd.StringDtype(storage, na_value=np.nan)
    except TypeError as error:
        raise FormatError("The frame has columns of dtype str: upgrade pandas to 2.3.") from error


def plan_arrow(array: Any, where: str) -> ColumnPlan:
    """ArrowDtype -> its own type, or the nearest one that Parquet returns unchanged."""
    exact = array.dtype.pyarrow_dtype
    stored = _stored(exact, where)
    spec: Spec = {"kind": "arrow", "dtype": str(array.dtype), "type": _pack_type(exact)}
    _check_survives(stored, exact, where)

    def convert(start: int, stop: int) -> Any:
        part = array[start:stop].__arrow_array__().cast(stored)
        return _one_arrow_nan(part.combine_chunks())

    return ColumnPlan(spec, stored, convert, where)


def restore_arrow(spec: Spec, column: Any) -> Any:
    """Arrow array -> ArrowExtensionArray of exactly the described type."""
    exact = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(get(spec, "type", str)))).field(0).type
    return pd.arrays.ArrowExtensionArray(column.cast(exact))


def _check_survives(stored: Any, exact: Any, where: str) -> None:
    try:
        back = unpack_array(pack_array(pa.array([], stored))).cast(exact).type
    except pa.ArrowException as error:
        raise refuse(where, f"Parquet does not take the Arrow type {exact} ({error})") from error
    if back != exact or str(back) != str(exact):
        raise refuse(where, f"Parquet gives back {back} for the Arrow type {exact}; cast it first")


def _pack_type(exact: Any) -> str:
    return base64.b64encode(pa.schema([("v", exact)]).serialize()).decode("ascii")


def _one_nan(values: Any) -> Any:
    if values.dtype.kind != "f":
        return values
    nan = np.isnan(values)
    return np.where(nan, values.dtype.type(np.nan), values) if nan.any() else values


def _one_arrow_nan(array: Any) -> Any:
    if not pa.types.is_floating(array.type) or pa.types.is_float16(array.type):
        return array
    nan = pc.is_nan(array)
    return pc.if_else(nan, pa.scalar(np.nan, array.type), array) if pc.any(nan).as_py() else array


def _stored(exact: Any, where: str) -> Any:
    """Choose the type to write for ``exact``: the cast there is checked, the cast back is exact."""
    is_ = pa.types
    if is_.is_timestamp(exact):
        return pa.timestamp("ms", exact.tz) if exact.unit == "s" else exact
    if is_.is_time32(exact):
        return pa.time32("ms")
    if is_.is_date64(exact):
        return pa.date32()
    if is_.is_struct(exact) and exact.num_fields:
        return pa.struct([_item(exact.field(i), where) for i in range(exact.num_fields)])
    if is_.is_map(exact):
        return pa.map_(
            exact.key_field.with_type(_stored(exact.key_type, where)),
            _item(exact.item_field, where),
        )
    # Parquet has no lists of fixed size; pyarrow 20 could not read back its own with missing rows.
    if is_.is_large_list(exact) or is_.is_fixed_size_list(exact):
        return pa.large_list(_item(exact.value_field, where))
    if is_.is_list(exact):
        return pa.list_(_item(exact.value_field, where))
    if _is_leaf(exact):
        return exact
    raise refuse(where, f"Parquet does not give back the Arrow type {exact}; cast it first")


def _item(field: Any, where: str) -> Any:
    return field.with_type(_stored(field.type, where))


def _is_leaf(exact: Any) -> bool:
    is_ = pa.types
    tests = (
        is_.is_boolean,
        is_.is_integer,
        is_.is_floating,
        is_.is_decimal,
        is_.is_null,
        is_.is_date32,
    )
    texts = (
        is_.is_string,
        is_.is_large_string,
        is_.is_binary,
        is_.is_large_binary,
        is_.is_fixed_size_binary,
    )
    return any(test(exact) for test in (*tests, *texts, is_.is_time64, is_.is_duration))


def _number_hint(dtype: Any) -> str:
    if dtype.kind == "c":
        return "Parquet has no complex numbers; store .real and .imag as columns, or an ndarray"
    return f"numpy's {dtype} has no counterpart in Parquet; use astype with a dtype of at most 64 bits"
