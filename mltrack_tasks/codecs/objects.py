"""Object columns: Python cells of one type, with at most one kind of missing value.

The whole column is scanned once for the types of its cells; that chooses one family. Then rows are
converted and compared with what decoding gives, so nothing that a conversion loses can pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mltrack_tasks.codecs.cells import EQUAL_IS_SAME, FAMILIES, Chosen, Family, same
from mltrack_tasks.codecs.column import ColumnPlan, refuse
from mltrack_tasks.codecs.parquet import ROW_GROUP_ROWS
from mltrack_tasks.codecs.spec import Spec, get

_MARKERS: dict[str, Any] = {"None": None, "nan": np.nan, "NaT": pd.NaT, "NA": pd.NA}
_MARKER_TYPES = {type(None): "None", type(pd.NaT): "NaT", type(pd.NA): "NA"}

_SHOWN = 3


def plan_object(array: Any, where: str) -> ColumnPlan:
    """Object column -> the arrow type of its cells; missing cells -> null, their kind in the spec.

    Raises InvalidInputError on cells of several types, several kinds of missing values, or other
    types.
    """
    cells = np.asarray(array)
    kinds, has_nan = _kinds(cells)
    missing = _missing(kinds, has_nan, where)
    family = _family(kinds, where)
    chosen = family.choose(lambda: _present(cells), where)
    spec: Spec = {"kind": "object", "dtype": "object", "cells": family.name, "missing": missing}
    if chosen.form is not None:
        spec["form"] = chosen.form
    return ColumnPlan(spec, chosen.type, _converter(cells, family, chosen), where)


def restore_object(spec: Spec, column: Any) -> Any:
    """Arrow array -> ndarray of Python objects."""
    family = FAMILIES[get(spec, "cells", str)]
    name = get(spec, "missing", str, type(None))
    if column.null_count and name is None:
        raise ValueError("an object column has nulls, but is described as complete")
    out = np.empty(len(column), dtype=object)
    position = 0
    for chunk in column.chunks:
        part = out[position : position + len(chunk)]
        part[:] = np.fromiter(family.restore(chunk, spec.get("form")), dtype=object, count=len(chunk))
        if chunk.null_count:
            part[chunk.is_null().to_numpy(zero_copy_only=False)] = _MARKERS[name]
        position += len(chunk)
    return out


def _converter(cells: Any, family: Family, chosen: Chosen) -> Callable[[int, int], Any]:
    form = chosen.form

    def convert(start: int, stop: int) -> Any:
        part = cells[start:stop].tolist()
        mask = [_is_missing(cell) for cell in part]
        values = [None if gone else cell for cell, gone in zip(part, mask, strict=True)]
        array = family.convert(values, chosen.type, form)
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        back = list(family.restore(array, form))
        # Types are known to be equal by the scan; where == is also strict about values, C compares.
        kept = values == back if family.cell in EQUAL_IS_SAME else same(values, back)
        if array.null_count != sum(mask) or not kept:
            raise ValueError(_first_difference(values, back, start))
        return array

    return convert


def _kinds(cells: Any) -> tuple[set[type], bool]:
    """Collect the exact types of all cells but missing floats, and tell whether there are such."""
    kinds: set[type] = set()
    has_nan = False
    for start in range(0, len(cells), ROW_GROUP_ROWS):
        part = cells[start : start + ROW_GROUP_ROWS].tolist()
        found = set(map(type, part))
        if float in found:
            nan = [cell != cell for cell in part if type(cell) is float]
            has_nan = has_nan or any(nan)
            if all(nan):
                found.discard(float)
        kinds |= found
    return kinds, has_nan


def _missing(kinds: set[type], has_nan: bool, where: str) -> str | None:
    names = sorted(
        {_MARKER_TYPES[kind] for kind in kinds if kind in _MARKER_TYPES} | ({"nan"} if has_nan else set())
    )
    if len(names) > 1:
        raise refuse(where, f"it mixes the missing values {' and '.join(names)}; replace them by one of them")
    return names[0] if names else None


def _family(kinds: set[type], where: str) -> Family:
    found = sorted(kinds - set(_MARKER_TYPES), key=lambda kind: kind.__name__)
    names = [
        kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
        for kind in found
    ]
    if len(found) > 1:
        shown = ", ".join(names[:_SHOWN])
        raise refuse(where, f"it mixes cells of the types {shown}; convert them to one type")
    if not found:
        return FAMILIES["null"]
    for family in FAMILIES.values():
        if family.cell is found[0]:
            return family
    raise refuse(where, f"its cells are of the type {names[0]}; {_hint(found[0])}")


def _hint(kind: type) -> str:
    if issubclass(kind, (np.generic, pd.Timestamp, pd.Timedelta, pd.Period, pd.Interval)):
        return "use infer_objects() or astype to give the column a dtype of its own"
    if issubclass(kind, (tuple, set, frozenset)):
        return "use lists"
    return "convert them to str, numbers, dates, bytes, lists, dicts or numeric arrays"


def _present(cells: Any) -> Iterator[Any]:
    for start in range(0, len(cells), ROW_GROUP_ROWS):
        for cell in cells[start : start + ROW_GROUP_ROWS].tolist():
            if not _is_missing(cell):
                yield cell


def _is_missing(cell: Any) -> bool:
    kind = type(cell)
    return kind in _MARKER_TYPES or (kind is float and cell != cell)


def _first_difference(values: list[Any], back: list[Any], start: int) -> str:
    pairs = enumerate(zip(values, back, strict=True), start)
    row, (given, kept) = next(
        (pair for pair in pairs if not same([pair[1][0]], [pair[1][1]])), (start, (None, None))
    )
    return f"row {row} is {repr(given)[:80]} and would come back as {repr(kept)[:80]}"
