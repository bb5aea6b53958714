"""What a killed deletion or restore leaves behind, how it is known, and how it is cleared.

Who works on such a thing holds a lock on it, so that nothing is cleared under someone's hands.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from contextlib import suppress
from stat import S_ISDIR, S_ISREG

from mltrack_tasks.localtree.folders import Folder, Folders, is_elsewhere, refuse, split, step
from mltrack_tasks.localtree.reading import READ
from mltrack_tasks.paths import path_bytes

_LEFTOVER = re.compile(r"\.mltrack-(?:(trash)-[0-9a-f]{16}|[0-9a-f]{16}\.part)")


def part_name() -> str:
    """Choose the name of a file or link that is being written."""
    return f".mltrack-{secrets.token_hex(8)}.part"


def trash_name() -> str:
    """Choose the name of a folder that holds a file for as long as it is being deleted."""
    return f".mltrack-trash-{secrets.token_hex(8)}"


def why_left(name: str) -> str:
    """Say why a name is none of the tree's own; empty if it is."""
    found = _LEFTOVER.fullmatch(name)
    if found is None:
        return ""
    if found[1]:
        return "left by an interrupted deletion: what is in it belongs into the folder above"
    return "left by an interrupted restore: it can be removed"


def hold(descriptor: int) -> None:
    """Mark a file or folder as being worked on, until its descriptor is closed."""
    with suppress(OSError):  # a file system without locks: `clear` leaves alone what it cannot lock
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def clear(folders: Folders, path: str) -> bool:
    """Put back what is in a trash folder, or remove an unfinished file; False if it has to stay."""
    path_bytes(path)
    above, name = split(path)
    found = _LEFTOVER.fullmatch(name)
    if found is None:
        return False
    try:
        parent = folders.fresh(above)
        return _empty(parent, name) if found[1] else _remove_part(parent, name)
    except OSError as error:
        if is_elsewhere(error) or isinstance(error, BlockingIOError):
            return False
        refuse(error, folders.spell(path))


def put_back(parent: Folder, trash: Folder, name: str) -> bool:
    """Give what lies in a trash folder its name back, unless something else has it by now.

    True also if there is nothing to put back.
    """
    at, aside = parent.descriptor, trash.descriptor
    try:
        found = os.stat(name, dir_fd=aside, follow_symlinks=False)
    except FileNotFoundError:
        return True
    try:
        if S_ISDIR(found.st_mode):
            # A folder has no second name. It can replace nothing but an empty folder.
            os.rename(name, name, src_dir_fd=aside, dst_dir_fd=at)
        else:
            os.link(name, name, src_dir_fd=aside, dst_dir_fd=at, follow_symlinks=False)
            os.unlink(name, dir_fd=aside)
    except OSError:
        return False  # the caller says where it lies
    return True


def _empty(parent: Folder, name: str) -> bool:
    trash = step(parent, name)
    fcntl.flock(trash.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    stuck = [each for each in os.listdir(trash.descriptor) if not put_back(parent, trash, each)]
    if stuck:
        return False
    os.rmdir(name, dir_fd=parent.descriptor)
    return True


def _remove_part(parent: Folder, name: str) -> bool:
    if S_ISREG(os.stat(name, dir_fd=parent.descriptor, follow_symlinks=False).st_mode):
        descriptor = os.open(name, READ, dir_fd=parent.descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name, dir_fd=parent.descriptor)
        finally:
            os.close(descriptor)
    else:
        os.unlink(name, dir_fd=parent.descriptor)  # a link, which nobody can hold: made and renamed at once
    return True
