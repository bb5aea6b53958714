"""The store: a place where keys can be created once and read. Everything above sees only this."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self, TypeAlias

from mltrack_tasks.errors import InvalidInputError, MLTrackError

_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE", "ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS")
"""Storage classes, and archive tiers of INTELLIGENT_TIERING, whose objects must be restored to be read."""


@dataclass(frozen=True, slots=True)
class Stat:
    """What a store says of one object.

    ``sha256`` is a digest that the store itself computed over the whole object, ``composite`` the checksum
    of one that was written in parts; both are None unless asked for, or where the store keeps none.
    ``storage_class`` too comes with the checksum only, and is None for STANDARD.
    """

    key: str
    size: int
    etag: str | None
    modified: datetime
    storage_class: str | None = None
    restored: bool = False
    restoring: bool = False
    sha256: str | None = None
    composite: str | None = None

    @property
    def archived(self) -> bool:
        """Whether the object must be restored before it can be read."""
        return self.storage_class in _ARCHIVES and not self.restored


@dataclass(frozen=True, slots=True)
class Older:
    """An earlier version of an object, and how its bytes are read."""

    size: int
    modified: datetime
    read: Callable[[], Iterator[bytes]]


Level: TypeAlias = tuple[list[Stat], list[str]]
"""What is directly below a prefix: its objects in key order, and the names of its folders, sorted."""


class Upload(ABC):
    """A large object on its way in parts. Leaving the ``with`` block before ``complete`` aborts it."""

    @abstractmethod
    def part(self, number: int, body: bytes, digest: bytes) -> None:
        """Send part ``number`` (from 1) with its raw SHA-256, from any thread; sent again, it is replaced."""

    @abstractmethod
    def complete(self) -> bool:
        """Make the object visible, create-only: True if created, False if the key was taken."""

    @abstractmethod
    def abort(self) -> None:
        """Drop the parts. Does nothing after ``complete``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.abort()
        except MLTrackError as failed:
            if error is None:
                raise
            error.add_note(f"The parts sent so far could not be dropped either: {failed}")


class Store(ABC):
    """Bucket + prefix, directory or memory. Keys are relative to it; every verb is safe in any thread."""

    location: str
    """Where this is, for messages: ``s3://bucket/prefix`` or a path. Holds no secret."""
    max_workers: int = 8
    """How many requests an operation keeps in flight."""
    verify_reads: bool = True
    """Whether blobs are hashed when read."""

    @abstractmethod
    def create(self, key: str, body: bytes | memoryview) -> bool:
        """Write ``key`` if nothing is there: True if written.

        False says that something was there, or that a competing write was in flight: read it to know.
        """

    @abstractmethod
    def replace(self, key: str, body: bytes | memoryview, etag: str) -> bool:
        """Overwrite ``key`` if its ETag still is ``etag``: True if written. Only for healing."""

    @abstractmethod
    def upload(self, key: str, size: int, *, replacing: str | None = None) -> Upload:
        """Begin to write ``size`` bytes in parts of ``digest.part_size_for(size)``.

        With ``replacing`` the object of that ETag is overwritten, as in ``replace``.
        """

    @abstractmethod
    def get(self, key: str) -> bytes:
        """Read a whole object; NotFoundError if it is missing."""

    @abstractmethod
    def get_range(self, key: str, start: int, length: int) -> bytes | memoryview:
        """Read at most ``length`` bytes from ``start``; fewer only at the object's end."""

    @abstractmethod
    def head(self, key: str, *, checksum: bool = False) -> Stat | None:
        """Describe ``key``, or None. ``checksum`` asks for what the store knows of its bytes."""

    @abstractmethod
    def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
        """Describe all keys under ``prefix`` (empty or ending in ``/``), in key order.

        ``after`` leaves out keys up to and including it. Foreign objects may be among them.
        """

    @abstractmethod
    def level(self, prefix: str) -> Level:
        """Describe one level below ``prefix`` (empty or ending in ``/``) -> (objects, names of folders).

        Foreign objects may be among them; folders in which no key of this store can lie (``a//``) are not.
        """

    @abstractmethod
    def copy(self, source: str, target: str, size: int) -> Stat:
        """Copy the object of ``size`` bytes at ``source`` over whatever is at ``target``, another key.

        -> what the store says of the copy while copying: its checksums are None where it tells none. A large
        object is copied in parts of ``digest.part_size_for(size)``. Raises NotFoundError if ``source`` is
        missing, ArchivedError if it must be restored first.
        """

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Delete keys; missing ones are fine."""

    @abstractmethod
    def check(self, key: str) -> None:
        """Raise InvalidInputError for a key that cannot be in this store. Asks nobody."""

    @abstractmethod
    def outer(self) -> Iterator[Store]:
        """Stores at each folder above this one: where another store may not be."""

    def evict(self, key: str) -> bool:
        """Forget a cached copy of ``key``: True if there was one and reading again may differ."""
        return False

    def uncached(self) -> Store:
        """This store without any read cache: what it reads is what is there."""
        return self

    def placing(self, storage_class: str) -> Store:
        """This store, with new blobs in another storage class; InvalidInputError where there is none."""
        raise InvalidInputError(f"{self.location} has no storage classes; leave storage_class out.")

    def unfinished(self) -> Iterator[Stat]:
        """Describe writes that were begun and neither finished nor dropped: keys, and when they began."""
        return iter(())

    def older(self, key: str) -> Iterator[Older]:
        """Name the earlier versions of an object that are kept, newest first; none where none are."""
        return iter(())

    def undelete(self, folder: str) -> int:
        """Bring back what was deleted below ``folder`` and not written again -> how many objects.

        0 where no versions are kept, or not those any more.
        """
        return 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.location}>"


class WrapperStore(Store):
    """A store around a store: passes everything on. Subclasses change one thing."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.location = inner.location
        self.max_workers = inner.max_workers
        self.verify_reads = inner.verify_reads

    def create(self, key: str, body: bytes | memoryview) -> bool:
        return self.inner.create(key, body)

    def replace(self, key: str, body: bytes | memoryview, etag: str) -> bool:
        return self.inner.replace(key, body, etag)

    def upload(self, key: str, size: int, *, replacing: str | None = None) -> Upload:
        return self.inner.upload(key, size, replacing=replacing)

    def get(self, key: str) -> bytes:
        return self.inner.get(key)

    def get_range(self, key: str, start: int, length: int) -> bytes | memoryview:
        return self.inner.get_range(key, start, length)

    def head(self, key: str, *, checksum: bool = False) -> Stat | None:
        return self.inner.head(key, checksum=checksum)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
        return self.inner.list(prefix, after=after)

    def level(self, prefix: str) -> Level:
        return self.inner.level(prefix)

    def copy(self, source: str, target: str, size: int) -> Stat:
        return self.inner.copy(source, target, size)

    def delete(self, keys: Iterable[str]) -> None:
        self.inner.delete(keys)

    def check(self, key: str) -> None:
        self.inner.check(key)

    def outer(self) -> Iterator[Store]:
        return self.inner.outer()

    def evict(self, key: str) -> bool:
        return self.inner.evict(key)

    def uncached(self) -> Store:
        return self._around(self.inner.uncached())

    def placing(self, storage_class: str) -> Store:
        return self._around(self.inner.placing(storage_class))

    def _around(self, inner: Store) -> Store:
        other = copy(self)
        other.inner = inner
        return self if inner is self.inner else other

    def unfinished(self) -> Iterator[Stat]:
        return self.inner.unfinished()

    def older(self, key: str) -> Iterator[Older]:
        return self.inner.older(key)

    def undelete(self, folder: str) -> int:
        return self.inner.undelete(folder)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.inner!r}>"


class WrapperUpload(Upload):
    """An upload around an upload."""

    def __init__(self, inner: Upload) -> None:
        self.inner = inner

    def part(self, number: int, body: bytes, digest: bytes) -> None:
        self.inner.part(number, body, digest)

    def complete(self) -> bool:
        return self.inner.complete()

    def abort(self) -> None:
        self.inner.abort()


def require_two_keys(source: str, target: str) -> None:
    """Refuse to copy a key onto itself: S3 does, and no store needs it."""
    if source == target:
        raise InvalidInputError(f"{source} cannot be copied onto itself; give another key.")


def sorted_folders(store: Store, prefix: str, names: Iterable[str]) -> list[str]:
    """Sort the names of folders below ``prefix``, without those in which no key of ``store`` can lie."""
    return sorted(name for name in names if _admits(store, f"{prefix}{name}"))


def _admits(store: Store, key: str) -> bool:
    try:
        store.check(key)
    except InvalidInputError:
        return False
    return True
