"""A store that knows whose prefix this is: ``format.json`` is read or created before anything is written."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from copy import copy

from mltrack_tasks import canonical, layout
from mltrack_tasks.errors import (
    AccessError,
    ConflictError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    TransientError,
)
from mltrack_tasks.records import FORMAT, check_format
from mltrack_tasks.stores.base import Level, Stat, Store, Upload, WrapperStore

_TRIES = 6
_FORMAT_LIMIT = 64 * 1024
"""[bytes] read of a ``format.json``; ours has 58, that of a replica 106."""
REPLICA_FOLDER = "replica/"
REPLICA_ENDED = f"{REPLICA_FOLDER}ended.json"
"""The record that says that a replica has become a store of its own."""
_OWN_OF_REPLICA = (REPLICA_FOLDER, "audits/", layout.CATALOG, ".probe/")
"""Where anybody may write in a replica: nothing there comes from the store that it copies."""


class GuardedStore(WrapperStore):
    """Checks the format before the first read, and makes sure of format and server before the first write.

    Raises FormatError for a store of a newer format, InvalidInputError for a prefix inside another store,
    ConflictError for writing to a replica, AccessError for a server that ignores ``If-None-Match``: there,
    racing writers overwrite each other.
    """

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self._lock = threading.Lock()
        self._store_id: str | None = None
        self._replica_of: str | None = None
        self._replicating = False
        self._readable = self._writable = False

    @property
    def store_id(self) -> str | None:
        """Identity of this store, or None while nothing was ever written to it."""
        self._before_read()
        return self._store_id

    @property
    def replica_of(self) -> str | None:
        """Identity of the store whose replica this was made as, or None; see ``replica_ended``."""
        self._before_read()
        return self._replica_of

    def replica_ended(self) -> bool:
        """Ask whether a replica has become a store of its own."""
        return self.inner.head(REPLICA_ENDED) is not None

    def create(self, key: str, body: bytes | memoryview) -> bool:
        self._before_write(key)
        return self.inner.create(key, body)

    def replace(self, key: str, body: bytes | memoryview, etag: str) -> bool:
        self._before_write(key)
        return self.inner.replace(key, body, etag)

    def upload(self, key: str, size: int, *, replacing: str | None = None) -> Upload:
        self._before_write(key)
        return self.inner.upload(key, size, replacing=replacing)

    def copy(self, source: str, target: str, size: int) -> Stat:
        self._before_write(target)
        return self.inner.copy(source, target, size)

    def delete(self, keys: Iterable[str]) -> None:
        doomed = list(keys)
        self._before_write(*doomed)
        self.inner.delete(doomed)

    def get(self, key: str) -> bytes:
        self._before_read()
        return self.inner.get(key)

    def head(self, key: str, *, checksum: bool = False) -> Stat | None:
        self._before_read()
        return self.inner.head(key, checksum=checksum)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
        self._before_read()
        return self.inner.list(prefix, after=after)

    def level(self, prefix: str) -> Level:
        self._before_read()
        return self.inner.level(prefix)

    def unfinished(self) -> Iterator[Stat]:
        self._before_read()
        return self.inner.unfinished()

    def get_range(self, key: str, start: int, length: int) -> bytes | memoryview:
        self._before_read()
        return self.inner.get_range(key, start, length)

    def _before_read(self) -> None:
        with self._lock:
            if not self._readable:
                self._read_format()
                self._readable = True

    def _before_write(self, *keys: str) -> None:
        with self._lock:
            if not self._writable:
                body = self._read_format() or self._create_format()
                self._require_create_only(body)
                self._readable = self._writable = True
            if self._replica_of is not None and not self._replicating:
                self._refuse_replica(keys)

    def _refuse_replica(self, keys: Iterable[str]) -> None:
        if all(key.startswith(_OWN_OF_REPLICA) for key in keys):
            return
        if self.replica_ended():
            self._replica_of = None  # for good: nothing makes it a replica again
            return
        raise ConflictError(
            f"{self.location} is a replica of the store {self._replica_of}: only replicate_store writes to "
            "it. Write to that store; if it is lost, end_replication makes this one a store of its own.",
            details={"replica_of": self._replica_of},
        )

    def begin_replica(self, source_id: str) -> None:
        """Make this place a replica of a store, if nothing is there yet; does nothing if it is one.

        Raises ConflictError if it is a store of its own, or a replica of another.
        """
        if self.store_id is None:
            with self._lock:
                self._create_format(source_id)
        if self._replica_of != source_id:
            raise ConflictError(
                f"{self.location} is no replica of the store {source_id}: it is "
                f"{f'one of {self._replica_of}' if self._replica_of else 'a store of its own'}. Choose an "
                "empty prefix.",
                existing=self._replica_of,
                offered=source_id,
            )
        if self.replica_ended():
            raise ConflictError(
                f"{self.location} was a replica of {source_id}, and is a store of its own by now "
                f"({REPLICA_ENDED}). Choose an empty prefix."
            )

    def _read_format(self) -> bytes | None:
        what = f"{self.location}/{layout.FORMAT_KEY}"
        try:
            body = bytes(self.inner.get_range(layout.FORMAT_KEY, 0, _FORMAT_LIMIT))
        except NotFoundError:
            return None
        raw = canonical.loads(body, what=what)
        if not isinstance(raw, dict) or type(raw.get("format")) is not int:
            raise IntegrityError(f"{what} has no format number; something else wrote it.")
        check_format(raw["format"], what)
        self._store_id = str(raw.get("store_id"))
        self._replica_of = None if raw.get("replica_of") is None else str(raw["replica_of"])
        return body

    def require_own_place(self) -> None:
        """Raise InvalidInputError if this place is no store yet and lies inside one."""
        if self.store_id is None:
            for outer in self.inner.outer():
                _refuse_store(outer, self.location)

    def _create_format(self, replica_of: str | None = None) -> bytes:
        for outer in self.inner.outer():
            _refuse_store(outer, self.location)
        self._store_id, self._replica_of = uuid.uuid4().hex, replica_of
        origin = {} if replica_of is None else {"replica_of": replica_of}
        body = canonical.dumps({"format": FORMAT, "store_id": self._store_id, **origin})
        for attempt in range(_TRIES):
            if self.inner.create(layout.FORMAT_KEY, body):
                return body
            winner = self._read_format()  # the loser adopts the winner's
            if winner is not None:
                return winner
            if attempt + 1 < _TRIES:
                time.sleep(0.1 * 2**attempt)  # a competing write still in flight
        raise TransientError(
            f"{layout.FORMAT_KEY} of {self.location} can neither be created nor read. Try again."
        )

    def _require_create_only(self, body: bytes) -> None:
        # format.json exists now, so a server that keeps the condition must refuse; one that does not has
        # been given the bytes that it already holds.
        if self.inner.create(layout.FORMAT_KEY, body):
            raise AccessError(
                f"The server of {self.location} ignores If-None-Match: racing writers would overwrite each "
                "other's records. Use a server that honours it: AWS S3, MinIO, Ceph RGW."
            )


def for_replication(store: Store) -> Store:
    """The same store, allowed to write where it is a replica: for those who bring it what its source has."""
    if not isinstance(store, WrapperStore):
        return store
    other = copy(store)
    if isinstance(other, GuardedStore):
        other._replicating = True
    else:
        other.inner = for_replication(store.inner)
    return other


def guard_of(store: Store) -> GuardedStore:
    """The guard among a store's wrappers; one is put around a store that has none."""
    found: Store = store
    while isinstance(found, WrapperStore):
        if isinstance(found, GuardedStore):
            return found
        found = found.inner
    return GuardedStore(store)


def _refuse_store(outer: Store, inside: str) -> None:
    try:
        body = bytes(outer.get_range(layout.FORMAT_KEY, 0, _FORMAT_LIMIT))
    except (AccessError, NotFoundError, IntegrityError):
        return  # nothing there, a link that no store makes, or a policy that ends at our prefix hides it
    if _is_format(body):
        raise InvalidInputError(
            f"{inside} lies inside the store {outer.location}; a store cannot hold another. Choose a place "
            f"beside it, or, if nothing uses that store, remove its {layout.FORMAT_KEY}."
        )


def _is_format(body: bytes) -> bool:
    """Whether this is a store's ``format.json``, and not that of some other program."""
    try:
        raw = canonical.loads(body, what=layout.FORMAT_KEY)
    except IntegrityError:
        return False
    return isinstance(raw, dict) and type(raw.get("format")) is int and "store_id" in raw
