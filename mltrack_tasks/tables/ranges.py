"""Range reads: a stored Parquet file as a dataset, of which a query fetches only what it needs.

DuckDB asks the dataset for columns and a filter; statistics in the footer rule out row groups, and only the
column chunks of the rest are fetched, each page checked against its checksum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from mltrack_tasks.codecs.pages import require_footer_room
from mltrack_tasks.codecs.parquet import checked_metadata
from mltrack_tasks.digest import MiB
from mltrack_tasks.errors import FormatError, IntegrityError, InvalidInputError, MLTrackError
from mltrack_tasks.memory import free_memory
from mltrack_tasks.tables.pageroom import LESS_MEMORY, PageRoom
from mltrack_tasks.tables.rangefile import RangeFile, Ranges, Read

HOLE = 64 * 1024
"""[bytes] Column chunks that are no further apart are fetched together, with what is between them."""
RANGE = 8 * MiB
"""[bytes] of one read, at most."""
SLICE = 32 * MiB
"""[bytes] of the file, about, that one stretch of row groups should not exceed: a stretch stays in memory."""
MOST_SLICES = 64
"""Each stretch reads the footer anew (from memory)."""


class BlobDataset(ds.FileSystemDataset):  # type: ignore[misc]
    """The rows of one Parquet file, fetched when they are scanned. DuckDB takes it for pyarrow's own.

    ``failure`` is the error of a scan that failed, for whoever sees only what DuckDB makes of it.
    """

    def __init__(self, read: Read, size: int, what: str, workers: int) -> None:
        self._ranges = Ranges(read, size, what)
        self._workers = workers
        self._error: Exception | None = None
        options = ds.ParquetFragmentScanOptions(
            pre_buffer=True,
            page_checksum_verification=True,
            cache_options=pa.CacheOptions(hole_size_limit=HOLE, range_size_limit=RANGE),
        )
        self._format = ds.ParquetFileFormat(default_fragment_scan_options=options)
        try:
            _check_footer(self._ranges)
            self._ranges.judge = PageRoom(checked_metadata(self._ranges.open(RangeFile)), self._ranges).judge
            self._whole = self._fragment(RangeFile(self._ranges))
            schema = _visible(self._whole.physical_schema, what)
        except Exception as error:
            raise self._explain(error) from error
        super().__init__([], schema, self._format)

    @property
    def failure(self) -> BaseException | None:
        """What went wrong while rows were read, or None."""
        if self._ranges.error is not None:
            return self._ranges.error
        return None if self._error is None else self._explain(self._error)

    def close(self) -> None:
        """End all reading. The dataset cannot be scanned afterwards."""
        self._ranges.close()

    def scanner(self, columns: Any = None, filter: Any = None, **options: Any) -> _Scan:
        """Plan a scan. The first row group that may match is read by itself, the others at the same time.

        So ``LIMIT`` and a look at a few rows do not fetch what they will not show.
        """
        whole = self._whole if filter is None else self._whole.subset(filter=filter, schema=self.schema)
        groups = [group.id for group in whole.row_groups]
        group_size = self._ranges.size // max(self._whole.num_row_groups, 1)
        first, *rest = stretches(groups, group_size, self._workers) or [[]]
        wanted = {"columns": columns, "filter": filter, "fragment_readahead": self._workers, **options}
        start = self._part([first]).scanner(**wanted)
        return _Scan(start.projected_schema, self._batches(start, rest, wanted))

    def _batches(self, start: Any, rest: list[list[int]], wanted: dict[str, Any]) -> Iterator[Any]:
        try:
            yield from start.to_reader()
            del start
            if rest:
                yield from self._part(rest).scanner(**wanted).to_reader()
        except Exception as error:
            self._error = error.with_traceback(None)  # its frames would hold on to what is being read
            raise

    def _part(self, parts: list[list[int]]) -> Any:
        # `subset` sorts the groups; `make_fragment(row_groups=...)` takes them in the order of a set.
        opened = [
            self._fragment(self._ranges.open(RangeFile)).subset(row_group_ids=groups) for groups in parts
        ]
        return ds.FileSystemDataset(opened, self.schema, self._format)

    def _fragment(self, file: RangeFile) -> Any:
        return self._format.make_fragment(pa.PythonFile(file, mode="r"))

    def _explain(self, error: Exception) -> BaseException:
        if self._ranges.error is not None:
            return self._ranges.error
        if isinstance(error, MLTrackError):
            return error
        what, reason = self._ranges.what, " ".join(str(error).split())[:300]
        if isinstance(error, pa.ArrowNotImplementedError):
            return FormatError(
                f"{what} is a Parquet file that pyarrow {pa.__version__} cannot read ({reason}). Upgrade "
                "pyarrow, or fetch the file (retrieve_file) and read it with the tool that wrote it."
            )
        if isinstance(error, MemoryError):
            return InvalidInputError(f"There is not enough memory to read {what}: {reason}. {LESS_MEMORY}")
        return IntegrityError(
            f"{what} cannot be read as Parquet ({reason}): its bytes are damaged or forged. Store the same "
            "data again to replace it, or restore it from a replica or an older object version."
        )


class _Scan:
    """What DuckDB asks of a scanner."""

    def __init__(self, schema: Any, batches: Iterator[Any]) -> None:
        self.projected_schema = schema
        self._batches = batches

    def to_reader(self) -> Any:
        return pa.RecordBatchReader.from_batches(self.projected_schema, self._batches)


def dataset_of(read: Read, size: int, *, what: str, workers: int = 8) -> BlobDataset:
    """Open a Parquet file of ``size`` bytes that ``read`` gives ranges of. Reads the footer.

    ``what`` names it in errors, ``workers`` is how many ranges are fetched at the same time. Close it.
    Raises IntegrityError for bytes that are no Parquet file or another size, FormatError for what pyarrow
    cannot read, InvalidInputError for a file that is no SQL table, and whatever ``read`` raises.
    """
    return BlobDataset(read, size, what, workers)


def stretches(groups: Sequence[int], group_size: int, workers: int) -> list[list[int]]:
    """Cut row groups into stretches to read: the first group alone, then as many as keep all workers busy.

    ``group_size`` [bytes]. Larger files have more and smaller stretches, since each stays in memory until it
    is read to its end.
    """
    first, rest = list(groups[:1]), groups[1:]
    wanted = max(workers, min(MOST_SLICES, len(rest) * group_size // SLICE))
    count = min(len(rest), wanted)
    cuts = [len(rest) * number // count for number in range(count + 1)] if count else []
    return [part for part in (first, *(list(rest[a:b]) for a, b in pairwise(cuts))) if part]


def _check_footer(ranges: Ranges) -> None:
    if ranges.size < 12:
        return  # pyarrow says what is wrong with it
    end = ranges.read(ranges.size - 8, 8)
    size = int.from_bytes(end[:4], "little")
    if size <= ranges.size - 8:
        require_footer_room(memoryview(ranges.read(ranges.size - 8 - size, size)), free_memory() // 2)


def _visible(schema: Any, what: str) -> Any:
    """The schema as SQL sees it: types that DuckDB does not know become the nearest that it does."""
    if not schema.names:
        raise InvalidInputError(f"{what} has no columns, so SQL finds nothing in it.")
    twice = [name for name, count in Counter(schema.names).items() if count > 1]
    if twice:
        raise InvalidInputError(f"{what} has several columns named {twice[0]!r}; SQL cannot tell them apart.")
    return pa.schema([field.with_type(_known(field.type)) for field in schema])


def _known(kind: Any) -> Any:
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_decimal256(kind):
        return pa.string()  # exact, whatever its digits
    if pa.types.is_fixed_size_binary(kind):
        return pa.binary()  # DuckDB before 1.3 takes NULLs among them for zeros
    if pa.types.is_dictionary(kind):
        return _known(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_known(field.type)) for field in kind])
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_known(kind.value_type)))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_known(kind.value_type)))
    return kind
