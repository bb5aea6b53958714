"""Memory store: obstore's MemoryStore under the same interface. For tests and models of behaviour."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import MemoryStore as Objects

from mltrack_tasks import layout
from mltrack_tasks.digest import part_size_for, sha256_hex
from mltrack_tasks.errors import NotFoundError
from mltrack_tasks.stores.base import Level, Stat, Store, Upload, require_two_keys, sorted_folders
from mltrack_tasks.stores.lastlook import look_now


class MemoryStore(Store):
    """Keys in this process's memory, gone with the object."""

    def __init__(self, *, max_workers: int = 8) -> None:
        self.location = "memory:"
        self.max_workers = max_workers
        self.objects = Objects()

    def create(self, key: str, body: bytes | memoryview) -> bool:
        try:
            obstore.put(self.objects, layout.check_key(key), bytes(body), mode="create")
        except AlreadyExistsError:
            return False
        return True

    def replace(self, key: str, body: bytes | memoryview, etag: str) -> bool:
        version: obstore.UpdateVersion = {"e_tag": etag}
        try:
            obstore.put(self.objects, layout.check_key(key), bytes(body), mode=version)
        except (PreconditionError, FileNotFoundError):
            return False
        return True

    def upload(self, key: str, size: int, *, replacing: str | None = None) -> Upload:
        part_size_for(size)
        layout.check_key(key)
        return _MemoryUpload(self, key, replacing)

    def get(self, key: str) -> bytes:
        try:
            return bytes(obstore.get(self.objects, layout.check_key(key)).bytes())
        except FileNotFoundError:
            raise self._missing(key) from None

    def get_range(self, key: str, start: int, length: int) -> bytes | memoryview:
        return self.get(key)[start : start + length]

    def head(self, key: str, *, checksum: bool = False) -> Stat | None:
        try:
            meta = obstore.head(self.objects, layout.check_key(key))
            return _stat(meta, sha256_hex(self.get(key)) if checksum else None)
        except (FileNotFoundError, NotFoundError):
            return None

    def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
        for chunk in obstore.list(self.objects, prefix or None):
            yield from (_stat(meta) for meta in chunk if meta["path"] > after)

    def level(self, prefix: str) -> Level:
        if prefix:
            layout.check_key(prefix.rstrip("/"))
        found = obstore.list_with_delimiter(self.objects, prefix or None)
        objects = sorted((_stat(meta) for meta in found["objects"]), key=lambda stat: stat.key)
        names = (path[len(prefix) :] for path in found["common_prefixes"])
        return objects, sorted_folders(self, prefix, names)

    def copy(self, source: str, target: str, size: int) -> Stat:
        require_two_keys(source, target)
        layout.check_key(target)
        body = self.get(source)
        written = obstore.put(self.objects, target, body)
        return Stat(target, len(body), written["e_tag"], datetime.now(UTC))

    def delete(self, keys: Iterable[str]) -> None:
        for key in [layout.check_key(key) for key in keys]:
            look_now()
            try:
                obstore.delete(self.objects, key)
            except FileNotFoundError:
                continue

    def check(self, key: str) -> None:
        layout.check_key(key)

    def outer(self) -> Iterator[Store]:
        return iter(())

    def _missing(self, key: str) -> NotFoundError:
        return NotFoundError(f"{key} is not in {self.location}.", details={"key": key})


class _MemoryUpload(Upload):
    def __init__(self, store: MemoryStore, key: str, replacing: str | None) -> None:
        self._store, self._key, self._replacing = store, key, replacing
        self._parts: dict[int, bytes] = {}
        self._lock = threading.Lock()

    def part(self, number: int, body: bytes, digest: bytes) -> None:
        with self._lock:
            self._parts[number] = bytes(body)

    def complete(self) -> bool:
        whole = b"".join(self._parts[number] for number in sorted(self._parts))
        if self._replacing is not None:
            return self._store.replace(self._key, whole, self._replacing)
        return self._store.create(self._key, whole)

    def abort(self) -> None:
        self._parts.clear()


def _stat(meta: obstore.ObjectMeta, sha256: str | None = None) -> Stat:
    return Stat(meta["path"], meta["size"], meta["e_tag"], meta["last_modified"], sha256=sha256)
