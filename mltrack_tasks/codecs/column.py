"""The plan of one column: how its values become an arrow array, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mltrack_tasks.codecs.spec import Spec
from mltrack_tasks.errors import InvalidInputError

NAT = np.iinfo(np.int64).min
"""The integer that numpy and pandas store for NaT."""


@dataclass(frozen=True)
class ColumnPlan:
    """``convert(start, stop)`` gives rows as an arrow array of ``type``; ``spec`` leads back.

    ``where`` names the column and its dtype in errors.
    """

    spec: Spec
    type: Any
    convert: Callable[[int, int], Any]
    where: str

    def slice(self, start: int, stop: int) -> Any:
        """Convert rows -> one arrow array without chunks or offset. Raises InvalidInputError."""
        try:
            array = self.convert(start, stop)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise refuse(self.where, str(error).rstrip(".")) from error
        return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def refuse(where: str, reason: str) -> InvalidInputError:
    """Build the refusal of one column."""
    return InvalidInputError(f"{where} cannot be stored exactly: {reason}.")


def fill(column: Any, dtype: Any, null: Any = None) -> Any:
    """Copy a chunked array -> new writable ndarray; nulls become ``null``, by default NaN."""
    out = np.empty(len(column), dtype=dtype)
    position = 0
    for chunk in column.chunks:
        if chunk.null_count and null is not None:
            chunk = chunk.fill_null(null)
        out[position : position + len(chunk)] = chunk.to_numpy(zero_copy_only=False)
        position += len(chunk)
    return out


def no_nulls(column: Any) -> Any:
    """Give the column back, or raise ValueError: its dtype has no place for a missing value."""
    if column.null_count:
        raise ValueError(f"a column of type {column.type} has nulls, but its dtype has none")
    return column


def expect(column: Any, type: Any) -> Any:
    """Give the column back, or raise ValueError when the stored type is not the one described."""
    if column.type != type:
        raise ValueError(f"a column is stored as {column.type}, but described as {type}")
    return column
