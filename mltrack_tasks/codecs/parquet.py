"""Parquet as this library writes it: options, sink, and small arrays for the footer."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP_ROWS = 131_072
"""Rows of a row group.

Constant, so that equal frames have equal bytes; 1 MiB per float64 column.
"""

DICTIONARY_BYTES = 64 * 1024
"""Dictionary size beyond which a column chunk is written plainly.

With pyarrow's 1 MiB a row group of distinct float64 just fits, which is slower and larger: ADR 3.
"""

WRITER = f"pyarrow {pa.cpp_version}"
_CREATED_BY = "parquet-cpp-arrow version "


class _Sink:
    """What pyarrow needs of a file, around anything that has ``write``.

    A ParquetWriter writes a footer whenever it is closed, even after a failure. ``abandon`` keeps
    that footer away from the sink: a cut file must not look like a complete one.
    """

    closed = False

    def __init__(self, sink: BinaryIO) -> None:
        self._sink: BinaryIO | None = sink

    def write(self, data: bytes) -> int:
        if self._sink is not None:
            self._sink.write(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: ``write`` keeps nothing back, and flushing the sink is its owner's choice."""

    def abandon(self) -> None:
        self._sink = None


@contextmanager
def parquet_writer(
    sink: BinaryIO, schema: Any, metadata: Mapping[str, bytes], compression: str = "zstd"
) -> Iterator[Any]:
    """Open a Parquet file on ``sink``; the footer comes only when the block ends without an error.

    ``metadata`` is added at the end because pyarrow would write schema metadata twice.
    """
    target = _Sink(sink)
    writer = pq.ParquetWriter(
        pa.PythonFile(target, mode="w"),
        schema,
        version="2.6",
        compression=compression,
        dictionary_pagesize_limit=DICTIONARY_BYTES,
        write_statistics=True,
        write_page_checksum=True,
    )
    try:
        yield writer
        if metadata:
            writer.add_key_value_metadata(dict(metadata))
    except BaseException:
        target.abandon()
        raise
    finally:
        writer.close()


def open_parquet(source: bytes | memoryview | BinaryIO) -> Any:
    """Open Parquet bytes or a seekable file; every page's checksum is verified when it is read."""
    if isinstance(source, (bytes, memoryview)):
        return pq.ParquetFile(pa.BufferReader(pa.py_buffer(source)), page_checksum_verification=True)
    return pq.ParquetFile(pa.PythonFile(source, mode="r"), page_checksum_verification=True)


def writer_of(metadata: Any) -> str:
    """Name the library and version that wrote a file, from its footer."""
    created_by = str(metadata.created_by)
    return created_by.replace(_CREATED_BY, "pyarrow ", 1)


def pack_array(array: Any) -> Any:
    """Pack a small arrow array -> JSON: a list for text, else base64 of Parquet.

    Parquet and not Arrow IPC, because IPC would also store what lies under nulls.
    """
    if pa.types.is_large_string(array.type) and array.null_count == 0:
        return array.to_pylist()
    packed = BytesIO()
    with parquet_writer(packed, pa.schema([("v", array.type)]), {}, compression="none") as writer:
        writer.write_table(pa.table({"v": array}))
    return base64.b64encode(packed.getvalue()).decode("ascii")


def unpack_array(packed: Any) -> Any:
    """Unpack what ``pack_array`` gave -> chunked array.

    Raises ValueError or pyarrow's errors on other input.
    """
    if isinstance(packed, list):
        return pa.chunked_array([pa.array(packed, pa.large_string())])
    if not isinstance(packed, str):
        raise ValueError("a packed array is neither a list nor base64")
    table = open_parquet(base64.b64decode(packed, validate=True)).read()
    if table.num_columns != 1:
        raise ValueError(f"a packed array has {table.num_columns} columns")
    return table.column(0)
