"""Parquet as this library writes it: options, sink, and small arrays for the footer."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from mltrack_tasks.codecs.pages import chunks_of, require_footer_room, require_room, weigh
from mltrack_tasks.memory import free_memory

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
    """Open Parquet bytes or a seekable file; every page's checksum is verified when it is read.

    Raises ValueError if the footer alone takes more memory than is free, and pyarrow's errors.
    """
    if isinstance(source, (bytes, memoryview)):
        require_footer_room(_footer(memoryview(source)), free_memory() // 2)
        return pq.ParquetFile(pa.BufferReader(pa.py_buffer(source)), page_checksum_verification=True)
    source.seek(0, 2)
    tail = min(source.tell(), _footer_size(_tail(source, 8)) + 8)
    require_footer_room(_footer(memoryview(_tail(source, tail))), free_memory() // 2)
    return pq.ParquetFile(pa.PythonFile(source, mode="r"), page_checksum_verification=True)


def read_parquet(body: bytes | memoryview, room: int | None = None, columns: list[str] | None = None) -> Any:
    """Read Parquet bytes -> table, or some columns of it.

    Raises ValueError before it is read if that takes more than ``room`` [bytes], or else than is free, and
    pyarrow's errors.
    """
    file, raw = open_parquet(body), memoryview(body)
    weighed = (
        (chunk, weigh(chunk, raw[chunk.start : chunk.start + chunk.length], chunk.rows))
        for chunk in chunks_of(checked_metadata(pa.BufferReader(pa.py_buffer(body))))
        if columns is None or chunk.path.partition(".")[0] in columns
    )
    free = free_memory()
    require_room(weighed, partial(_with_dictionaries, body), free if room is None else min(room, free))
    return file.read(columns=columns)


class _RefusedError(Exception):
    """Raised instead of reading more than the footer."""


class _FooterFile:
    """A file of which nothing is read once the footer is known; as much of one as pyarrow needs."""

    closed = refusing = False

    def __init__(self, file: Any) -> None:
        self._file = file
        self.readable, self.seekable, self.tell, self.seek = (
            file.readable,
            file.seekable,
            file.tell,
            file.seek,
        )

    def read(self, length: int = -1) -> bytes | memoryview:
        if self.refusing:
            raise _RefusedError
        found: bytes | memoryview = self._file.read(length)
        return found

    def close(self) -> None:
        """Do nothing: the file is its owner's."""


def checked_metadata(file: Any) -> Any:
    """Look at what the footer says of each column chunk -> the metadata, or an error of pyarrow's.

    pyarrow 26 ends the whole process (``std::terminate``) if it meets damage there while it applies a filter,
    or is asked from Python. Planning to read everything at once meets it too, and raises; types it compares
    only where statistics are used.
    """
    footer = _FooterFile(file)
    opened = pq.ParquetFile(pa.PythonFile(footer, mode="r"), pre_buffer=True)
    footer.refusing = True
    try:
        opened.read(use_threads=False)
    except _RefusedError as refused:
        # pyarrow keeps it, and it would keep this frame, and so pyarrow's reader
        refused.with_traceback(None)
    metadata = opened.metadata
    types = [metadata.schema.column(number).physical_type for number in range(metadata.num_columns)]
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for number, expected in enumerate(types):
            if group.column(number).physical_type != expected:
                raise pa.ArrowInvalid(f"a chunk of column {number} is not of the column's type, {expected}")
    return metadata


def _with_dictionaries(body: bytes | memoryview, paths: Sequence[str]) -> Any:
    return pq.ParquetFile(pa.BufferReader(pa.py_buffer(body)), read_dictionary=list(paths))


def _tail(source: BinaryIO, length: int) -> bytes:
    source.seek(-min(length, source.seek(0, 2)), 2)
    return source.read(length)


def _footer(tail: memoryview) -> memoryview:
    """The footer at the end of these bytes; empty where there is none."""
    size = _footer_size(tail[-8:])
    return tail[-8 - size : -8] if 0 < size <= len(tail) - 8 else memoryview(b"")


def _footer_size(end: bytes | memoryview) -> int:
    return int.from_bytes(end[:4], "little") if bytes(end[4:]) == b"PAR1" else 0


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
    table = read_parquet(base64.b64decode(packed, validate=True))
    if table.num_columns != 1:
        raise ValueError(f"a packed array has {table.num_columns} columns")
    return table.column(0)
