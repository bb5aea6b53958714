"""Values and files as blobs: encoded, described, written; without a name yet."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from mltrack_tasks import codecs, layout
from mltrack_tasks.blobs import write_blob
from mltrack_tasks.codecs import Description
from mltrack_tasks.digest import SINGLE_PUT_LIMIT
from mltrack_tasks.errors import FormatError, IntegrityError, InvalidInputError
from mltrack_tasks.events import Observe
from mltrack_tasks.formats import COMPRESSIONS
from mltrack_tasks.recordstore import create_if_absent
from mltrack_tasks.refs import DataRef
from mltrack_tasks.sources import BytesSource, FileSource, Source, changed, open_source
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.files import checked_path, os_errors

_MAGIC = 16
"""[bytes] of a file's beginning and end that tell its format."""
_TEMPORARY = "The temporary folder (TMPDIR)"
_UNREADABLE = "unreadable"
"""Codec of what only looks like Parquet or npy: it gets no metadata.json, for a later version may read it."""


def write_value(
    store: Store, data: Any, name: str, observe: Observe, *, compress: str | None = None
) -> DataRef:
    """Write the blob of a value, unnamed -> its ref."""
    with _encoded(data, name, compress) as (source, description):
        return _write(store, source, name, description, observe)


def write_file(
    store: Store, path: str | Path, name: str, observe: Observe, *, compress: str | None = None
) -> DataRef:
    """Write the blob of a file, unnamed -> its ref."""
    file = checked_path(path)
    with open_source(file) as (source, reader):
        if compress is None:
            return write_opened(store, source, reader, name, observe)
        with _packed(source, _describe_file(reader), name) as (packed, description):
            return _write(store, packed, name, description, observe)


def check_compression(compress: str | None) -> None:
    """Admit a compression, or none."""
    if compress is not None:
        layout.check_choice(compress, COMPRESSIONS, "The compression")


def write_opened(
    store: Store, source: Source, reader: BinaryIO, name: str, observe: Observe, *, ask: bool | None = None
) -> DataRef:
    """Write the blob of an open file, unnamed -> its ref; ``reader`` holds the bytes of ``source``."""
    description = _describe_file(reader)
    source.require_unchanged()
    return _write(store, source, name, description, observe, ask)


def description_of(reader: BinaryIO, format: str, size: int) -> dict[str, Any]:
    """Describe stored bytes from a seekable file -> the content of their ``metadata.json``.

    As whoever stored them did. Raises IntegrityError or FormatError if they cannot be read as ``format``.
    """
    return _description(codecs.describe(format, reader), size)


def _describe_file(reader: BinaryIO) -> Description:
    """Say what a file is by its magic bytes; one that only looks like Parquet or npy is kept all the same."""
    reader.seek(0)
    head = reader.read(_MAGIC)
    reader.seek(-len(head), io.SEEK_END)
    format = codecs.sniff(head, reader.read())
    reader.seek(0)
    try:
        return codecs.describe(format, reader)
    except (IntegrityError, FormatError):
        return Description(kind="file", format=format, codec=_UNREADABLE)


def _write(
    store: Store,
    source: Source,
    name: str,
    description: Description,
    observe: Observe,
    ask: bool | None = None,
) -> DataRef:
    """Describe, then write the blob -> its ref."""
    described = description.format in layout.DESCRIBED_FORMATS and description.codec != _UNREADABLE
    key, content = layout.blob_metadata_key(source.digest), _description(description, source.size)
    was_there = described and not create_if_absent(store, key, content)
    created = write_blob(store, source, description.format, observe=observe, ask=ask)
    if was_there and created:
        create_if_absent(store, key, content)  # a collector may have taken both in between
    return DataRef(
        hash=source.digest,
        format=description.format,
        size_bytes=source.size,
        storage_path=layout.blob_key(source.digest, description.format),
        name=name,
        shape=description.shape,
        columns=description.columns,
        dtypes=description.dtypes,
        created=created,
    )


def _description(description: Description, size: int) -> dict[str, Any]:
    return {
        "kind": description.kind,
        "size_bytes": size,
        "shape": None if description.shape is None else list(description.shape),
        "columns": None if description.columns is None else list(description.columns),
        "dtypes": None if description.dtypes is None else list(description.dtypes),
        "codec": description.codec,
        "writer": description.writer,
    }


@contextmanager
def _encoded(data: Any, name: str, compress: str | None) -> Iterator[tuple[Source, Description]]:
    """Encode a value -> its bytes: in memory when small, else in a temporary file, row group by row group."""
    if compress is not None and codecs.format_of(data) == "parquet":
        raise _is_parquet(name)
    if codecs.estimate_size(data) <= SINGLE_PUT_LIMIT:
        sink = io.BytesIO()
        description = _encode(data, sink, name, compress)
        yield BytesSource(sink.getbuffer()), description
        return
    with _temporary_file() as file:
        with os_errors(_TEMPORARY):
            description = _encode(data, file, name, compress)
            file.flush()
            source = _source_of(file, name)
        yield source, description


def _encode(data: Any, sink: BinaryIO, name: str, compress: str | None) -> Description:
    if compress is None:
        return codecs.encode(data, sink, what=name)
    from mltrack_tasks.codecs.zstd import Packer

    packer = Packer(sink)
    description = codecs.encode(data, cast(BinaryIO, packer), what=name)
    packer.finish()
    return codecs.packed(description)


@contextmanager
def _packed(source: Source, inside: Description, name: str) -> Iterator[tuple[Source, Description]]:
    """Pack a file -> its new bytes, in memory when it is small."""
    from mltrack_tasks.codecs.zstd import Packer

    if inside.codec == _UNREADABLE:
        inside = Description(kind="file", format="bin", codec="bin")
    if inside.format == "parquet":
        raise _is_parquet(name)
    with _temporary_file() if source.size > SINGLE_PUT_LIMIT else nullcontext(io.BytesIO()) as file:
        packer, hasher = Packer(file), hashlib.sha256()
        with os_errors(_TEMPORARY):
            for part in source.parts():
                hasher.update(part)
                packer.write(part)
            packer.finish()
            file.flush()
        source.require_unchanged()
        if hasher.hexdigest() != source.digest:
            raise changed(name)
        yield _source_of(file, name), codecs.packed(inside)


def _is_parquet(name: str) -> InvalidInputError:
    return InvalidInputError(
        f"{name!r} is Parquet, whose columns are compressed inside, each by itself, so that queries read "
        "only those they need: leave compress out."
    )


@contextmanager
def _temporary_file() -> Iterator[BinaryIO]:
    with os_errors(_TEMPORARY):
        file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 -- closed below, in its own way
    try:
        yield file
    finally:
        with suppress(OSError):  # what is left in the buffer of a file that met a full disk is not needed
            file.close()


def _source_of(file: BinaryIO, name: str) -> Source:
    if file.tell() > SINGLE_PUT_LIMIT:
        return FileSource(file, name)
    file.seek(0)
    return BytesSource(file.read())
