"""Tasks for data: stored once, named, and retrieved proven."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mltrack_tasks import content
from mltrack_tasks.assets import made, used
from mltrack_tasks.blocks import MLTrackStore
from mltrack_tasks.records import NamedData
from mltrack_tasks.refs import DataRef
from mltrack_tasks.resolve import open_store
from mltrack_tasks.tasking import mltrack_task, recorded, report


@mltrack_task
def store_data(
    data: Any,
    name: str = "data",
    *,
    metadata: Mapping[str, Any] | None = None,
    storage_class: str | None = None,
    compress: str | None = None,
    store: MLTrackStore | str | None = None,
) -> DataRef:
    """Store a DataFrame, ndarray, JSON value or bytes -> its ref.

    Equal data gets the same digest and is not sent again (``ref.created`` is False). ``storage_class``,
    instead of the store's, is that of a blob that is new, such as GLACIER_IR. ``compress="zstd"`` packs large
    arrays, JSON values and bytes; ``retrieve_data`` unpacks them. Raises InvalidInputError for data that
    would not come back exactly as it is (the message names value, column and dtype), and for a DataFrame that
    is to be compressed: Parquet is, inside.
    """
    opened = open_store(store)
    with recorded():
        ref = content.store_data(
            opened,
            data,
            name,
            metadata=metadata,
            storage_class=storage_class,
            compress=compress,
            observe=report,
        )
    return made(opened, ref.storage_path, ref, name=name)


@mltrack_task
def store_file(
    path: str | Path,
    name: str | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    storage_class: str | None = None,
    compress: str | None = None,
    store: MLTrackStore | str | None = None,
) -> DataRef:
    """Store the bytes of a file on the machine that runs the task -> its ref; any size, in bounded memory.

    ``storage_class`` and ``compress`` as for ``store_data``. Raises SourceChangedError if the file changes
    while it is read; nothing is stored under a false digest.
    """
    opened = open_store(store)
    with recorded():
        ref = content.store_file(
            opened,
            path,
            name,
            metadata=metadata,
            storage_class=storage_class,
            compress=compress,
            observe=report,
        )
    return made(opened, ref.storage_path, ref, name=ref.name or str(ref))


@mltrack_task
def retrieve_data(ref: DataRef | str, *, store: MLTrackStore | str | None = None) -> Any:
    """Fetch what a ref, its string or a digest names -> DataFrame, ndarray, JSON value or bytes, verified.

    Raises NotFoundError, IntegrityError if the bytes are damaged, ArchivedError if they must be restored.
    """
    opened = open_store(store)
    found = content.resolve_ref(opened, ref)
    used(opened, found.storage_path)
    return content.retrieve_data(opened, found)


@mltrack_task
def retrieve_file(ref: DataRef | str, path: str | Path, *, store: MLTrackStore | str | None = None) -> Path:
    """Write a blob to ``path`` on the machine that runs the task -> the absolute path, verified and atomic.

    A compressed blob is unpacked. A file with these bytes is left alone; one with others is a ConflictError.
    """
    opened = open_store(store)
    found = content.resolve_ref(opened, ref)
    used(opened, found.storage_path)
    return content.retrieve_file(opened, found, path)


@mltrack_task
def list_data(name: str | None = None, *, store: MLTrackStore | str | None = None) -> list[NamedData]:
    """List what was stored outside runs, oldest first: everything, or what one name holds."""
    return content.list_data(open_store(store), name)


@mltrack_task
def forget_data(name: str, *, store: MLTrackStore | str | None = None) -> list[NamedData]:
    """Remove the records of a name -> what it held; blobs stay until garbage collection.

    Raises NotFoundError if the name is unknown.
    """
    return content.forget_data(open_store(store), name, observe=report)
