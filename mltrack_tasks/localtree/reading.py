"""Read plain files, and only the ones that were meant."""

from __future__ import annotations

import hashlib
import os
from stat import S_ISREG
from typing import BinaryIO, NoReturn

from mltrack_tasks.errors import SourceChangedError
from mltrack_tasks.filetree import Entry
from mltrack_tasks.localtree.folders import Folders, is_elsewhere, refuse, split

READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""How files are opened. O_NONBLOCK: a pipe that took a file's place must not hold us up."""

_CHUNK = 1024 * 1024


def read(folders: Folders, entry: Entry) -> bytes:
    """Read a whole file, if it is the one that ``entry`` describes before and after."""
    above, name = split(entry.path)
    try:
        folder = folders.get(above)
        body = read_in(folder.descriptor, name, entry)
    except OSError as error:
        _fail(error, folders, entry.path)
    if body is None:
        raise _changed(folders, entry.path)
    return body


def read_in(folder: int, name: str, entry: Entry) -> bytes | None:
    """Read a whole file of an open folder; None if it is another than ``entry`` says, before or after."""
    descriptor = os.open(name, READ, dir_fd=folder)
    try:
        if not _is_same(entry, os.fstat(descriptor)):
            return None
        body = _read_all(descriptor, entry.size)
        return body if len(body) == entry.size and _is_same(entry, os.fstat(descriptor)) else None
    finally:
        os.close(descriptor)


def open_file(folders: Folders, path: str) -> BinaryIO:
    """Open a plain file, unbuffered."""
    try:
        descriptor = open_in(folders, path)
        try:
            if not S_ISREG(os.fstat(descriptor).st_mode):
                raise _changed(folders, path)
            return os.fdopen(descriptor, "rb", buffering=0)
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        _fail(error, folders, path)


def open_in(folders: Folders, path: str) -> int:
    """Open what is at a path for reading -> descriptor. It may be anything but a link."""
    above, name = split(path)
    folder = folders.get(above)
    return os.open(name, READ, dir_fd=folder.descriptor)


def hash_open(descriptor: int) -> tuple[int, str] | None:
    """Read an open file from its start -> size [bytes] and digest; None if it is none, or just changed."""
    before = os.fstat(descriptor)
    if not S_ISREG(before.st_mode):
        return None
    hasher, size = hashlib.sha256(), 0
    at_once = min(before.st_size + 1, _CHUNK)
    while chunk := os.read(descriptor, at_once):
        hasher.update(chunk)
        size += len(chunk)
    after = os.fstat(descriptor)
    if (after.st_size, after.st_mtime_ns) != (size, before.st_mtime_ns):
        return None
    return size, hasher.hexdigest()


def _read_all(descriptor: int, size: int) -> bytes:
    """Read ``size`` bytes, and one more if there is one."""
    body = os.read(descriptor, size + 1)
    if len(body) >= size:
        return body
    parts = [body]  # a signal, or a system that reads at most 2 GiB at a time
    while body:
        size -= len(body)
        body = os.read(descriptor, size + 1)
        parts.append(body)
    return b"".join(parts)


def _is_same(entry: Entry, found: os.stat_result) -> bool:
    return (
        found.st_size == entry.size
        and found.st_mtime_ns == entry.mtime_ns
        and S_ISREG(found.st_mode)
        and (not entry.inode or found.st_ino == entry.inode)
    )


def _changed(folders: Folders, path: str) -> SourceChangedError:
    return SourceChangedError(
        f"{folders.spell(path)} is not the file any more that was found there. Run it again.",
        details={"path": path},
    )


def _fail(error: OSError, folders: Folders, path: str) -> NoReturn:
    if is_elsewhere(error):
        raise _changed(folders, path) from error
    refuse(error, folders.spell(path))
