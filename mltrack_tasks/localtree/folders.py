"""Folders below a root, opened name by name, so that no symbolic link is ever followed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import NoReturn

from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.paths import path_bytes
from mltrack_tasks.stores.files import checked_path, os_errors

KEPT = 64
"""Folders that are kept open: the last ones, whatever the number of threads."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_ELSEWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ESTALE)


class Folder:
    """A folder held open. Its descriptor closes with the last reference to the folder.

    So keep the folder in a variable while its descriptor is used: another thread may push it out of those
    that are kept, and the number of a closed descriptor is given to the next file.
    """

    __slots__ = ("descriptor", "identity")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        found = os.fstat(descriptor)
        self.identity = (found.st_dev, found.st_ino)

    def __del__(self) -> None:
        os.close(self.descriptor)


class Folders:
    """The folders of one tree. Every method may be called from several threads.

    Methods raise OSError: their callers know what it means. A path that is not plainly relative is an
    InvalidInputError.
    """

    def __init__(self, root: str | Path) -> None:
        given = checked_path(root)
        with os_errors(str(root)):
            self.path = Path(os.path.realpath(given, strict=True))
            self.root = Folder(os.open(self.path, _FOLDER))
        self._kept: dict[str, Folder] = {}
        self._lock = Lock()

    def close(self) -> None:
        """Let go of the folders that are kept open, all but the root."""
        with self._lock:
            self._kept.clear()

    def spell(self, path: str) -> str:
        """Spell the whole path for a message, whatever characters are in it."""
        return repr(f"{self.path}/{path}")

    def get(self, path: str) -> Folder:
        """Open the folder ``path`` (``""``: the root), or find it among those that are open."""
        return self._kept_at(path, self.is_still) or self._walk(path, step, self.is_still)

    def below(self, path: str) -> Folder:
        """Open the folder ``path`` as ``get`` does, without a look at whether what is open is still there.

        For whoever goes through the whole tree after ``close``, however long the paths are, or asks
        ``is_still`` when all is done.
        """
        return self._walk(path, step, _trust)

    def fresh(self, path: str) -> Folder:
        """Open the folder ``path`` from the root on, whatever is open."""
        folder = self.root
        for name in _checked(path).split("/") if path else ():
            folder = step(folder, checked_name(name, path))
        return folder

    def make(self, path: str) -> Folder:
        """Open the folder ``path``; it and what is missing above it are made."""
        try:
            return self.get(path)
        except FileNotFoundError:
            return self._walk(path, _step_or_make, self.is_still)

    def is_still(self, path: str, folder: Folder) -> bool:
        """Whether the path still leads to the folder: somebody may have moved it, or put a link there."""
        if not path:
            return True  # the root is what it was when it was opened
        try:
            found = os.stat(path, dir_fd=self.root.descriptor, follow_symlinks=False)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == folder.identity

    def _walk(self, path: str, go: _Step, check: _Check) -> Folder:
        """Go down to ``path`` from the nearest folder above it that is open."""
        missing: list[str] = []
        above = _checked(path)
        while (folder := self._kept_at(above, check)) is None:
            missing.append(above)
            above = above.rpartition("/")[0]
        for each in reversed(missing):
            folder = go(folder, checked_name(each.rpartition("/")[2], path))
            self._keep(each, folder)
        return folder

    def _kept_at(self, path: str, check: _Check) -> Folder | None:
        if not path:
            return self.root
        kept = self._kept.get(path)
        return kept if kept is not None and check(path, kept) else None

    def _keep(self, path: str, folder: Folder) -> None:
        with self._lock:
            self._kept.pop(path, None)
            self._kept[path] = folder
            if len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]


def _trust(path: str, folder: Folder) -> bool:
    return True


_Step = Callable[[Folder, str], Folder]
_Check = Callable[[str, Folder], bool]


def split(path: str) -> tuple[str, str]:
    """Split a path -> its folder's path and its own name; InvalidInputError if it is not plainly relative.

    The folder's own names are looked at where they are opened.
    """
    above, _, name = _checked(path).rpartition("/")
    return above, checked_name(name, path)


def check_plain(path: str) -> None:
    """Raise InvalidInputError for a path that is not plainly relative, whether or not there is anything."""
    for name in _checked(path).split("/"):
        checked_name(name, path)


def checked_name(name: str, path: str) -> str:
    """Admit one name of a path: none that leads elsewhere."""
    if name in ("", ".", "..") or "\0" in name:
        raise InvalidInputError(f"The path {path!r:.120} is not plainly relative: it has {name!r}.")
    return name


def step(folder: Folder, name: str) -> Folder:
    """Open the folder ``name`` in a folder."""
    return Folder(os.open(name, _FOLDER, dir_fd=folder.descriptor))


def is_elsewhere(error: OSError) -> bool:
    """Whether an error says that what was sought is gone, or another kind of thing by now."""
    return error.errno in _ELSEWHERE


def is_exhausted(error: OSError) -> bool:
    """Whether an error is about this process or machine, not about the path."""
    return error.errno in _EXHAUSTED


def refuse(error: OSError, what: str) -> NoReturn:
    """Raise the class of error that says what to do about an OSError."""
    with os_errors(what):
        raise error
    raise AssertionError  # not reached: `os_errors` lets no OSError through


def _checked(path: str) -> str:
    """Admit a path as a whole; its names are looked at one by one."""
    if not path.isascii():
        path_bytes(path)
    if path.startswith("/"):
        raise InvalidInputError(f"The path {path!r:.120} is not relative.")
    return path


def _step_or_make(folder: Folder, name: str) -> Folder:
    try:
        return step(folder, name)
    except FileNotFoundError:
        with suppress(FileExistsError):  # another thread was faster
            os.mkdir(name, dir_fd=folder.descriptor)
        return step(folder, name)
