"""Cells: a user's JSON value, exactly, as one struct of a fixed Arrow type, whatever its kind.

====== ===================================== =========================
kind   held in                               example
====== ===================================== =========================
null   nothing
bool   ``whole``: 0 or 1                     ``true``: 1
int    ``whole``; beyond int64, ``text``     ``10``
float  ``number``, also NaN and infinities   ``0.5``
str    ``text``, verbatim                    ``gbtree``
list   ``text``: exact JSON (format.md)      ``[1,{"$f":"nan"}]``
dict   ``text``: exact JSON                  ``{"f1":0.5}``
====== ===================================== =========================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mltrack_tasks import canonical
from mltrack_tasks.errors import IntegrityError

KINDS = ("null", "bool", "int", "float", "str", "list", "dict")
NULL, BOOL, INT, FLOAT, STR, LIST, DICT = range(len(KINDS))
FIELDS = (
    pa.field("kind", pa.string(), nullable=False),
    pa.field("whole", pa.int64()),
    pa.field("number", pa.float64()),
    pa.field("text", pa.large_string()),
)
TYPE = pa.struct(FIELDS)

_KIND_OF = dict(zip((type(None), bool, int, float, str, list, dict), KINDS, strict=True))
_INT64 = range(-(2**63), 2**63)


def cells_of(values: Sequence[Any]) -> Any:
    """Put JSON values into cells -> StructArray of TYPE. InvalidInputError for what is no JSON value."""
    kinds = [_KIND_OF[type(value)] for value in values]
    whole = [int(v) if type(v) in (int, bool) and v in _INT64 else None for v in values]
    number = [v if type(v) is float else None for v in values]
    text = [v if type(v) is str else _text(v) for v in values]
    columns = zip((kinds, whole, number, text), FIELDS, strict=True)
    return pa.StructArray.from_arrays([pa.array(each, field.type) for each, field in columns], fields=FIELDS)


def text_cells(texts: Any) -> Any:
    """Put an array of strings into cells."""
    size = len(texts)
    arrays = [pa.repeat("str", size), pa.nulls(size, pa.int64()), pa.nulls(size, pa.float64())]
    return pa.StructArray.from_arrays([*arrays, texts.cast(pa.large_string())], fields=FIELDS)


def values_of(cells: Any, what: str) -> list[Any]:
    """Take the values out of cells. IntegrityError naming ``what`` if a text is not what its kind says."""
    parts = zip(*(cells.field(field.name).to_pylist() for field in FIELDS), strict=True)
    return [_value(kind, whole, number, text, what) for kind, whole, number, text in parts]


def kind_codes(cells: Any) -> Any:
    """Number the kinds of cells as KINDS does -> int8 ndarray; -1 for a kind that is not known."""
    codes = pc.index_in(cells.field("kind"), value_set=pa.array(KINDS))
    return codes.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int8)


def check_cells(cells: Any, what: str) -> None:
    """Check that each cell holds just what its kind says; IntegrityError naming ``what`` otherwise.

    What a text says is checked when it is read.
    """
    codes = kind_codes(cells)
    held = {name: _held(cells, name) for name in ("whole", "number", "text")}
    as_text, is_int = np.isin(codes, (STR, LIST, DICT)), codes == INT
    right = (
        (codes >= 0)
        & (held["number"] == (codes == FLOAT))
        & (held["whole"] == ((codes == BOOL) | (is_int & ~held["text"])))
        & (held["text"] == (as_text | (is_int & ~held["whole"])))
    )
    bools = cells.field("whole").fill_null(0).to_numpy()[codes == BOOL]
    if not right.all() or not np.isin(bools, (0, 1)).all():
        raise IntegrityError(f"{what} has values that are not of their kind; rebuild the catalogue.")


def plain_text(value: Any) -> str:
    """Write a value as SQL users read it: a string as it is, all else as plain JSON.

    JSON has no NaN and no infinities; they become the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``,
    which protobuf's JSON mapping chose and SQL casts back to numbers.
    """
    return value if isinstance(value, str) else canonical.dumps(_plain(value)).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float) and value - value != 0:
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return value


def _text(value: Any) -> str | None:
    if isinstance(value, (list, dict)):
        return canonical.dumps_value(value).decode()
    return str(value) if type(value) is int and value not in _INT64 else None


def _value(kind: str, whole: int | None, number: float | None, text: str | None, what: str) -> Any:
    if kind in ("list", "dict") or (kind == "int" and whole is None):
        value = canonical.loads_value((text or "").encode(), what=f"{what}: {kind}")
        if _KIND_OF.get(type(value)) != kind:
            raise IntegrityError(f"{what} says {kind} and holds {text!r:.80}; this library did not write it.")
        return value
    if kind == "bool":
        return whole == 1
    return number if kind == "float" else text if kind == "str" else whole


def _held(cells: Any, name: str) -> Any:
    return cells.field(name).is_valid().to_numpy(zero_copy_only=False)
