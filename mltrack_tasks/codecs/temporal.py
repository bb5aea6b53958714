"""Dates and durations: datetime64 with and without zone, timedelta64, Period."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mltrack_tasks.codecs.column import NAT, ColumnPlan, expect, fill, refuse
from mltrack_tasks.codecs.spec import Spec, get
from mltrack_tasks.codecs.timezones import arrow_zone, pack_zone, unpack_zone

_UNITS = ("s", "ms", "us", "ns")


def plan_datetime(array: Any, where: str) -> ColumnPlan:
    """datetime64[unit], naive or with zone -> timestamp(unit); NaT -> null.

    Parquet has no seconds: those become milliseconds, and years beyond +-292 million are refused.
    """
    zone = getattr(array.dtype, "tz", None)
    unit = array.unit
    spec: Spec = {"kind": "datetime", "dtype": str(array.dtype), "unit": unit}
    if zone is not None:
        spec["zone"] = pack_zone(zone, where)
    exact = pa.timestamp(unit, tz=arrow_zone(zone) if zone is not None else None)
    stored = _stored_timestamp(exact)
    return ColumnPlan(spec, stored, lambda a, b: _ints(array[a:b].asi8).view(exact).cast(stored), where)


def restore_datetime(spec: Spec, column: Any) -> Any:
    """timestamp -> DatetimeArray."""
    unit = _unit(spec)
    zone = unpack_zone(spec["zone"]) if "zone" in spec else None
    exact = pa.timestamp(unit, tz=arrow_zone(zone) if zone is not None else None)
    expect(column, _stored_timestamp(exact))
    array = _from_ints(column.cast(exact), f"M8[{unit}]")
    return array if zone is None else array.tz_localize("UTC").tz_convert(zone)


def plan_timedelta(array: Any, where: str) -> ColumnPlan:
    """timedelta64[unit] -> duration(unit); NaT -> null."""
    spec: Spec = {"kind": "timedelta", "dtype": str(array.dtype), "unit": array.unit}
    stored = pa.duration(array.unit)
    return ColumnPlan(spec, stored, lambda a, b: _ints(array[a:b].asi8).view(stored), where)


def restore_timedelta(spec: Spec, column: Any) -> Any:
    """duration -> TimedeltaArray."""
    unit = _unit(spec)
    return _from_ints(expect(column, pa.duration(unit)), f"m8[{unit}]")


def plan_period(array: Any, where: str) -> ColumnPlan:
    """Period -> int64 ordinal (periods of that frequency since 1970); NaT -> null."""
    spec: Spec = {"kind": "period", "dtype": str(array.dtype)}
    if pd.api.types.pandas_dtype(str(array.dtype)) != array.dtype:
        raise refuse(where, "its frequency has no name that leads back to it")
    return ColumnPlan(spec, pa.int64(), lambda a, b: _ints(array[a:b].asi8), where)


def restore_period(spec: Spec, column: Any) -> Any:
    """int64 ordinal -> PeriodArray."""
    dtype = pd.api.types.pandas_dtype(get(spec, "dtype", str))
    if not isinstance(dtype, pd.PeriodDtype):
        raise ValueError(f"{dtype} is not a period dtype")
    ordinals = fill(expect(column, pa.int64()), np.int64, NAT)
    return pd.arrays.PeriodArray(ordinals, dtype=dtype)


def _stored_timestamp(exact: Any) -> Any:
    return pa.timestamp("ms", exact.tz) if exact.unit == "s" else exact


def _unit(spec: Spec) -> str:
    unit = get(spec, "unit", str)
    if unit not in _UNITS:
        raise ValueError(f"{unit!r} is not a unit of time")
    return str(unit)


def _ints(values: Any) -> Any:
    return pa.array(values, pa.int64(), mask=values == NAT)


def _from_ints(column: Any, dtype: str) -> Any:
    ints = pa.chunked_array([chunk.view(pa.int64()) for chunk in column.chunks], pa.int64())
    return pd.array(fill(ints, np.int64, NAT).view(dtype), dtype=dtype, copy=False)
