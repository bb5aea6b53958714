"""Parts: the Parquet files of the run catalogue, and the fixed schema of their rows.

Names that users invent are values and not columns, so parts merge without agreeing on anything, and a
thousand names of one user widen nobody's table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mltrack_tasks import canonical, layout
from mltrack_tasks.codecs.parquet import checked_metadata, open_parquet, parquet_writer, read_parquet
from mltrack_tasks.digest import MiB
from mltrack_tasks.errors import FormatError, IntegrityError
from mltrack_tasks.tables.runcells import FIELDS, check_cells

VALUE_GROUPS = ("params", "metrics", "tags", "values")
REF_ROLES = ("data", "inputs", "outputs")
ORIGIN = ("actor", "host", "flow_run_id", "flow", "deployment_id")
"""What is taken from a record's provenance as text."""
TIME = pa.timestamp("us", "UTC")

NUMBER = 1
"""Of the schema. A part with a higher one was written by a newer version."""
ROW_GROUP_ROWS = 8_192
"""Rows of a row group; those of one project lie together."""

EXPANSION, EXPANSION_FREE = 1_000, 256 * MiB
"""Memory that the rows of a part may take: so many times its bytes, and so many [bytes] more.

Measured: 27 times for runs of different metrics, 2,700 times for thousands of runs that are alike in all but
their ids, which take 40 MB then. What is refused costs a request for each run, and is read all the same."""

_FOOTER_KEY = "mltrack"
_VALUE_BYTES = 16
"""[bytes] Values, validity and offset of one value, about; texts come on top."""


def _needed(name: str, type: Any) -> Any:
    return pa.field(name, type, nullable=False)


ENTRY = pa.struct([_needed("group", pa.string()), _needed("name", pa.string()), *FIELDS])
REF = pa.struct(
    [
        *(_needed(name, pa.string()) for name in ("role", "name", "ref")),
        pa.field("size_bytes", pa.int64()),  # null: beyond int64, which a forged manifest may say
    ]
)
SCHEMA = pa.schema(
    [
        _needed("run_id", pa.string()),
        _needed("revision", pa.int32()),
        _needed("run_type", pa.string()),
        _needed("status", pa.string()),
        pa.field("project", pa.string()),
        pa.field("model", pa.string()),
        _needed("storage_modes", pa.list_(_needed("element", pa.string()))),
        *(pa.field(name, TIME) for name in ("started_at", "ended_at", "stored_at")),
        *(pa.field(name, pa.string()) for name in (*ORIGIN, "git_commit")),
        pa.field("git_dirty", pa.bool_()),
        _needed("entries", pa.list_(_needed("element", ENTRY))),
        _needed("refs", pa.list_(_needed("element", REF))),
        _needed("manifest", pa.large_binary()),
    ]
)
"""``entries`` are the params, metrics, tags and values of a run, each name once in a group, as ``runcells``
keeps them. ``stored_at`` and what follows come from the record's provenance, which nobody checked: null where
it is not of the type. ``manifest`` is the record's canonical bytes."""


def encode_rows(table: Any) -> bytes:
    """Rows -> the bytes of a part. With one version of pyarrow, equal tables give equal bytes."""
    sink = BytesIO()
    footer = {_FOOTER_KEY: canonical.dumps({"codec": "mltrack-runs", "number": NUMBER})}
    with parquet_writer(sink, SCHEMA, footer) as writer:
        writer.write_table(table.combine_chunks(), row_group_size=ROW_GROUP_ROWS)
    return sink.getvalue()


def decode_rows(body: bytes | memoryview, what: str, *, columns: Sequence[str] | None = None) -> Any:
    """Read a part -> rows of SCHEMA, or only some ``columns`` of it.

    Raises FormatError on a part of a newer version, and IntegrityError naming ``what`` on anything else that
    ``encode_rows`` did not write: damaged pages, other columns, values that are not of their kind. What the
    record of a row says is checked when it becomes a manifest.
    """
    with _reading(what):
        file = open_parquet(body)
        _check_number(file.metadata.metadata or {}, what)
        if not file.schema_arrow.equals(SCHEMA):
            raise IntegrityError(f"{what} does not have the columns of the run catalogue; rebuild it.")
        _check_expansion(checked_metadata(pa.BufferReader(pa.py_buffer(body))), len(body), what)
        room = EXPANSION_FREE + EXPANSION * len(body)  # what the pages say counts, too
        table = read_parquet(body, room, None if columns is None else list(columns))
        table = table.replace_schema_metadata()
        table.validate(full=True)
        _check_rows(table, what)
    return table


def flat(column: Any) -> tuple[Any, Any]:
    """Unnest a column of lists -> (row of each item as ndarray, all items as one array)."""
    lists = column.combine_chunks()
    return pc.list_parent_indices(lists).to_numpy(), lists.flatten()


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turn whatever pyarrow raises on hostile bytes into IntegrityError; there is no I/O that could fail."""
    try:
        yield
    except (IntegrityError, FormatError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise IntegrityError(
            f"{what} cannot be read as a part of the run catalogue ({type(error).__name__}: {reason}): the "
            "bytes are damaged, forged, or need more memory than there is. Rebuild the catalogue."
        ) from error


def _check_number(footer: dict[bytes, bytes], what: str) -> None:
    found = canonical.loads(footer.get(_FOOTER_KEY.encode(), b"null"), what=f"{what}: the footer")
    number = found.get("number") if isinstance(found, dict) and found.get("codec") == "mltrack-runs" else None
    if type(number) is not int or number < 1:
        raise IntegrityError(f"{what} is not a part of the run catalogue: its footer does not say so.")
    if number > NUMBER:
        raise FormatError(
            f"{what} has rows of form {number}; this version of mltrack_tasks reads {NUMBER}. "
            "Upgrade mltrack_tasks."
        )


def _check_expansion(footer: Any, size: int, what: str) -> None:
    """Refuse a part whose footer says that it fills the memory: few bytes can stand for billions of rows."""
    groups = map(footer.row_group, range(footer.num_row_groups))
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    memory = sum(chunk.total_uncompressed_size + _VALUE_BYTES * chunk.num_values for chunk in chunks)
    if memory > EXPANSION_FREE + EXPANSION * size:
        raise IntegrityError(
            f"{what} would take {memory:,} bytes of memory for {size:,} bytes; no part of the run catalogue "
            "does. Rebuild the catalogue."
        )


def _check_rows(table: Any, what: str) -> None:
    """Check what the schema leaves open, as far as others rely on it."""
    for name, admitted in _ADMITTED.items():
        if name in table.column_names and not admitted(table[name]):
            raise IntegrityError(f"{what} has values in {name} that were not written by this library.")
    if "entries" in table.column_names:
        rows, entries = flat(table["entries"])
        _check_names(rows, entries, "group", VALUE_GROUPS, what)
        check_cells(entries, what)
    if "refs" in table.column_names:
        rows, refs = flat(table["refs"])
        _check_names(rows, refs, "role", REF_ROLES, what)
        pattern = rf"\Asha256:[0-9a-f]{{64}}\.({'|'.join(map(re.escape, layout.FORMATS))})\z"
        formed = pc.match_substring_regex(refs.field("ref"), pattern)
        if not _all(formed) or not _all(pc.less_equal(0, refs.field("size_bytes"))):
            raise IntegrityError(f"{what} has refs that were not written by this library.")


def _check_names(rows: Any, items: Any, group: str, groups: tuple[str, ...], what: str) -> None:
    """Check that groups are known, and that no name stands twice in a group of a row."""
    codes = pc.index_in(items.field(group), value_set=pa.array(groups)).fill_null(-1).to_numpy()
    names = items.field("name").dictionary_encode().indices.to_numpy().astype(np.int64)
    places = (rows * len(groups) + codes) * (names.max(initial=0) + 1) + names
    if (codes < 0).any() or len(np.unique(places)) != len(places):
        raise IntegrityError(f"{what} has a name twice, or an unknown {group}; rebuild the catalogue.")


def _all(found: Any) -> bool:
    return bool(pc.all(found, min_count=0).as_py())


def _in_calendar(times: Any) -> bool:
    """Whether all times lie in the years 1 to 9999, which datetime has."""
    whole = times.cast(pa.int64()).drop_null()
    return _all(pc.and_(pc.less_equal(_FIRST, whole), pc.less_equal(whole, _LAST)))


_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
_ADMITTED = {
    "revision": lambda numbers: _all(pc.less_equal(1, numbers)),
    "run_type": lambda texts: _all(pc.is_in(texts, value_set=pa.array(layout.RUN_TYPES))),
    **dict.fromkeys(("started_at", "ended_at", "stored_at"), _in_calendar),
}
