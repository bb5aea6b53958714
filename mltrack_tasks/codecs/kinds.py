"""Which format a value takes, and roughly how large it is. Imports nothing heavy."""

from __future__ import annotations

import sys
from typing import Any

from mltrack_tasks.errors import InvalidInputError

_JSON_TYPES = (dict, list, str, int, float, bool, type(None))

_WALK_LIMIT = 10_000
"""Nodes of a JSON value that the estimate looks at; the others are taken to be like them."""

_SAMPLE = 100
"""Cells of an object column that are measured to guess the others."""

_HINTS = {
    "pandas.Series": "use .to_frame()",
    "pandas.Index": "use .to_frame(index=False)",
    "pandas.DataFrame": "a subclass does not come back as itself: use pd.DataFrame(x)",
    "numpy.MaskedArray": "use .filled(value), and store the mask as an array of its own",
    "numpy.ndarray": "a subclass does not come back as itself: use np.asarray(x)",
    "numpy.generic": "use .item()",
    "builtins.bytearray": "use bytes(x)",
    "builtins.memoryview": "use bytes(x)",
    "builtins.tuple": "use list(x)",
    "builtins.set": "use sorted(x)",
    "builtins.frozenset": "use sorted(x)",
    "pathlib.PurePath": "use store_file for the contents of a file",
    "_io._IOBase": "use store_file for the contents of a file",
}

_FALLBACK = (
    "build it from dict, list, str, int, float, bool, None, bytes, numpy arrays or data frames, "
    "or save it to a file and use store_file"
)


def format_of(value: Any) -> str:
    """Name the format that ``value`` is stored in: parquet, npy, json or bin.

    Decides by exact type, because a subclass would come back as its base. Raises InvalidInputError
    with a way out for everything else.
    """
    kind = type(value)
    if kind in _JSON_TYPES:
        return "json"
    if kind is bytes:
        return "bin"
    if kind is _loaded("pandas", "DataFrame"):
        return "parquet"
    if kind is _loaded("numpy", "ndarray"):
        return "npy"
    raise refused(value, "value")


def refused(value: Any, what: str) -> InvalidInputError:
    """Build the error for a type that has no format."""
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return InvalidInputError(f"{what} is a {name}, which cannot be stored exactly: {_hint(kind)}.")


def estimate_size(value: Any) -> int:
    """Estimate the memory that ``value`` takes [bytes]: cheap and rough, for choosing a way.

    Raises InvalidInputError for a type that has no format.
    """
    form = format_of(value)
    if form == "parquet":
        return _frame_size(value)
    if form == "npy":
        return int(value.nbytes)
    return len(value) if form == "bin" else _json_size(value)


def _loaded(module: str, name: str) -> Any:
    # A value of that type cannot exist before its module was imported by someone.
    return getattr(sys.modules.get(module), name, refused)


def _hint(kind: type) -> str:
    for base in kind.__mro__:
        hint = _HINTS.get(f"{base.__module__.partition('.')[0]}.{base.__name__}")
        if hint:
            return hint
    return "use .to_pandas()" if hasattr(kind, "to_pandas") else _FALLBACK


def _frame_size(frame: Any) -> int:
    flat = int(frame.memory_usage(deep=False).sum())
    objects = (frame.iloc[:_SAMPLE, i] for i, dtype in enumerate(frame.dtypes) if dtype.kind == "O")
    sampled = sum(sum(map(_cell_size, column)) for column in objects)
    return flat + sampled * len(frame) // max(1, min(_SAMPLE, len(frame)))


def _cell_size(cell: Any) -> int:
    size = getattr(cell, "nbytes", None)
    return size if isinstance(size, int) else _json_size(cell)


def _json_size(value: Any) -> int:
    size, seen, left = 0, 0, [value]
    while left and seen < _WALK_LIMIT:
        node = left.pop()
        size += sys.getsizeof(node)
        seen += 1
        if isinstance(node, dict):
            left.extend(node.keys())
            left.extend(node.values())
        elif isinstance(node, list):
            left.extend(node)
    return size * (seen + len(left)) // seen
