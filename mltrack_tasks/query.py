"""Queries: SQL over stored data where it lies, fetching only the columns and row groups that it needs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mltrack_tasks import events, layout
from mltrack_tasks.blobs import stream_blob
from mltrack_tasks.catalog import current_rows
from mltrack_tasks.content import resolve_ref
from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.formats import plain_format
from mltrack_tasks.refs import DataRef
from mltrack_tasks.stores.base import Store, WrapperStore
from mltrack_tasks.stores.observed import CountingStore

if TYPE_CHECKING:
    from mltrack_tasks.tables.ranges import BlobDataset

TABLE = "s3object"
"""The name of the one table, as in S3 Select."""
RUNS = "runs"
"""The name of the table of runs."""


@dataclass(frozen=True, eq=False, repr=False)
class QueryResult:
    """Rows as a DataFrame (``frame``), and what they cost.

    ``bytes_read`` is what was fetched of ``bytes_stored``, in ``requests``: reads of ranges, and the LIST
    that completes a ref given as text. A read cache of the store may have answered some of them.
    """

    frame: Any
    bytes_read: int
    bytes_stored: int
    requests: int

    def __str__(self) -> str:
        rows, columns = self.frame.shape
        share = f"{self.bytes_read / max(self.bytes_stored, 1):.1%}"
        requests = f"{self.requests} request{'' if self.requests == 1 else 's'}"
        return (
            f"{rows:,} rows x {columns} columns; read {self.bytes_read:,} of {self.bytes_stored:,} bytes "
            f"stored ({share}) in {requests}"
        )

    def __repr__(self) -> str:
        return f"<QueryResult {self}>"


def query_data(
    store: Store,
    ref: DataRef | str | Mapping[str, DataRef | str],
    sql: str,
    *,
    verify: bool = False,
    observe: Observe = log_event,
) -> QueryResult:
    """Run one SELECT over stored DataFrames or Parquet files -> rows, and what was read for them.

    One ref is the table ``s3object``; a mapping gives names to several, which SQL can join. SQL sees the
    columns of the file: a frame's columns, then its index under its own name (``__index_level_0__`` without
    one; a RangeIndex is no column), categories as their values, times in UTC, labels that are no text as
    text. SQL does not tell ``a`` from ``A``: the second of two such columns is called ``A_1``.

    The data of every page that is read is checked against the checksum that its writer gave it; this library
    gives one to each. That finds damage to values, in transit and at rest; but not forgery, and not all
    damage to the footer, whose names and statistics have no checksum in Parquet. ``verify=True`` first reads
    the whole of each blob and compares it with its digest.

    Raises NotFoundError, ArchivedError, IntegrityError (a damaged blob, or another size than the ref's), and
    InvalidInputError: for a ref that is no Parquet, with DuckDB's message for SQL that is malformed or fails,
    and for SQL that reaches for anything but these tables.
    """
    counting = CountingStore(store)
    refs = {name: _resolved(counting, given) for name, given in _named(ref).items()}
    try:
        frame = _run(counting, refs, sql, verify)
    except IntegrityError:
        if not _evict(store, refs):
            raise
        frame = _run_anew(counting, refs, sql, verify)
    stored = sum(found.size_bytes for found in refs.values())
    result = QueryResult(frame, counting.received.total(), stored, counting.requests)
    details = {
        "rows": len(frame),
        "bytes": result.bytes_read,
        "of_bytes": stored,
        "requests": result.requests,
    }
    observe(Event(events.DATA_QUERIED, " ".join(str(found) for found in refs.values()), details))
    return result


def query_runs(store: Store, sql: str, *, observe: Observe = log_event) -> QueryResult:
    """Run one SELECT over the table ``runs``: the current revision of every run -> rows, and what was read.

    ``SELECT run_id, metrics.accuracy FROM runs WHERE params.max_depth > 5``: names of params, metrics, tags
    and of inlined JSON values are fields of ``params``, ``metrics``, ``tags`` and ``values``; ``data``,
    ``inputs`` and ``outputs`` hold refs as text (``tables.runtable`` has the types). In the frame a struct
    that was asked for whole becomes columns such as ``metrics.accuracy``.

    A name with numbers in some runs and text in others is VARCHAR: ``TRY_CAST(params.depth AS INTEGER)``.
    Runs that are newer than the last compaction are included. The catalogue is read whole: 100,000 runs take
    about 1.2 GB of memory. NaN is greater than every number in DuckDB. Raises
    InvalidInputError as ``query_data`` does. Runs whose manifest is damaged are left out with a warning.
    """
    from mltrack_tasks.tables import runtable
    from mltrack_tasks.tables.results import frame_of
    from mltrack_tasks.tables.sandbox import run_sql

    counting = CountingStore(store)
    table = runtable.sql_table(current_rows(counting, observe=observe))
    for group, names in runtable.left_out(table).items():
        details = {
            "names": names,
            "advice": f"the {runtable.MAX_COLUMNS} names that the most runs have are columns",
        }
        observe(Event(events.COLUMNS_LEFT_OUT, group, details))
    frame = frame_of(runtable.flatten(run_sql(sql, {RUNS: table})))
    read = counting.received.total()
    observe(Event(events.RUNS_QUERIED, store.location, {"rows": len(frame), "bytes": read}))
    return QueryResult(frame, read, read, counting.requests)


def _named(ref: DataRef | str | Mapping[str, DataRef | str]) -> Mapping[str, DataRef | str]:
    if not isinstance(ref, Mapping):
        return {TABLE: ref}
    if not ref:
        raise InvalidInputError("There is nothing to query: give a ref, or a mapping of names to refs.")
    return ref


def _resolved(store: Store, given: DataRef | str) -> DataRef:
    ref = resolve_ref(store, given)
    if ref.format != "parquet":
        kind = _KINDS[plain_format(ref.format)]
        raise InvalidInputError(
            f"{ref} (named {ref.name!r}) is {kind}, not Parquet: SQL reads stored DataFrames "
            "and Parquet files. retrieve_data gives the whole of it."
        )
    return ref


_KINDS = {"npy": "an array (npy)", "json": "a JSON value", "bin": "bytes or a file of an unknown kind (bin)"}


def _run_anew(store: Store, refs: Mapping[str, DataRef], sql: str, verify: bool) -> Any:
    """Run again, not out of a cache this time, and keep no damage in one."""
    try:
        return _run(store, refs, sql, verify)
    except IntegrityError:
        _evict(store, refs)
        raise


def _evict(store: Store, refs: Mapping[str, DataRef]) -> bool:
    evicted = [store.evict(_key(ref)) for ref in refs.values()]
    return any(evicted)


def _run(store: Store, refs: Mapping[str, DataRef], sql: str, verify: bool) -> Any:
    from mltrack_tasks.tables.results import frame_of
    from mltrack_tasks.tables.sandbox import run_sql

    with ExitStack() as stack:
        if verify:
            for ref in refs.values():
                _prove(store, ref)
        tables = {name: stack.enter_context(closing(_open(store, ref))) for name, ref in refs.items()}
        return frame_of(run_sql(sql, tables))


def _open(store: Store, ref: DataRef) -> BlobDataset:
    from mltrack_tasks.tables.ranges import dataset_of

    read: Callable[[int, int], bytes | memoryview] = partial(store.get_range, _key(ref))
    what = f"{_key(ref)} in {store.location}"
    return dataset_of(read, ref.size_bytes, what=what, workers=store.max_workers)


def _prove(store: Store, ref: DataRef) -> None:
    """Read the whole blob: IntegrityError unless it hashes to its name, even if ``verify_reads`` is off."""
    proving = WrapperStore(store)
    proving.verify_reads = True
    deque(stream_blob(proving, ref.hash, ref.format), maxlen=0)


def _key(ref: DataRef) -> str:
    return layout.blob_key(ref.hash, ref.format)
