"""Content: values and files in and out of a store, named and deduplicated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mltrack_tasks import canonical, codecs, events, layout
from mltrack_tasks.blobs import read_blob, stream_blob
from mltrack_tasks.deletions import settle
from mltrack_tasks.delivery import deliver
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import IntegrityError, InvalidInputError, NotFoundError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.records import NamedData
from mltrack_tasks.recordstore import create_record, read_record
from mltrack_tasks.refs import DataRef, parse_ref
from mltrack_tasks.stores.base import Store
from mltrack_tasks.values import checked_path, write_file, write_value


def store_data(
    store: Store,
    data: Any,
    name: str = "data",
    *,
    metadata: Mapping[str, Any] | None = None,
    observe: Observe = log_event,
) -> DataRef:
    """Store a DataFrame, ndarray, JSON value or bytes -> its ref.

    Equal data gets the same digest and is not sent again (``created=False``). The name and the user's
    metadata are kept in a record of their own, one for each distinct (data, name, metadata).

    Raises InvalidInputError for data that would not come back exactly as it is, and for a bad name.
    """
    layout.name_folder(name)
    described = check_metadata(metadata)
    return _store_named(
        store, lambda: write_value(store, data, name, observe=observe), name, described, observe
    )


def store_file(
    store: Store,
    path: str | Path,
    name: str | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    observe: Observe = log_event,
) -> DataRef:
    """Store a file's bytes -> its ref; ``name`` defaults to the file's own.

    Any size, in bounded memory: above 64 MiB in parts. The format follows from the bytes (``parquet``,
    ``npy``, else ``bin``), never from the file's name. Raises SourceChangedError if the file changes.
    """
    file = checked_path(path)
    name = file.name if name is None else name
    layout.name_folder(name)
    described = check_metadata(metadata)
    return _store_named(
        store, lambda: write_file(store, file, name, observe=observe), name, described, observe
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

    Streams in bounded memory and appears whole or not at all; missing folders are created. A file that holds
    these very bytes is left alone; one with others is a ConflictError, and nothing is written. Raises
    NotFoundError, and IntegrityError if the blob is damaged.
    """
    found = resolve_ref(store, ref)
    chunks = stream_blob(store, found.hash, found.format, found.size_bytes)
    return deliver(chunks, found.hash, checked_path(path))


def list_data(store: Store, name: str | None = None) -> list[NamedData]:
    """List named data, oldest first: all of it, or what one name holds (empty if the name is unknown)."""
    found = _find_named(store, layout.NAMES if name is None else layout.name_folder(name))
    return sorted(found.values(), key=lambda item: item.stored_at)


def forget_data(store: Store, name: str, *, observe: Observe = log_event) -> list[NamedData]:
    """Remove the records of a name -> what it held. The blobs stay until garbage collection.

    Raises NotFoundError if the name is unknown.
    """
    held = _find_named(store, layout.name_folder(name))
    if not held:
        raise NotFoundError(f"No data is named {name!r} in {store.location}; list_data shows the names.")
    store.delete(held)
    observe(Event(events.DATA_FORGOTTEN, name, {"records": len(held)}))
    return sorted(held.values(), key=lambda item: item.stored_at)


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
    canonical.escape(dict(metadata), what="metadata")
    return dict(metadata)


def _store_named(
    store: Store, write: Callable[[], DataRef], name: str, metadata: dict[str, Any], observe: Observe
) -> DataRef:
    """Blob, pin, look for deletions, record: the order is the transaction."""
    ref = replace(write(), metadata=metadata)
    store.create(layout.name_pin_key(ref.hash, name), b"")
    settle(store, [(ref.hash, write)])
    content = NamedData.content_of(name, ref)
    create_record(store, _named_key(content), content, what=f"Data {name!r}")
    observe(
        Event(events.DATA_STORED, str(ref), {"name": name, "bytes": ref.size_bytes, "created": ref.created})
    )
    return ref


def _named_key(content: Mapping[str, Any]) -> str:
    return layout.name_key(content["name"], sha256_hex(canonical.dumps(content)))


def _find_named(store: Store, prefix: str) -> dict[str, NamedData]:
    """Read the records of named data under a folder, by key."""
    keys = [stat.key for stat in store.list(prefix) if layout.parse_name_key(stat.key)]
    found = map_ordered(lambda key: _read_named(store, key), keys, store.max_workers)
    return {key: item for key, item in zip(keys, found, strict=True) if item is not None}


def _read_named(store: Store, key: str) -> NamedData | None:
    """Read one record of named data, or None if it was forgotten meanwhile. IntegrityError if forged."""
    what = f"{key} in {store.location}"
    try:
        record = read_record(store, key)
    except NotFoundError:
        return None
    item = NamedData.from_record(record, what=what)
    if layout.name_key(item.name, record.content_digest) != key:
        raise IntegrityError(f"{what} does not hold what its place says; it was not written by this library.")
    return item
