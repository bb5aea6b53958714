"""Room for the pages of a query: column chunks are weighed as they come, before pyarrow unpacks them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mltrack_tasks.codecs.pages import Chunk, chunks_of, require_room, weigh
from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.memory import free_memory
from mltrack_tasks.tables.rangefile import RangeFile, Ranges

BATCH_ROWS = 131_072
"""Rows that pyarrow unpacks at once for a scan."""
LESS_MEMORY = (
    "Select fewer columns, filter or aggregate in SQL, or query where there is more memory: nothing is "
    "spilled to disk."
)


class PageRoom:
    """Weighs the column chunks of a file that a read brings. pyarrow reads each in one piece."""

    def __init__(self, metadata: Any, ranges: Ranges) -> None:
        self._chunks = sorted(chunks_of(metadata), key=lambda chunk: chunk.start)
        self._starts = [chunk.start for chunk in self._chunks]
        self._ranges = ranges

    def judge(self, start: int, body: memoryview) -> None:
        """Raise InvalidInputError if chunks take more than half of the memory that is free: others read too.

        Raises IntegrityError for pages that the footer does not describe.
        """
        what = self._ranges.what
        try:
            weighed = [
                (chunk, weigh(chunk, body[chunk.start - start :][: chunk.length], BATCH_ROWS))
                for chunk in self._within(start, start + len(body))
            ]
        except ValueError as error:
            raise IntegrityError(
                f"{what} is damaged or forged: {error}. Store the same data again to replace it, or restore "
                "it from a replica or an older object version."
            ) from error
        try:
            require_room(
                weighed, lambda paths: self._with_dictionaries(paths, start, body), free_memory() // 2
            )
        except ValueError as error:
            raise InvalidInputError(f"{what} cannot be read here: {error}. {LESS_MEMORY}") from error

    def _within(self, start: int, end: int) -> list[Chunk]:
        first, last = bisect_left(self._starts, start), bisect_left(self._starts, end)
        return [chunk for chunk in self._chunks[first:last] if chunk.start + chunk.length <= end]

    def _with_dictionaries(self, paths: Sequence[str], start: int, body: memoryview) -> Any:
        file: Any = RangeFile(_Known(self._ranges, start, body))
        return pq.ParquetFile(pa.PythonFile(file, mode="r"), read_dictionary=list(paths))


class _Known(Ranges):
    """Ranges of which one was fetched already."""

    def __init__(self, ranges: Ranges, start: int, body: memoryview) -> None:
        super().__init__(ranges.read_unjudged, ranges.size, ranges.what)
        self._others, self._known_from, self._known = ranges, start, body

    def read_unjudged(self, start: int, length: int) -> bytes | memoryview:
        begin = start - self._known_from
        if begin >= 0 and begin + length <= len(self._known):
            return self._known[begin : begin + length]
        return self._others.read_unjudged(start, length)
