"""Columns made of other columns: Categorical (of its categories), Interval (left and right).

Importing this module enters them into the table of codecs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mltrack_tasks.codecs.column import ColumnPlan, fill, refuse
from mltrack_tasks.codecs.columns import add_codec, plan_column, restore_column
from mltrack_tasks.codecs.index import pack_index, unpack_index
from mltrack_tasks.codecs.spec import Spec, get


def plan_categorical(array: Any, where: str) -> ColumnPlan:
    """Categorical -> its values; the spec holds all categories in their order, used or not.

    Categories that Arrow cannot look up (intervals, halffloats) are written as their text, so that
    SQL sees ``(18, 30]``; the spec lists the texts.
    """
    categories = array.categories
    values, texts = _values(categories, f"{where}, its categories")
    spec: Spec = {
        "kind": "categorical",
        "dtype": "category",
        "ordered": bool(array.ordered),
        "categories": pack_index(categories, f"{where}, its categories"),
    }
    if texts is not None:
        if len(set(texts)) < len(texts):
            raise refuse(where, "two of its categories have the same text")
        spec["texts"] = texts

    def convert(start: int, stop: int) -> Any:
        codes = np.asarray(array.codes[start:stop])
        return values.take(pa.array(codes, mask=codes == -1))

    return ColumnPlan(spec, values.type, convert, where)


def restore_categorical(spec: Spec, column: Any) -> Any:
    """Values -> Categorical. Raises ValueError when a value is none of the categories."""
    categories = unpack_index(spec.get("categories"))
    values, _ = _values(categories, "the categories") if "texts" not in spec else (None, None)
    if values is None:
        values = pa.array(get(spec, "texts", list), pa.large_string())
    if column.type != values.type or len(values) != len(categories):
        raise ValueError("a categorical column and its categories do not fit together")
    codes = pc.index_in(column, value_set=values)
    if codes.null_count != column.null_count:
        raise ValueError("a categorical column has a value that is none of its categories")
    dtype = pd.CategoricalDtype(categories, ordered=get(spec, "ordered", bool))
    return pd.Categorical.from_codes(fill(codes, np.int32, -1), dtype=dtype)


def plan_interval(array: Any, where: str) -> ColumnPlan:
    """Interval -> struct(left, right); missing -> null."""
    left = plan_column(array.left.array, f"{where}, left")
    right = plan_column(array.right.array, f"{where}, right")
    spec: Spec = {
        "kind": "interval",
        "dtype": str(array.dtype),
        "closed": array.closed,
        "sides": left.spec,
    }
    if left.spec != right.spec:
        raise refuse(where, "its left and right sides have different dtypes")

    def convert(start: int, stop: int) -> Any:
        sides = [left.slice(start, stop), right.slice(start, stop)]
        missing = pa.array(np.asarray(array[start:stop].isna()))
        return pa.StructArray.from_arrays(sides, names=["left", "right"], mask=missing)

    return ColumnPlan(spec, pa.struct([("left", left.type), ("right", right.type)]), convert, where)


def restore_interval(spec: Spec, column: Any) -> Any:
    """struct(left, right) -> IntervalArray."""
    if not _is_pair(column.type):
        raise ValueError(f"intervals cannot be stored as {column.type}")
    left, right = (restore_column(get(spec, "sides", dict), side) for side in column.flatten())
    return pd.arrays.IntervalArray.from_arrays(left, right, closed=get(spec, "closed", str))


def _is_pair(exact: Any) -> bool:
    if not pa.types.is_struct(exact) or exact.num_fields != 2:
        return False
    return [exact.field(0).name, exact.field(1).name] == ["left", "right"]


def _values(categories: Any, where: str) -> tuple[Any, list[str] | None]:
    """Give one arrow value per category, and their texts when those stand for the values."""
    plan = plan_column(categories.array, where)
    if _is_searchable(plan.type):
        return plan.slice(0, len(categories)), None
    texts = [str(category) for category in categories]
    return pa.array(texts, pa.large_string()), texts


def _is_searchable(exact: Any) -> bool:
    nested = pa.types.is_nested(exact) or pa.types.is_float16(exact)
    return not nested


add_codec(pd.CategoricalDtype, "categorical", plan_categorical, restore_categorical)
add_codec(pd.IntervalDtype, "interval", plan_interval, restore_interval)
