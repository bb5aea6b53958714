"""A file that has no name until all its bytes are there, so that nothing is left if we are killed."""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from mltrack_tasks.localtree.folders import Folder
from mltrack_tasks.localtree.leftovers import hold, part_name

_WRITE = os.O_WRONLY | os.O_CLOEXEC
_NAMED = _WRITE | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_DESCRIPTORS = "/proc/self/fd"
_NAMELESS = getattr(os, "O_TMPFILE", 0) if os.path.isdir(_DESCRIPTORS) else 0
"""Of Linux. Also the faster way: the folder is changed once, not three times."""
_NOT_NAMELESS = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS, errno.EPERM)
"""What file systems that cannot do it answer; EPERM is ext4's of a folder that was just removed."""


class NewFile:
    """A new file in a folder, open for writing at ``descriptor``; with a temporary name where it needs one.

    Methods raise OSError. Whoever makes one closes it; without a name it is gone then.
    """

    def __init__(self, parent: Folder, mode: int) -> None:
        self._parent = parent
        self._temporary = ""
        descriptor = _open_nameless(parent, mode)
        if descriptor is None:
            temporary = part_name()
            descriptor = os.open(temporary, _NAMED, mode, dir_fd=parent.descriptor)
            self._temporary = temporary
            hold(descriptor)
        self.descriptor = descriptor

    def name(self, name: str) -> None:
        """Give the file its name; FileExistsError if something has it."""
        at = self._parent.descriptor
        if self._temporary:
            os.link(self._temporary, name, src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
        else:
            os.link(f"{_DESCRIPTORS}/{self.descriptor}", name, dst_dir_fd=at, follow_symlinks=True)

    def put_over(self, name: str) -> None:
        """Give the file its name, in the place of a file or link that has it."""
        if not self._temporary:
            temporary = part_name()
            self.name(temporary)
            self._temporary = temporary
        at = self._parent.descriptor
        os.replace(self._temporary, name, src_dir_fd=at, dst_dir_fd=at)
        self._temporary = ""

    def close(self) -> None:
        """Close the descriptor; a temporary name is removed."""
        try:
            if self._temporary:
                with suppress(FileNotFoundError):
                    os.unlink(self._temporary, dir_fd=self._parent.descriptor)
        finally:
            os.close(self.descriptor)


def _open_nameless(parent: Folder, mode: int) -> int | None:
    if not _NAMELESS:
        return None
    try:
        return os.open(".", _NAMELESS | _WRITE, mode, dir_fd=parent.descriptor)
    except OSError as error:
        if error.errno in _NOT_NAMELESS:
            return None
        raise
