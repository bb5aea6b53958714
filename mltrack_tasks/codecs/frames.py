"""DataFrame <-> Parquet bytes.

Values are natural Arrow columns, so that any reader and SQL see them; what Arrow does not keep
(dtypes, index, labels, attrs, flags) is canonical JSON under the footer key ``mltrack``. Columns
come first, index levels after them; decoding goes by position.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa

from mltrack_tasks import canonical
from mltrack_tasks.codecs import composites  # noqa: F401 - enters its codecs into the table
from mltrack_tasks.codecs.column import ColumnPlan
from mltrack_tasks.codecs.columns import plan_column, restore_column
from mltrack_tasks.codecs.description import Description
from mltrack_tasks.codecs.index import pack_index, plan_rows, restore_rows, unpack_index
from mltrack_tasks.codecs.parquet import (
    ROW_GROUP_ROWS,
    WRITER,
    open_parquet,
    parquet_writer,
    read_parquet,
    writer_of,
)
from mltrack_tasks.codecs.spec import Spec, get
from mltrack_tasks.errors import FormatError, InvalidInputError

CODEC = 1
KEY = b"mltrack"

MAX_SPEC_BYTES = 64 * 1024 * 1024
"""Labels, categories and attrs of one frame.

pyarrow's reader stops at 100 MB of footer text by default.
"""

_MANY_COLUMNS = 100
"""From here pandas gets one copy into common blocks; below, columns are taken as they are."""


@dataclass(frozen=True)
class FramePlan:
    """All that is decided about a frame before a row is written."""

    spec: Spec
    schema: Any
    plans: list[ColumnPlan]
    rows: int


def encode_frame(frame: Any, sink: BinaryIO, what: str) -> Description:
    """Write frame -> Parquet, row group by row group.

    Raises InvalidInputError for what would not come back.
    """
    plan = plan_frame(frame, what)
    body = canonical.dumps(plan.spec)
    if len(body) > MAX_SPEC_BYTES:
        raise InvalidInputError(
            f"{what}: labels, categories and attrs take {len(body)} bytes of "
            f"{MAX_SPEC_BYTES} allowed; store columns with so many categories as plain values."
        )
    try:
        with parquet_writer(sink, plan.schema, {KEY.decode(): body}) as writer:
            _write_rows(plan, writer)
    except pa.ArrowException as error:
        raise InvalidInputError(f"{what} cannot be written as Parquet: {error}.") from error
    return _description(plan.spec, WRITER)


def _write_rows(plan: FramePlan, writer: Any) -> None:
    for start in range(0, plan.rows if plan.plans else 0, ROW_GROUP_ROWS):
        stop = min(start + ROW_GROUP_ROWS, plan.rows)
        arrays = [column.slice(start, stop) for column in plan.plans]
        writer.write_table(pa.Table.from_arrays(arrays, schema=plan.schema), ROW_GROUP_ROWS)


def plan_frame(frame: Any, what: str) -> FramePlan:
    """Decide types, names and description of a frame; only object columns are looked into."""
    columns = [
        plan_column(frame.iloc[:, i].array, _where(what, label)) for i, label in enumerate(frame.columns)
    ]
    rows, levels = plan_rows(frame.index, what)
    spec: Spec = {
        "codec": CODEC,
        "rows": len(frame),
        "columns": pack_index(frame.columns, f"{what}: the column labels"),
        "fields": [plan.spec for plan in columns],
        "index": rows,
        "attrs": canonical.escape(dict(frame.attrs), what=f"{what}.attrs"),
        "flags": {"allows_duplicate_labels": bool(frame.flags.allows_duplicate_labels)},
    }
    names = physical_names(list(frame.columns), list(frame.index.names)[: len(levels)])
    plans = [*columns, *levels]
    schema = pa.schema([pa.field(name, plan.type) for name, plan in zip(names, plans, strict=True)])
    return FramePlan(spec, schema, plans, len(frame))


def physical_names(labels: list[Any], levels: list[Any]) -> list[str]:
    """Name the columns of the file: unique strings as they are, other labels as text, made unique.

    Index levels follow under their own names where free, else as ``__index_level_N__``, as pandas
    does.
    """
    counts = Counter(label for label in labels if type(label) is str)
    taken = {label for label, count in counts.items() if count == 1}
    names = [label if label in taken and type(label) is str else _free(str(label), taken) for label in labels]
    for number, name in enumerate(levels):
        free = type(name) is str and name not in taken
        names.append(_free(name if free else f"__index_level_{number}__", taken))
    return names


def decode_frame(body: bytes | memoryview, what: str) -> Any:
    """Read Parquet -> frame. A file without our description is read as pyarrow reads it."""
    file = open_parquet(body)
    spec = _spec_of(file, what)
    if spec is None:
        return _decode_foreign(body, what)
    table = read_parquet(body)
    columns = table.columns
    del table
    fields = get(spec, "fields", list)
    rows = get(spec, "rows", int)
    if columns and file.metadata.num_rows != rows:
        raise ValueError(f"the file has {file.metadata.num_rows} rows, its description {rows}")
    index = restore_rows(get(spec, "index", dict), columns[len(fields) :], rows)
    labels = unpack_index(get(spec, "columns", dict))
    arrays = [restore_column(field, column) for field, column in zip(fields, columns, strict=False)]
    return _assemble(arrays, labels, index, spec)


def describe_frame(source: BinaryIO, what: str) -> Description:
    """Describe a Parquet file by its footer."""
    file = open_parquet(source)
    spec = _spec_of(file, what)
    writer = writer_of(file.metadata)
    if spec is not None:
        return _description(spec, writer)
    schema = file.schema_arrow
    return Description(
        kind="dataframe",
        format="parquet",
        codec="parquet",
        shape=(file.metadata.num_rows, len(schema)),
        columns=tuple(schema.names),
        dtypes=tuple(str(exact) for exact in schema.types),
        writer=writer,
    )


def _assemble(arrays: list[Any], labels: Any, index: Any, spec: Spec) -> Any:
    if not len(arrays) == len(labels) == len(spec["fields"]):
        raise ValueError(f"{len(labels)} labels and {len(spec['fields'])} fields for {len(arrays)} columns")
    # With its dtype given, pandas does not look for a better one.
    series = {i: pd.Series(a, index=index, dtype=a.dtype, copy=False) for i, a in enumerate(arrays)}
    frame: Any = pd.DataFrame(series, index=index, copy=len(series) > _MANY_COLUMNS)
    frame.columns = labels
    frame.attrs = canonical.unescape(get(spec, "attrs", dict))
    frame.flags.allows_duplicate_labels = get(get(spec, "flags", dict), "allows_duplicate_labels", bool)
    return frame


def _spec_of(file: Any, what: str) -> Spec | None:
    body = (file.metadata.metadata or {}).get(KEY)
    if body is None:
        return None
    spec: Spec = canonical.loads(body, what=f"{what}: the description in the Parquet footer")
    codec = get(spec, "codec", int)
    if codec != CODEC:
        raise FormatError(f"{what} is written with mltrack-frame/{codec}; upgrade mltrack_tasks to read it.")
    return spec


def _description(spec: Spec, writer: str) -> Description:
    labels, fields = unpack_index(get(spec, "columns", dict)), get(spec, "fields", list)
    # Before iterating: a forged range of labels costs nothing to claim.
    if len(labels) != len(fields):
        raise ValueError(f"{len(labels)} labels and {len(fields)} fields are described")
    return Description(
        kind="dataframe",
        format="parquet",
        codec=f"mltrack-frame/{CODEC}",
        shape=(get(spec, "rows", int), len(labels)),
        columns=tuple(str(label) for label in labels),
        dtypes=tuple(get(field, "dtype", str) for field in fields),
        writer=writer,
    )


def _decode_foreign(body: bytes | memoryview, what: str) -> Any:
    try:
        return read_parquet(body).to_pandas()
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise FormatError(
            f"{what} is a Parquet file that cannot become a DataFrame ({error}); fetch the file "
            "and read it with the tool that wrote it."
        ) from error


def _where(what: str, label: Any) -> str:
    return f"{what}: column {label!r}"


def _free(name: str, taken: set[str]) -> str:
    number, free = 2, name
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    taken.add(free)
    return free
