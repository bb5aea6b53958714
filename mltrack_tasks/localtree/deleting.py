"""Delete what was migrated, after one more look at the very bytes that go."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from stat import S_ISLNK, S_ISREG

from mltrack_tasks.digest import check_digest
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.filetree import FILE, FOLDER, Entry
from mltrack_tasks.localtree.folders import Folder, Folders, is_elsewhere, refuse, split, step
from mltrack_tasks.localtree.leftovers import hold, put_back, trash_name
from mltrack_tasks.localtree.reading import READ, hash_open

_CHANGED = "changed since it was stored"
_KEEPS_FOLDER = (errno.ENOTEMPTY, errno.EEXIST)


def delete(folders: Folders, entry: Entry) -> str | None:
    """Move a file or link aside, look at it again, and remove it or put it back."""
    if entry.kind == FOLDER:
        raise InvalidInputError(f"{entry.path!r} is a folder; remove it when it is empty.")
    if entry.kind == FILE:
        check_digest(entry.digest)
    above, name = split(entry.path)
    try:
        parent = folders.fresh(above)
        found = os.stat(name, dir_fd=parent.descriptor, follow_symlinks=False)
        if not _may_be(entry, found):
            return _CHANGED
        return _delete_in(parent, above, name, entry)
    except OSError as error:
        return _reason(error)


def remove_empty_folder(folders: Folders, path: str) -> bool:
    """Remove a folder that is empty."""
    above, name = split(path)
    try:
        folder = folders.fresh(above)
        os.rmdir(name, dir_fd=folder.descriptor)
    except OSError as error:
        if is_elsewhere(error) or error.errno in _KEEPS_FOLDER:
            return False
        refuse(error, folders.spell(path))
    return True


def _may_be(entry: Entry, found: os.stat_result) -> bool:
    """Whether it is worth moving aside: who uses a changed file need not miss it for a moment."""
    if entry.kind == FILE:
        return S_ISREG(found.st_mode) and found.st_size == entry.size
    return S_ISLNK(found.st_mode)


def _delete_in(parent: Folder, above: str, name: str, entry: Entry) -> str | None:
    trash_folder = trash_name()
    os.mkdir(trash_folder, 0o700, dir_fd=parent.descriptor)
    try:
        trash = step(parent, trash_folder)
        hold(trash.descriptor)
        try:
            os.rename(name, name, src_dir_fd=parent.descriptor, dst_dir_fd=trash.descriptor)
            why = None if _is_same(trash, name, entry) else _CHANGED
            if why is None:
                os.unlink(name, dir_fd=trash.descriptor)
        except OSError as error:
            why = _reason(error)
        except BaseException:
            put_back(parent, trash, name)
            raise
        if why is None or put_back(parent, trash, name):
            return why
        where = "/".join(filter(None, (above, trash_folder, name)))
        return f"{why}, and now lies in {where!r}: its name is taken, or it cannot be moved back"
    finally:
        with suppress(OSError):  # not empty: the file that could not be put back
            os.rmdir(trash_folder, dir_fd=parent.descriptor)


def _is_same(trash: Folder, name: str, entry: Entry) -> bool:
    if entry.kind != FILE:
        try:
            return os.readlink(name, dir_fd=trash.descriptor) == entry.target
        except OSError as error:
            if error.errno == errno.EINVAL:
                return False  # no link any more
            raise
    descriptor = os.open(name, READ, dir_fd=trash.descriptor)
    try:
        return hash_open(descriptor) == (entry.size, entry.digest)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    if is_elsewhere(error):
        return "gone, or its folder is another by now"
    return f"cannot be deleted: {error.strerror}"
