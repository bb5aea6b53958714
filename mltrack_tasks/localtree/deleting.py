"""Delete what was migrated, after one more look at the very bytes that go."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
from contextlib import suppress
from stat import S_ISLNK, S_ISREG

from mltrack_tasks.digest import check_digest
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.filetree import FILE, FOLDER, Entry
from mltrack_tasks.localtree.folders import Folder, Folders, is_elsewhere, refuse, split, step
from mltrack_tasks.localtree.leftovers import hold, put_back, trash_name
from mltrack_tasks.localtree.reading import READ, hash_open

_CHANGED = "changed since it was stored"
_IN_USE = "open for writing"
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
            why = _why_kept(trash, name, entry)
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


def _why_kept(trash: Folder, name: str, entry: Entry) -> str | None:
    """Look at what lies aside: why it has to be kept, or None."""
    if entry.kind != FILE:
        return None if _points_to(trash, name, entry.target) else _CHANGED
    descriptor = os.open(name, READ, dir_fd=trash.descriptor)
    try:
        # First who writes, then what is there: it has no name by now that another writer could open.
        if _is_being_written(descriptor):
            return _IN_USE
        return None if hash_open(descriptor) == (entry.size, entry.digest) else _CHANGED
    finally:
        os.close(descriptor)


def _points_to(trash: Folder, name: str, target: str) -> bool:
    try:
        return os.readlink(name, dir_fd=trash.descriptor) == target
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False  # no link any more
        raise


def _is_being_written(descriptor: int) -> bool:
    """Whether somebody has the file open for writing, who would go on writing into what was deleted.

    Linux grants a read lease only if nobody has (fcntl(2), "Leases"), to the owner of the file or root.
    False also where the system does not tell.
    """
    if sys.platform != "linux":
        return False
    try:
        # The default signal of a lease that is to be given up would end the process; this one is ignored.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False  # a network file system, or another's file
    return False


def _reason(error: OSError) -> str:
    if is_elsewhere(error):
        return "gone, or its folder is another by now"
    return f"cannot be deleted: {error.strerror}"
