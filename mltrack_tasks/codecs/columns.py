"""Columns of every dtype <-> arrow arrays: the table of codecs, and the guard over all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mltrack_tasks.codecs import objects, plain, temporal
from mltrack_tasks.codecs.column import ColumnPlan, refuse
from mltrack_tasks.codecs.spec import get


def plan_column(array: Any, where: str) -> ColumnPlan:
    """Plan how a pandas array is written.

    Raises InvalidInputError naming ``where`` and the dtype.
    """
    # By exact type: pandas' own string array is a subclass.
    if type(array) is pd.arrays.NumpyExtensionArray:
        array = array.to_numpy()
    dtype = array.dtype
    where = f"{where} (dtype {dtype})"
    plan: ColumnPlan = _planner(dtype, where)(array, where)
    try:
        back = restore_column(plan.spec, pa.chunked_array([], plan.type)).dtype
    except (ValueError, TypeError) as error:
        raise refuse(where, f"its dtype would not come back ({error})") from error
    if not same_dtype(back, dtype):
        raise refuse(where, f"its dtype would come back as {back}")
    return plan


def restore_column(spec: Any, column: Any) -> Any:
    """Rebuild a pandas array (or ndarray) from its description and a chunked arrow array."""
    kind = get(spec, "kind", str)
    if kind not in _RESTORE:
        raise ValueError(f"{kind!r} is not a kind of column")
    return _RESTORE[kind](spec, column)


def add_codec(dtype: type, kind: str, plan: Any, restore: Any) -> None:
    """Enter a codec into the table: for columns made of columns, whose module stands on this one."""
    _EXTENSION[dtype] = plan
    _RESTORE[kind] = restore


def same_dtype(left: Any, right: Any) -> bool:
    """Compare dtypes strictly: also their text, because some dtypes equal what only looks alike."""
    return type(left) is type(right) and bool(left == right) and str(left) == str(right)


def _planner(dtype: Any, where: str) -> Any:
    if isinstance(dtype, np.dtype):
        return _NUMPY.get(dtype.kind, plain.plan_number)
    if plain.is_masked(dtype):
        return plain.plan_masked
    if type(dtype) not in _EXTENSION:
        hint = (
            "use .sparse.to_dense()" if type(dtype) is pd.SparseDtype else "use astype with a dtype of pandas"
        )
        raise refuse(where, f"the dtype of type {type(dtype).__name__} has no codec; {hint}")
    return _EXTENSION[type(dtype)]


_NUMPY = {"O": objects.plan_object, "M": temporal.plan_datetime, "m": temporal.plan_timedelta}

_EXTENSION: dict[type, Any] = {
    pd.DatetimeTZDtype: temporal.plan_datetime,
    pd.PeriodDtype: temporal.plan_period,
    pd.StringDtype: plain.plan_string,
    pd.ArrowDtype: plain.plan_arrow,
}

_RESTORE: dict[str, Any] = {
    "number": plain.restore_number,
    "masked": plain.restore_masked,
    "string": plain.restore_string,
    "arrow": plain.restore_arrow,
    "datetime": temporal.restore_datetime,
    "timedelta": temporal.restore_timedelta,
    "period": temporal.restore_period,
    "object": objects.restore_object,
}
