"""Read cache: pieces of blobs on local disk, by digest, verified, least recently used out first.

One file a piece, named by blob and range, holding the piece behind its own SHA-256, so that a damaged file is
noticed and dropped. Files appear by rename, and a file that another process removed is a miss: processes
share a cache without locks, except while one makes room.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mltrack_tasks import layout
from mltrack_tasks.errors import InvalidInputError, MLTrackError
from mltrack_tasks.events import logger
from mltrack_tasks.stores.base import Stat, Store, WrapperStore
from mltrack_tasks.stores.files import checked_path, os_errors

FOLDER = "mltrack-cache"
"""What a cache makes in the directory that it is given; it looks at and removes nothing beside it."""
_DIGEST_SIZE = 32
_LOCK = ".lock"
_SLACK = 10
"""Room is made down to 1 - 1/_SLACK of the limit, and looked at again after 1/_SLACK of it was added."""


class CachedStore(WrapperStore):
    """Keeps what is read of blobs under ``folder``, up to ``max_bytes`` in all. Records are never cached.

    Several stores may share a folder: a blob is the same bytes wherever it was read.
    """

    def __init__(self, inner: Store, folder: str | Path, max_bytes: int) -> None:
        super().__init__(inner)
        if max_bytes < 1:
            raise InvalidInputError(f"cache_max_bytes is {max_bytes}; give a positive number of bytes.")
        self.folder = checked_path(folder).absolute() / FOLDER
        self.max_bytes = max_bytes
        self._added = max_bytes  # unknown at first: look at the folder when something is added
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes:
        return bytes(self._through(key, "all", lambda: self.inner.get(key)))

    def get_range(self, key: str, start: int, length: int) -> bytes | memoryview:
        return self._through(key, f"{start}-{length}", lambda: self.inner.get_range(key, start, length))

    def copy(self, source: str, target: str, size: int) -> Stat:
        """Copy, and forget what was kept of ``target``: also after an error, which may hide a success."""
        try:
            return self.inner.copy(source, target, size)
        finally:
            self.evict(target)

    def evict(self, key: str) -> bool:
        """Drop every piece of a blob: True if there was one."""
        found = False
        with os_errors(f"The cache {self.folder}"):
            for path in self._pieces(key):
                path.unlink(missing_ok=True)
                found = True
        return self.inner.evict(key) or found

    def uncached(self) -> Store:
        return self.inner.uncached()

    def _through(self, key: str, piece: str, read: Callable[[], bytes | memoryview]) -> bytes | memoryview:
        folder = self._folder_of(key)
        if folder is None:
            return read()
        cached = _load(folder / piece)
        if cached is not None:
            return cached
        body = read()
        if len(body) + _DIGEST_SIZE <= self.max_bytes // 2:
            try:
                self._keep(folder / piece, body)
            except MLTrackError as error:  # a full or read-only disk: what was read is good all the same
                logger.warning("not cached: %s", error)
        return body

    def _folder_of(self, key: str) -> Path | None:
        blob = layout.parse_blob_key(key)
        return self.folder / blob[0][:2] / f"{blob[0]}.{blob[1]}" if blob else None

    def _pieces(self, key: str) -> Iterator[Path]:
        folder = self._folder_of(key)
        if folder is not None and folder.is_dir():
            yield from folder.iterdir()

    def _keep(self, path: Path, body: bytes | memoryview) -> None:
        with os_errors(f"The cache {self.folder}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{secrets.token_hex(8)}")
            try:
                temporary.write_bytes(hashlib.sha256(body).digest() + body)
                temporary.rename(path)
            except FileNotFoundError:
                return  # another process emptied the folder meanwhile; the piece is simply not kept
            finally:
                temporary.unlink(missing_ok=True)
            self._count(len(body) + _DIGEST_SIZE)

    def _count(self, size: int) -> None:
        with self._lock:
            self._added += size
            if self._added < self.max_bytes // _SLACK:
                return
            self._added = 0
        with _exclusive(self.folder / _LOCK):
            _make_room(self.folder, self.max_bytes - self.max_bytes // _SLACK)


def _load(path: Path) -> bytes | None:
    """Read a piece, or None if it is missing or damaged (then it is dropped)."""
    with os_errors(f"The cache file {path}"):
        try:
            raw = path.read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
    body = raw[_DIGEST_SIZE:]
    intact = hashlib.sha256(body).digest() == raw[:_DIGEST_SIZE]
    with suppress(OSError):  # gone meanwhile, or a cache that we may only read: it serves all the same
        if intact:
            os.utime(path)
        else:
            path.unlink()
    return body if intact else None


def _make_room(folder: Path, limit: int) -> None:
    """Remove the least recently used files until at most ``limit`` bytes remain."""
    files = []
    for path in folder.glob("??/*/*"):
        with suppress(FileNotFoundError):
            stat = path.lstat()
            files.append((stat.st_mtime_ns, stat.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
