"""Results of SQL as DataFrames, exact where pandas' own conversion is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

_NULLABLE: dict[Any, Any] = {
    pa.bool_(): pd.BooleanDtype(),
    **{
        pa.type_for_alias(name.lower()): getattr(pd, f"{name}Dtype")()
        for name in (*("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64"),)
    },
}
"""What holds NULLs beside integers and booleans; pandas would make floats and objects of them."""
_INTERVAL = np.dtype([("months", "<i4"), ("days", "<i4"), ("nanoseconds", "<i8")])
_DAY = 86_400_000_000
"""[us]"""
_MOST_DAYS = 100_000_000
"""Above, microseconds leave 64 bits."""


def frame_of(table: Any) -> pd.DataFrame:
    """Arrow table -> DataFrame with the same column names, equal ones included.

    Integers and booleans with NULLs become Int64, boolean and the like; intervals become timedelta64[us]
    unless they hold months. Dates, decimals, lists and structs are objects.
    """
    columns = {number: _series(column) for number, column in enumerate(table.columns)}
    frame = pd.DataFrame(columns, copy=False)
    frame.columns = pd.Index(table.column_names)
    return frame


def _series(column: Any) -> Any:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_decimal(column.type) and column.type.bit_width < 128:  # pyarrow 19 cannot convert those
        column = column.cast(pa.decimal128(column.type.precision, column.type.scale))
    if pa.types.is_interval(column.type):
        return _durations(column)
    if pa.types.is_nested(column.type):
        return column.to_pandas(integer_object_nulls=True)  # else integers beside a NULL become floats
    nullable = _NULLABLE.get(column.type) if column.null_count else None
    if nullable is not None:
        return column.to_pandas(types_mapper={column.type: nullable}.get)
    return column.to_pandas()


def _durations(column: Any) -> Any:
    """Month-day-nanosecond intervals -> timedelta64[us], or objects if that would not be exact."""
    parts = [
        np.frombuffer(chunk.buffers()[1], _INTERVAL)[chunk.offset :][: len(chunk)] for chunk in column.chunks
    ]
    whole = np.concatenate([np.zeros(0, _INTERVAL), *parts])
    missing = column.is_null().to_numpy()
    days = np.where(missing, 0, whole["days"]).astype("i8")
    if whole["months"][~missing].any() or np.abs(days).max(initial=0) > _MOST_DAYS:
        return column.to_pandas()
    values = (days * _DAY + whole["nanoseconds"] // 1_000).view("m8[us]")
    values[missing] = np.timedelta64("NaT")
    return pd.Series(values)
