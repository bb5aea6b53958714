"""Indexes: of rows (columns of the file, so that SQL sees them), of labels (JSON in the footer)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mltrack_tasks.codecs.column import ColumnPlan, refuse
from mltrack_tasks.codecs.columns import plan_column, restore_column, same_dtype
from mltrack_tasks.codecs.parquet import pack_array, unpack_array
from mltrack_tasks.codecs.spec import Spec, get, is_label, pack_label, unpack_label

_FLAT = {
    *(pd.Index, pd.DatetimeIndex, pd.TimedeltaIndex, pd.PeriodIndex),
    *(pd.IntervalIndex, pd.CategoricalIndex),
}


def plan_rows(index: Any, what: str) -> tuple[Spec, list[ColumnPlan]]:
    """Plan the row index: numbers for a RangeIndex, else one column per level."""
    if type(index) is pd.RangeIndex:
        return _pack_range(index, what), []
    if type(index) is pd.MultiIndex:
        plans = [_plan_level(index, i, what) for i in range(index.nlevels)]
        heads = [_flat_spec(_visible(index, i), what) for i in range(index.nlevels)]
        levels = [head | {"column": plan.spec} for head, plan in zip(heads, plans, strict=True)]
        for level, codes, spec in zip(index.levels, index.codes, levels, strict=True):
            if _is_idle(level, codes):
                spec["idle"] = pack_index(level, f"{what}: the index")
        return {"kind": "multi", "levels": levels}, plans
    plan = plan_column(index.array, f"{what}: the index")
    return _flat_spec(index, what) | {"column": plan.spec}, [plan]


def restore_rows(spec: Any, columns: list[Any], rows: int) -> Any:
    """Rebuild the row index from its description and its columns."""
    kind = get(spec, "kind", str)
    if kind == "multi":
        levels = [_restore_level(s, c) for s, c in zip(get(spec, "levels", list), columns, strict=True)]
        index = _multi(levels)
    elif kind == "range":
        index = _unpack_range(spec)
    else:
        (column,) = columns
        index = _flat(spec, restore_column(get(spec, "column", dict), column))
    if len(index) != rows:
        raise ValueError(f"the index has {len(index)} rows, the frame {rows}")
    return index


def pack_index(index: Any, where: str) -> Spec:
    """Pack labels or categories -> JSON, and prove it by unpacking. Raises InvalidInputError."""
    spec = _pack(index, where)
    back = unpack_index(spec)
    if type(back) is not type(index) or not same_dtype(back.dtype, index.dtype) or not back.identical(index):
        raise refuse(where, f"they would come back as {back!r}")
    return spec


def unpack_index(spec: Any) -> Any:
    """Unpack what ``pack_index`` gave."""
    kind = get(spec, "kind", str)
    if kind == "range":
        return _unpack_range(spec)
    if kind == "multi":
        levels = [unpack_index(level) for level in get(spec, "levels", list)]
        codes = [np.array(c, dtype=np.int64) for c in get(spec, "codes", list)]
        return _multi(list(zip(levels, codes, strict=True)))
    if "labels" in spec:
        labels = [unpack_label(label) for label in get(spec, "labels", list)]
        return _flat(spec, np.fromiter(labels, dtype=object, count=len(labels)))
    return _flat(spec, restore_column(get(spec, "column", dict), unpack_array(spec.get("values"))))


def _pack(index: Any, where: str) -> Spec:
    if type(index) is pd.RangeIndex:
        return _pack_range(index, where)
    if type(index) is pd.MultiIndex:
        return _pack_multi(index, where)
    spec = _flat_spec(index, where)
    if index.dtype == object and all(map(is_label, index)):
        return spec | {"labels": [pack_label(label, where) for label in index]}
    plan = plan_column(index.array, where)
    return spec | {"column": plan.spec, "values": pack_array(plan.slice(0, len(index)))}


def _pack_multi(index: Any, where: str) -> Spec:
    levels = [_canonical(index.levels[i], np.asarray(index.codes[i])) for i in range(index.nlevels)]
    return {
        "kind": "multi",
        "levels": [pack_index(level, where) for level, _ in levels],
        "codes": [codes.tolist() for _, codes in levels],
    }


def _pack_range(index: Any, where: str) -> Spec:
    name = pack_label(index.name, f"{where}: the name of the index")
    return {
        "kind": "range",
        "name": name,
        "start": index.start,
        "stop": index.stop,
        "step": index.step,
    }


def _unpack_range(spec: Spec) -> Any:
    start, stop, step = (get(spec, key, int) for key in ("start", "stop", "step"))
    return pd.RangeIndex(start, stop, step, name=unpack_label(spec["name"]))


def _flat_spec(index: Any, where: str) -> Spec:
    if type(index) not in _FLAT:
        raise refuse(where, f"an index of type {type(index).__name__} has no codec; use pd.Index(x)")
    spec: Spec = {"kind": "flat", "name": pack_label(index.name, f"{where}: the name of the index")}
    if getattr(index, "freq", None) is not None and not isinstance(index, pd.PeriodIndex):
        spec["freq"] = index.freq.freqstr
        if pd.tseries.frequencies.to_offset(spec["freq"]) != index.freq:
            raise refuse(
                where,
                f"its freq {index.freq!r} has no name that leads back to it; set index.freq = None",
            )
    return spec


def _flat(spec: Spec, values: Any) -> Any:
    get(spec, "kind", str)
    index = pd.Index(values, dtype=values.dtype, name=unpack_label(spec["name"]), tupleize_cols=False)
    if "freq" in spec:
        index.freq = get(spec, "freq", str)
    return index


def _plan_level(index: Any, number: int, what: str) -> ColumnPlan:
    """Plan one level by its values: how levels and codes make them up makes no difference."""
    where = f"{what}: index level {number} {index.names[number]!r}"
    level, codes = index.levels[number], np.asarray(index.codes[number])
    plan = plan_column(level.array, where)
    values = plan.slice(0, len(level))

    def convert(start: int, stop: int) -> Any:
        part = codes[start:stop]
        return values.take(pa.array(part, mask=part == -1))

    return ColumnPlan(plan.spec, plan.type, convert, plan.where)


def _visible(index: Any, number: int) -> Any:
    """Give an index with the name and the freq that a user sees on this level."""
    level = index.levels[number]
    timed = isinstance(level, (pd.DatetimeIndex, pd.TimedeltaIndex))
    return index.get_level_values(number) if timed else level[:0].rename(index.names[number])


def _is_idle(level: Any, codes: Any) -> bool:
    """Tell whether no row has a value of this object level.

    pandas then takes two indexes as different when their idle levels differ: what they hold is the
    only sign of their type. So such a level is kept as it is.
    """
    return bool(level.dtype == object and (np.asarray(codes) == -1).all())


def _restore_level(spec: Any, column: Any) -> tuple[Any, Any]:
    if "idle" in spec and column.null_count == len(column):
        return unpack_index(spec["idle"]), np.full(len(column), -1, dtype=np.int64)
    level = _flat(spec, restore_column(get(spec, "column", dict), column.drop_null()))
    codes = np.full(len(column), -1, dtype=np.int64)
    codes[column.is_valid().to_numpy()] = np.arange(len(level))
    return _canonical(level, codes)


def _canonical(level: Any, codes: Any) -> tuple[Any, Any]:
    """Drop unused entries of a level and sort it, as ``MultiIndex.from_arrays`` would."""
    if _is_idle(level, codes):
        return level, codes
    valid = codes != -1
    numbers, uniques = level.take(codes[valid]).factorize(sort=True)
    uniques = uniques.rename(level.name)
    fresh = np.full(len(codes), -1, dtype=np.int64)
    fresh[valid] = numbers
    return uniques, fresh


def _multi(levels: list[tuple[Any, Any]]) -> Any:
    return pd.MultiIndex(
        levels=[level for level, _ in levels],
        codes=[codes for _, codes in levels],
        names=[level.name for level, _ in levels],
    )
