"""Durable files: the few system calls that make a write survive, and their errors."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mltrack_tasks.errors import AccessError, InvalidInputError, MLTrackError, TransientError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def checked_path(path: object) -> Path:
    """Admit what names a file or folder, with ``~`` for a home, or raise InvalidInputError."""
    if not isinstance(path, (str, Path)) or not str(path) or "\0" in str(path):
        raise InvalidInputError(f"{path!r} is not a path.")
    try:
        expanded = Path(path).expanduser()
        os.fsencode(expanded)
    except (RuntimeError, UnicodeEncodeError) as error:
        raise InvalidInputError(f"The path {str(path)!r} cannot be used: {error}. Write it out.") from error
    return expanded


def hash_file(path: Path) -> str:
    """Digest of a file's bytes -> 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(folder: Path) -> None:
    """Create ``folder`` and what is missing above it, each name made durable.

    The deepest folder that is there counts as new too: another writer may just have made it.
    """
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    fsync_folder(folder.parent)
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        fsync_folder(new.parent)


@contextmanager
def os_errors(what: str) -> Iterator[None]:
    """Turn an OSError into the class that says what to do about it."""
    try:
        yield
    except OSError as error:
        if isinstance(error, MLTrackError):
            raise
        raise _translated(error, what) from error


def _translated(error: OSError, what: str) -> MLTrackError:
    if error.errno in _FULL:
        return AccessError(f"{what}: the disk or quota is full. Free some space and run it again.")
    if error.errno in _DENIED:
        return AccessError(f"{what}: {error.strerror}. Grant this user access to the path.")
    if error.errno == errno.ENAMETOOLONG:
        return InvalidInputError(f"{what}: the file system refuses names of this length. Shorten it.")
    if error.errno in (errno.ELOOP, errno.ENXIO) or isinstance(
        error, (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
    ):
        return InvalidInputError(f"{what}: {error.strerror}. Check the path.")
    return TransientError(f"{what}: {error.strerror or error}. Try again; if it stays, check the disk.")
