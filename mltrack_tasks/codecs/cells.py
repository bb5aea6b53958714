"""Families of object cells: the Python type, its arrow type, and both directions between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from mltrack_tasks import canonical
from mltrack_tasks.codecs.column import refuse

_INT64 = (-(2**63), 2**63 - 1)
_UINT64_MAX = 2**64 - 1
_MAX_NESTING = 16
"""Levels of lists and structs written as Parquet types; deeper values are kept as JSON text."""


@dataclass(frozen=True)
class Chosen:
    """The arrow type for a whole column; ``form`` says when the cells are stored in another way."""

    type: Any
    form: str | None = None


@dataclass(frozen=True)
class Family:
    """Cells of exactly one Python type.

    ``choose`` sees all present cells, ``convert`` a part with None.
    """

    name: str
    cell: type
    choose: Callable[[Callable[[], Iterator[Any]], str], Chosen]
    convert: Callable[[list[Any], Any, str | None], Any]
    restore: Callable[[Any, str | None], Iterable[Any]]


def same(left: Any, right: Any) -> bool:
    """Compare cells strictly: types, values, NaN equal to NaN, sign of zero, digits of decimals."""
    kind = type(left)
    if kind is not type(right):
        return False
    if kind is list:
        return len(left) == len(right) and all(map(same, left, right))
    if kind is dict:
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if kind is np.ndarray:
        alike = left.dtype == right.dtype and left.shape == right.shape
        return bool(alike and left.tobytes() == right.tobytes())
    if kind is float:
        return bool(left != left and right != right) or (left == right and str(left) == str(right))
    if kind is Decimal:
        return bool(left.as_tuple() == right.as_tuple())
    if kind in (datetime, time):
        return bool(left == right and left.fold == right.fold and left.tzinfo is right.tzinfo)
    return bool(left == right)


def _always(type: Any) -> Callable[[Callable[[], Iterator[Any]], str], Chosen]:
    return lambda cells, where: Chosen(type)


def _to_arrow(values: list[Any], type: Any, form: str | None) -> Any:
    return pa.array(values, type, from_pandas=False)


def _to_python(array: Any, form: str | None) -> Iterable[Any]:
    cells: list[Any] = array.to_pylist()
    return cells


def _choose_int(cells: Callable[[], Iterator[Any]], where: str) -> Chosen:
    low, high = _bounds(cells())
    if _INT64[0] <= low and high <= _INT64[1]:
        return Chosen(pa.int64())
    if low >= 0 and high <= _UINT64_MAX:
        return Chosen(pa.uint64())
    raise refuse(where, "it holds integers beyond 64 bits; use str, Decimal or float")


def _bounds(numbers: Iterable[int]) -> tuple[int, int]:
    low = high = 0
    for number in numbers:
        low, high = min(low, number), max(high, number)
    return low, high


def _choose_decimal(cells: Callable[[], Iterator[Any]], where: str) -> Chosen:
    """decimal(precision, scale) when all cells have as many digits after the point, else text."""
    digits, exponents = 1, set()
    for cell in cells():
        sign, figures, exponent = cell.as_tuple()
        if not isinstance(exponent, int) or exponent > 0 or (sign and not any(figures)):
            return Chosen(pa.large_string(), "text")
        exponents.add(exponent)
        digits = max(digits, len(figures), -exponent)
    if len(exponents) > 1 or digits > 76:
        return Chosen(pa.large_string(), "text")
    scale = -exponents.pop() if exponents else 0
    return Chosen(pa.decimal128(digits, scale) if digits <= 38 else pa.decimal256(digits, scale))


def _decimal_to_arrow(values: list[Any], type: Any, form: str | None) -> Any:
    if form == "text":
        values = [None if value is None else str(value) for value in values]
    return pa.array(values, type)


def _decimal_to_python(array: Any, form: str | None) -> Iterable[Any]:
    if form == "text":
        return [None if text is None else Decimal(text) for text in array.to_pylist()]
    return _to_python(array, form)


def _choose_nested(cells: Callable[[], Iterator[Any]], where: str) -> Chosen:
    """Nested Parquet types when every level has one type, else JSON text."""
    exact = infer(cells(), 0)
    return Chosen(pa.large_string(), "json") if exact is None else Chosen(exact)


def _nested_to_arrow(values: list[Any], type: Any, form: str | None) -> Any:
    if form == "json":
        values = [None if v is None else canonical.dumps_value(v, what="a cell").decode() for v in values]
    return pa.array(values, type, from_pandas=False)


def _nested_to_python(array: Any, form: str | None) -> Iterable[Any]:
    if form == "json":
        return [
            None if t is None else canonical.loads_value(t.encode(), what="a cell") for t in array.to_pylist()
        ]
    return _to_python(array, form)


def infer(values: Iterable[Any], depth: int) -> Any:
    """Find the one arrow type of nested Python values, or None when a level mixes types.

    Dicts become structs with sorted fields and need the same keys everywhere, because a struct
    cannot tell an absent key from None.
    """
    present = [value for value in values if value is not None]
    kinds = set(map(type, present))
    if not kinds:
        return pa.null()
    kind = kinds.pop()
    if kinds or depth > _MAX_NESTING:
        return None
    if kind is list:
        inner = infer(chain.from_iterable(present), depth + 1)
        return None if inner is None else pa.list_(inner)
    if kind is dict:
        return _infer_struct(present, depth)
    if kind is int:
        low, high = _bounds(present)
        return pa.int64() if _INT64[0] <= low and high <= _INT64[1] else None
    return _LEAVES.get(kind)


def _infer_struct(dicts: list[dict[Any, Any]], depth: int) -> Any:
    keys = dicts[0].keys()
    if not keys or any(type(key) is not str for key in keys) or any(d.keys() != keys for d in dicts):
        return None
    fields = [(key, infer((d[key] for d in dicts), depth + 1)) for key in sorted(keys)]
    return None if any(exact is None for _, exact in fields) else pa.struct(fields)


def _choose_array(cells: Callable[[], Iterator[Any]], where: str) -> Chosen:
    forms = {(cell.dtype, cell.ndim) for cell in cells()}
    if len(forms) > 1 or any(ndim != 1 for _, ndim in forms):
        raise refuse(
            where,
            "its arrays differ in dtype or are not one-dimensional; store them as one ndarray",
        )
    dtype = next(iter(forms))[0]
    if dtype.kind not in "biuf" or dtype.itemsize > 8 or not dtype.isnative:
        raise refuse(where, f"its arrays have the dtype {dtype}; use native numbers of at most 64 bits")
    return Chosen(pa.list_(pa.from_numpy_dtype(dtype)), str(dtype))


def _array_to_arrow(values: list[Any], type: Any, form: str | None) -> Any:
    present = [value for value in values if value is not None]
    flat = np.concatenate(present) if present else np.empty(0, dtype=form)
    lengths = np.array([0 if value is None else len(value) for value in values], dtype=np.int64)
    if lengths.sum() > np.iinfo(np.int32).max:
        raise OverflowError("more than 2**31 numbers in one row group")
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    mask = pa.array([value is None for value in values], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, type.value_type), mask=mask)


def _array_to_python(array: Any, form: str | None) -> Iterable[Any]:
    flat = array.flatten()
    if flat.null_count or flat.type != pa.from_numpy_dtype(np.dtype(form)):
        raise ValueError("an array cell does not hold plain numbers of the described dtype")
    lengths = array.value_lengths()
    ends = np.cumsum(lengths.fill_null(0).to_numpy(zero_copy_only=False), dtype=np.int64).tolist()
    values = flat.to_numpy(zero_copy_only=False).copy()
    starts = [0, *ends[:-1]]
    valid = array.is_valid().to_pylist()
    return (values[a:b] if there else None for a, b, there in zip(starts, ends, valid, strict=True))


_SCALARS: dict[type, Any] = {
    str: pa.large_string(),
    bytes: pa.large_binary(),
    bool: pa.bool_(),
    float: pa.float64(),
    date: pa.date32(),
    time: pa.time64("us"),
    datetime: pa.timestamp("us"),
    timedelta: pa.duration("us"),
}
EQUAL_IS_SAME = frozenset({str, bytes, bool, int, date})
"""Types whose equal cells cannot be told apart (unlike -0.0, NaN, Decimals 1.0 and 1.00)."""

_LEAVES: dict[type, Any] = {kind: _SCALARS[kind] for kind in (str, bool, float, bytes, date)}

FAMILIES: dict[str, Family] = {
    "null": Family("null", type(None), _always(pa.null()), _to_arrow, _to_python),
    "int": Family("int", int, _choose_int, _to_arrow, _to_python),
    "Decimal": Family("Decimal", Decimal, _choose_decimal, _decimal_to_arrow, _decimal_to_python),
    "list": Family("list", list, _choose_nested, _nested_to_arrow, _nested_to_python),
    "dict": Family("dict", dict, _choose_nested, _nested_to_arrow, _nested_to_python),
    "ndarray": Family("ndarray", np.ndarray, _choose_array, _array_to_arrow, _array_to_python),
} | {
    kind.__name__: Family(kind.__name__, kind, _always(exact), _to_arrow, _to_python)
    for kind, exact in _SCALARS.items()
}
