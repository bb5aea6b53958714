"""Directory store: the bucket's layout on a local POSIX file system, as durable as the disk.

An object appears whole or not at all, and stays after a power cut: temporary file, fsync, link, fsync of
the folder. Copies are copies, never hard links to the user's files.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import RawIOBase
from pathlib import Path
from stat import S_ISREG

from mltrack_tasks import layout
from mltrack_tasks.digest import MiB, part_size_for
from mltrack_tasks.errors import IntegrityError, InvalidInputError, NotFoundError
from mltrack_tasks.stores.base import Level, Stat, Store, Upload, require_two_keys, sorted_folders
from mltrack_tasks.stores.files import checked_path, fsync_folder, hash_file, make_folders, os_errors
from mltrack_tasks.stores.lastlook import look_now

TEMPORARY = ".tmp"
_CHUNK = 8 * MiB
"""[bytes] held in memory while an object is copied."""


class DirectoryStore(Store):
    """A store under ``root``, which is created if it is missing. Relative paths are made absolute."""

    def __init__(self, root: str | Path, *, max_workers: int = 8, verify_reads: bool = True) -> None:
        self.root = checked_path(root).absolute()
        self.location = str(self.root)
        self.max_workers = max_workers
        self.verify_reads = verify_reads
        with os_errors(str(self.root)):
            if self.root.exists() and not self.root.is_dir():
                raise InvalidInputError(f"{self.root} is a file; a store needs a directory.")

    def create(self, key: str, body: bytes | memoryview) -> bool:
        with self._errors(key), self._temporary() as (temporary, descriptor):
            _write_all(descriptor, body)
            return self._publish(temporary, descriptor, key)

    def replace(self, key: str, body: bytes | memoryview, etag: str) -> bool:
        with self._errors(key), self._temporary() as (temporary, descriptor):
            _write_all(descriptor, body)
            return self._swap(temporary, descriptor, key, etag)

    def upload(self, key: str, size: int, *, replacing: str | None = None) -> Upload:
        self._path(key)
        return _DirectoryUpload(self, key, part_size_for(size), replacing)

    def get(self, key: str) -> bytes:
        with self._errors(key):
            return self._path(key).read_bytes()

    def get_range(self, key: str, start: int, length: int) -> bytes | memoryview:
        with self._errors(key), self._path(key).open("rb", buffering=0) as file:
            return os.pread(file.fileno(), length, start)

    def head(self, key: str, *, checksum: bool = False) -> Stat | None:
        path = self._path(key)
        with self._errors(key):
            try:
                found = path.stat()
                if not S_ISREG(found.st_mode):
                    return None
                if not checksum:
                    return _stat(key, found)
                fsync_folder(path.parent)  # whoever asks in earnest will rely on its being there
                return _stat(key, found, hash_file(path))
            except (FileNotFoundError, NotADirectoryError):
                return None

    def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
        folder = self._path(prefix.rstrip("/")) if prefix else self.root
        with self._errors(prefix):
            for key, entry in _walk(str(folder), prefix):
                if key > after and not key.startswith(f"{TEMPORARY}/"):
                    yield from _stat_if_there(key, entry)

    def level(self, prefix: str) -> Level:
        folder = self._path(prefix.rstrip("/")) if prefix else self.root
        found: Level = ([], [])
        with self._errors(prefix):
            for entry, is_folder in _entries(str(folder)):
                if not is_folder and entry.is_file(follow_symlinks=False):
                    found[0].extend(_stat_if_there(prefix + entry.name, entry))
                elif is_folder and prefix + entry.name != TEMPORARY and _holds_a_file(entry.path):
                    found[1].append(entry.name)
        return found[0], sorted_folders(self, prefix, found[1])

    def copy(self, source: str, target: str, size: int) -> Stat:
        require_two_keys(source, target)
        self._path(target)
        with (
            self._errors(source),
            self._path(source).open("rb", buffering=0) as file,
            os_errors(f"{self.location}/{target}"),
            self._temporary() as (temporary, descriptor),
        ):
            _copy_all(file, descriptor)
            self._put_over(temporary, descriptor, target)
            return _stat(target, os.fstat(descriptor))

    def delete(self, keys: Iterable[str]) -> None:
        for path in [self._path(key) for key in keys]:
            look_now()
            with os_errors(str(path)), suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                path.unlink()

    def unfinished(self) -> Iterator[Stat]:
        return (_stat(key, found) for key, found in _temporaries(self.root / TEMPORARY))

    def check(self, key: str) -> None:
        layout.check_key(key)

    def outer(self) -> Iterator[Store]:
        for parent in self.root.parents:
            yield DirectoryStore(parent)

    def _path(self, key: str) -> Path:
        """Place of a key; IntegrityError where a symbolic link would lead elsewhere: we never make one."""
        path = self.root.joinpath(*layout.check_key(key).split("/"))
        if os.path.realpath(path) != os.path.join(os.path.realpath(self.root), key):
            raise IntegrityError(
                f"{key} in {self.location} is or lies behind a symbolic link; remove the link."
            )
        return path

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        with os_errors(f"{self.location}/{key}"):
            try:
                yield
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise NotFoundError(f"{key} is not in {self.location}.", details={"key": key}) from None

    @contextmanager
    def _temporary(self) -> Iterator[tuple[Path, int]]:
        """A new file in the temporary folder, open for writing; whatever happens, its name is removed."""
        if not self.root.is_dir():
            make_folders(self.root)
        (self.root / TEMPORARY).mkdir(exist_ok=True)  # need not last
        path = self.root / TEMPORARY / secrets.token_hex(16)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            yield path, descriptor
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)

    def _publish(self, temporary: Path, descriptor: int, key: str) -> bool:
        target = self._path(key)
        os.fsync(descriptor)
        make_folders(target.parent)
        try:
            os.link(temporary, target)
        except FileExistsError:
            # Its writer may not have come to its fsync yet, and "it is there" must survive a power cut.
            fsync_folder(target.parent)
            if not target.is_file():
                raise IntegrityError(
                    f"{target} is no plain file; something else put it there. Remove it."
                ) from None
            return False
        fsync_folder(target.parent)
        return True

    def _swap(self, temporary: Path, descriptor: int, key: str, etag: str) -> bool:
        target = self._path(key)
        os.fsync(descriptor)
        with self._lock():
            now = self.head(key)
            if now is None or now.etag != etag:
                return False
            os.replace(temporary, target)
            fsync_folder(target.parent)
        return True

    def _put_over(self, temporary: Path, descriptor: int, key: str) -> None:
        target = self._path(key)
        os.fsync(descriptor)
        make_folders(target.parent)
        with self._lock():
            os.replace(temporary, target)
            fsync_folder(target.parent)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Serialise replacements between processes: compare and rename is not one system call."""
        descriptor = os.open(self.root / TEMPORARY / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class _DirectoryUpload(Upload):
    """Parts written at their place in one temporary file."""

    def __init__(self, store: DirectoryStore, key: str, part_size: int, replacing: str | None) -> None:
        self._store, self._key, self._part_size, self._replacing = store, key, part_size, replacing
        with store._errors(key):
            self._open = store._temporary()
            self._path, self._descriptor = self._open.__enter__()
        self._closed = False

    def part(self, number: int, body: bytes, digest: bytes) -> None:
        with self._store._errors(self._key):
            _write_all(self._descriptor, body, (number - 1) * self._part_size)

    def complete(self) -> bool:
        with self._store._errors(self._key):
            if self._replacing is not None:
                return self._store._swap(self._path, self._descriptor, self._key, self._replacing)
            return self._store._publish(self._path, self._descriptor, self._key)

    def abort(self) -> None:
        if not self._closed:
            self._closed = True
            self._open.__exit__(None, None, None)


def _write_all(descriptor: int, body: bytes | memoryview, offset: int = 0) -> None:
    view = memoryview(body)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _copy_all(file: RawIOBase, descriptor: int) -> None:
    """Copy byte by byte: a second name of the same file would share its fate."""
    offset = 0
    while chunk := file.read(_CHUNK):
        _write_all(descriptor, chunk, offset)
        offset += len(chunk)


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """All plain files below ``folder`` as (key, entry), in key order, one folder's names in memory.

    Symbolic links are not followed: they may lead outside.
    """
    for entry, is_folder in _entries(folder):
        if is_folder:
            yield from _walk(entry.path, f"{prefix}{entry.name}/")
        elif entry.is_file(follow_symlinks=False):
            yield prefix + entry.name, entry


def _entries(folder: str) -> list[tuple[os.DirEntry[str], bool]]:
    """What is in ``folder``, each with whether it is a folder itself, in the order of keys."""
    try:
        entries = [(entry, entry.is_dir(follow_symlinks=False)) for entry in os.scandir(folder)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(entries, key=lambda item: item[0].name + "/" * item[1])


def _holds_a_file(folder: str) -> bool:
    """Whether there is an object anywhere below: deletions leave empty folders behind."""
    return next(_walk(folder, ""), None) is not None


def _stat_if_there(key: str, entry: os.DirEntry[str]) -> Iterator[Stat]:
    try:
        yield _stat(key, entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        return  # deleted between the walk and the look


def _temporaries(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Files that a writer has not published, or left behind when it died."""
    for entry, is_folder in _entries(str(folder)):
        with suppress(FileNotFoundError):
            if not is_folder and entry.name != "lock":
                yield f"{TEMPORARY}/{entry.name}", entry.stat(follow_symlinks=False)


def _stat(key: str, raw: os.stat_result, sha256: str | None = None) -> Stat:
    etag = f"{raw.st_ino:x}-{raw.st_mtime_ns:x}-{raw.st_size:x}"
    modified = datetime.fromtimestamp(raw.st_mtime, UTC)
    return Stat(key, raw.st_size, etag, modified, sha256=sha256)
