"""Many files at once: what guards against swapped folders is paid once for the files of a folder.

A folder is opened name by name, its files are read or looked at, and then its path must still lead to it.
Wherever anything is not as it should be, the files of that folder are gone through one by one, as if there
were no others: that tells which of them it is, and what is wrong with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from stat import S_ISREG

from mltrack_tasks.errors import InvalidInputError, MLTrackError
from mltrack_tasks.filetree import FILE, PERMISSIONS, Entry
from mltrack_tasks.localtree import reading, scanning
from mltrack_tasks.localtree.folders import Folders, check_plain, split

AT_ONCE, BYTES_AT_ONCE = 256, 1024 * 1024
"""Files of one folder that are read before it is looked at again: at most so many, or so many [bytes]."""

_Named = list[tuple[str, Entry]]
"""Names in a folder, and what is expected to have them."""


def read_all(folders: Folders, entries: Iterable[Entry]) -> Iterator[bytes | MLTrackError]:
    """Read whole files, in their order -> bytes, or the error that ``reading.read`` would have raised."""
    for above, named in _by_folder(entries):
        bodies = _bodies(folders, above, named)
        yield from bodies if bodies is not None else (_body_or_error(folders, entry) for _, entry in named)


def find_changed(folders: Folders, entries: Iterable[Entry]) -> Entry | None:
    """Find the first of these that is another by now, or gone, as far as ``scanning.stat`` tells; or None.

    A file is first looked at by its whole path. Nothing is read there, so a link on the way does no harm: it
    leads to the very same file, or to one that is another.
    """
    root = folders.root.descriptor
    return next((e for e in entries if not _is_still(root, e) and _has_changed(folders, e)), None)


def _by_folder(entries: Iterable[Entry]) -> Iterator[tuple[str, _Named]]:
    """Cut entries, in their order, into lists that lie in one folder and are read at once."""
    current, named, room = "", _Named(), 0
    for entry in entries:
        above, name = split(entry.path)
        room -= entry.size
        if named and (above != current or room < 0 or len(named) == AT_ONCE):
            yield current, named
            named = []
        if not named:
            current, room = above, BYTES_AT_ONCE - entry.size
        named.append((name, entry))
    if named:
        yield current, named


def _bodies(folders: Folders, above: str, named: _Named) -> list[bytes] | None:
    """Read all files of a folder, or None if anything is not as it should be."""
    bodies: list[bytes] = []
    try:
        folder = folders.below(above)
        for name, entry in named:
            body = reading.read_in(folder.descriptor, name, entry)
            if body is None:
                return None
            bodies.append(body)
    except OSError:
        return None
    return bodies if folders.is_still(above, folder) else None


def _body_or_error(folders: Folders, entry: Entry) -> bytes | MLTrackError:
    try:
        return reading.read(folders, entry)
    except MLTrackError as error:
        return error


def _is_still(root: int, entry: Entry) -> bool:
    """Whether it is a file that has not changed; False also if anything else is not as it should be."""
    try:
        found = os.stat(entry.path, dir_fd=root, follow_symlinks=False)
    except (OSError, ValueError):
        return False
    return _is_of(entry, found)


def _is_of(entry: Entry, found: os.stat_result) -> bool:
    """Whether a file's times and all else that an entry holds of it are these."""
    return (
        found.st_ctime_ns == entry.ctime_ns
        and found.st_ino == entry.inode
        and found.st_mtime_ns == entry.mtime_ns
        and found.st_size == entry.size
        and found.st_mode & PERMISSIONS == entry.mode
        and S_ISREG(found.st_mode)
        and entry.kind == FILE
    )


def _has_changed(folders: Folders, entry: Entry) -> bool:
    check_plain(entry.path)
    try:
        now = scanning.stat(folders, entry.path)
    except InvalidInputError:
        return True  # a pipe, a socket or a device
    return now is None or now._replace(digest=entry.digest) != entry
