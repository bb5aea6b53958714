"""Content: values and files in and out of a store, named and deduplicated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mltrack_tasks import canonical, codecs, events, layout
from mltrack_tasks.blobs import read_blob, require_blob, stream_blob
from mltrack_tasks.deletions import Writer, hold
from mltrack_tasks.delivery import deliver
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import FormatError, IntegrityError, InvalidInputError, MLTrackError, NotFoundError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.formats import is_packed
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.records import NamedData, Record
from mltrack_tasks.recordstore import create_record, read_record
from mltrack_tasks.refs import DataRef, is_ref_text, parse_ref
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.files import checked_path
from mltrack_tasks.unpacking import deliver_unpacked
from mltrack_tasks.values import check_compression, write_file, write_value

_Errors = tuple[type[MLTrackError], ...]

MAX_METADATA = 1024 * 1024
"""[bytes] of the user's metadata of one datum, as JSON: it is read with every listing."""


def store_data(
    store: Store,
    data: Any,
    name: str = "data",
    *,
    metadata: Mapping[str, Any] | None = None,
    storage_class: str | None = None,
    compress: str | None = None,
    observe: Observe = log_event,
) -> DataRef:
    """Store a DataFrame, ndarray, JSON value or bytes -> its ref.

    Equal data gets the same digest and is not sent again (``created=False``). The name and the user's
    metadata are kept in a record of their own, one for each distinct (data, name, metadata).
    ``storage_class``, instead of the store's, is that of a blob that is new, such as GLACIER_IR; what is
    there already stays where it is. ``compress="zstd"`` packs an array, a JSON value or bytes; it is its
    stored bytes that the digest and ``size_bytes`` are of, and ``retrieve_data`` unpacks them.

    Raises InvalidInputError for data that would not come back exactly as it is, for a bad name, for a
    storage class that S3 has not or that cannot be read at once, and for a DataFrame that is to be
    compressed: Parquet is, inside.
    """
    layout.name_folder(name)
    check_compression(compress)
    described = check_metadata(metadata)
    placed = store if storage_class is None else store.placing(storage_class)
    return _store_named(
        placed, partial(write_value, placed, data, name, compress=compress), name, described, observe
    )


def store_file(
    store: Store,
    path: str | Path,
    name: str | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    storage_class: str | None = None,
    compress: str | None = None,
    observe: Observe = log_event,
) -> DataRef:
    """Store a file's bytes -> its ref; ``name`` defaults to the file's own.

    Any size, in bounded memory: above 64 MiB in parts. The format follows from the bytes (``parquet``,
    ``npy``, else ``bin``), never from the file's name. ``storage_class`` and ``compress`` as for
    ``store_data``; ``retrieve_file`` gives back the file as it was. Raises SourceChangedError if it changes.
    """
    check_compression(compress)
    file = checked_path(path)
    name = file.name if name is None else name
    layout.name_folder(name)
    described = check_metadata(metadata)
    placed = store if storage_class is None else store.placing(storage_class)
    return _store_named(
        placed, partial(write_file, placed, file, name, compress=compress), name, described, observe
    )


def retrieve_data(store: Store, ref: DataRef | str) -> Any:
    """Fetch what a ref, its string or a bare digest names -> DataFrame, ndarray, JSON value or bytes.

    The bytes are proven against the digest first. Raises NotFoundError, IntegrityError if they are damaged,
    InvalidInputError for a bare digest that exists in two formats (the message names both).
    """
    found = resolve_ref(store, ref)
    body = read_blob(store, found.hash, found.format, found.size_bytes)
    return codecs.decode(found.format, body, what=f"{found.storage_path} in {store.location}")


def retrieve_file(store: Store, ref: DataRef | str, path: str | Path) -> Path:
    """Write a blob's bytes to ``path`` -> the absolute path.

    Streams in bounded memory and appears whole or not at all; missing folders are created. A compressed blob
    is unpacked. A file that holds these very bytes is left alone; one with others is a ConflictError, and
    nothing is written. Raises NotFoundError, and IntegrityError if the blob is damaged.
    """
    target, found = checked_path(path), resolve_ref(store, ref)
    if is_packed(found.format):
        return deliver_unpacked(store, found, target)
    try:
        return deliver(_stream(store, found), found.hash, found.size_bytes, target)
    except IntegrityError:
        if not store.evict(found.storage_path):
            raise
    try:
        # Not out of a cache this time.
        return deliver(_stream(store, found), found.hash, found.size_bytes, target)
    except IntegrityError:
        store.evict(found.storage_path)
        raise


def list_data(store: Store, name: str | None = None) -> list[NamedData]:
    """List named data, oldest first: all of it, or what one name holds (empty if the name is unknown).

    A record that cannot be read fails the listing of its name; the listing of all names leaves it out with
    a warning in the log, so that one forged record does not hide the rest.
    """
    if name is not None:
        found = _find_named(store, _name_keys(store, layout.name_folder(name)), skip=())
    else:
        found = _find_named(store, _name_keys(store, layout.NAMES), skip=(IntegrityError, FormatError))
    return sorted(found.values(), key=lambda item: item.stored_at)


def forget_data(store: Store, name: str, *, observe: Observe = log_event) -> list[NamedData]:
    """Remove the records of a name -> what it held. The blobs stay until garbage collection.

    Damaged records are removed too. Raises NotFoundError if the name is unknown, FormatError (and removes
    nothing) if a newer version wrote one of its records.
    """
    keys = _name_keys(store, layout.name_folder(name))
    if not keys:
        raise NotFoundError(f"No data is named {name!r} in {store.location}; list_data shows the names.")
    held = _find_named(store, keys, skip=(IntegrityError,))
    store.delete(keys)
    observe(Event(events.DATA_FORGOTTEN, name, {"records": len(keys)}))
    return sorted(held.values(), key=lambda item: item.stored_at)


def writer_of(store: Store, thing: Any, name: str) -> Writer:
    """Give what makes sure of one blob of a run: a ref must be there already, anything else is written."""

    def write(observe: Observe) -> DataRef:
        if not isinstance(thing, DataRef) and not is_ref_text(thing):
            return write_value(store, thing, name, observe)
        ref = resolve_ref(store, thing)
        require_blob(store, ref.hash, ref.format, ref.size_bytes)
        return replace(ref, name=name, created=False)

    return write


def resolve_ref(store: Store, ref: DataRef | str) -> DataRef:
    """Complete a ref from a DataRef (returned as it is), its string, or a bare digest (looked up)."""
    if isinstance(ref, DataRef):
        return ref
    if not isinstance(ref, str):
        raise InvalidInputError(f"{ref!r} is not a ref: give a DataRef, its string or a digest.")
    digest, format = parse_ref(ref)
    sizes = {
        blob[1]: stat.size
        for stat in store.list(layout.blob_folder(digest))
        if (blob := layout.parse_blob_key(stat.key)) and format in (None, blob[1])
    }
    if not sizes:
        raise NotFoundError(f"{ref} is not in {store.location}.", details={"digest": digest})
    if len(sizes) > 1:
        both = " and ".join(f"sha256:{digest}.{found}" for found in sorted(sizes))
        raise InvalidInputError(f"The digest {digest} exists in two formats; say which: {both}.")
    [(only, size)] = sizes.items()
    return DataRef(digest, only, size, layout.blob_key(digest, only))


def check_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Admit the user's metadata (a mapping of JSON values), or raise InvalidInputError."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise InvalidInputError(
            f"metadata is {metadata!r}, not a mapping. In .map(), wrap a constant in unmapped(...)."
        )
    size = len(canonical.dumps(canonical.escape(dict(metadata), what="metadata")))
    if size > MAX_METADATA:
        raise InvalidInputError(
            f"metadata takes {size:,} bytes; the limit is {MAX_METADATA:,}. Store large values as data."
        )
    return dict(metadata)


def _store_named(
    store: Store, write: Writer, name: str, metadata: dict[str, Any], observe: Observe
) -> DataRef:
    """Blob, pin, look for deletions, record: the order is the transaction."""
    [held] = hold(store, [write], lambda digest: layout.name_pin_key(digest, name), observe=observe)
    ref = replace(held, metadata=metadata)
    content = NamedData.content_of(name, ref)
    create_record(store, _named_key(content), content, what=f"Data {name!r}")
    observe(
        Event(events.DATA_STORED, str(ref), {"name": name, "bytes": ref.size_bytes, "created": ref.created})
    )
    return ref


def _named_key(content: Mapping[str, Any]) -> str:
    return layout.name_key(content["name"], sha256_hex(canonical.dumps(content)))


def _stream(store: Store, ref: DataRef) -> Iterator[bytes | memoryview]:
    return stream_blob(store, ref.hash, ref.format)


def _name_keys(store: Store, prefix: str) -> list[str]:
    return [stat.key for stat in store.list(prefix) if layout.parse_name_key(stat.key)]


def _find_named(store: Store, keys: list[str], *, skip: _Errors) -> dict[str, NamedData]:
    """Read records of named data -> those that are there, by key; ``skip`` leaves out what fails so."""
    found = map_ordered(partial(_read_named, store, skip=skip), keys, store.max_workers)
    return {key: item for key, item in zip(keys, found, strict=True) if item is not None}


def _read_named(store: Store, key: str, *, skip: _Errors) -> NamedData | None:
    """Read one record, or None if it was forgotten meanwhile or fails with an error to ``skip``."""
    try:
        return read_name(store, key)
    except NotFoundError:
        return None
    except skip as error:
        events.logger.warning("left out: %s", error)
        return None


def read_name(store: Store, key: str) -> NamedData:
    """Read one record of named data. IntegrityError if it is not what its place says."""
    return named_in(store, key, read_record(store, key))


def named_in(store: Store, key: str, record: Record) -> NamedData:
    """Parse a record of named data that was read from ``key``, as ``read_name`` does."""
    what = f"{key} in {store.location}"
    item = NamedData.from_record(record, what=what)
    if layout.name_key(item.name, record.content_digest) != key:
        raise IntegrityError(f"{what} does not hold what its place says; it was not written by this library.")
    return item
