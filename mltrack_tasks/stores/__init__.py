"""Stores: S3, a directory or memory behind one small interface, and stores around stores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mltrack_tasks.stores.base import Stat, Store, Upload

if TYPE_CHECKING:
    from mltrack_tasks.stores.s3_settings import S3Settings

DEFAULT_CACHE_BYTES = 10 * 1024**3

__all__ = ["Stat", "Store", "Upload", "open_directory", "open_memory", "open_s3"]


def open_s3(
    settings: S3Settings, *, cache_dir: str | Path | None = None, cache_max_bytes: int = DEFAULT_CACHE_BYTES
) -> Store:
    """Open a prefix of a bucket, with retries, an optional read cache, and the format checked.

    Sends nothing yet. Raises AccessError if no credentials can be found.
    """
    from mltrack_tasks.stores.retry import RetryingStore
    from mltrack_tasks.stores.s3 import S3Store

    return _furnish(RetryingStore(S3Store(settings)), cache_dir, cache_max_bytes)


def open_directory(
    path: str | Path,
    *,
    max_workers: int = 8,
    verify_reads: bool = True,
    cache_dir: str | Path | None = None,
    cache_max_bytes: int = DEFAULT_CACHE_BYTES,
) -> Store:
    """Open a directory with the bucket's layout; it is created with the first write."""
    from mltrack_tasks.stores.directory import DirectoryStore

    store = DirectoryStore(path, max_workers=max_workers, verify_reads=verify_reads)
    return _furnish(store, cache_dir, cache_max_bytes)


def open_memory() -> Store:
    """Open an empty store in this process's memory."""
    from mltrack_tasks.stores.memory import MemoryStore

    return _furnish(MemoryStore(), None, DEFAULT_CACHE_BYTES)


def _furnish(store: Store, cache_dir: str | Path | None, cache_max_bytes: int) -> Store:
    from mltrack_tasks.stores.cache import CachedStore
    from mltrack_tasks.stores.guard import GuardedStore

    if cache_dir is not None:
        store = CachedStore(store, cache_dir, cache_max_bytes)
    return GuardedStore(store)
