"""A folder on this machine whose content may be hostile: scan, read, write and delete below it.

Every system call goes to a name in a folder that was opened name by name, without following links. So no
symbolic link, there from the start or put there meanwhile, leads outside the root.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from mltrack_tasks.errors import MLTrackError
from mltrack_tasks.events import Observe, log_event
from mltrack_tasks.filetree import Entry
from mltrack_tasks.localtree import deleting, leftovers, reading, scanning, together, writing
from mltrack_tasks.localtree.folders import Folders
from mltrack_tasks.localtree.scanning import Scanned

__all__ = ["LocalTree", "Scanned"]


class LocalTree:
    """The tree below a folder. A context manager; safe to use from several threads.

    Raises InvalidInputError if ``root`` is no folder, AccessError if it cannot be read.
    """

    def __init__(self, root: str | Path) -> None:
        self._folders = Folders(root)
        self.root = self._folders.path
        """Absolute, without links."""

    def __enter__(self) -> LocalTree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folders that are held open."""
        self._folders.close()

    def scan(self, *, observe: Observe = log_event) -> Scanned:
        """List everything below the root, in the order of the paths' bytes.

        Links are not followed. Pipes, sockets, devices, what cannot be read and what an interrupted
        deletion or restore left are in ``left_out`` with the reason; what vanishes meanwhile is in neither.
        Reports PROGRESS events, in files.
        """
        return scanning.scan(self._folders, observe)

    def stat(self, path: str) -> Entry | None:
        """Look at one path as a scan would; None if nothing is there.

        Raises InvalidInputError for a pipe, socket or device, AccessError if its folder cannot be searched.
        """
        return scanning.stat(self._folders, path)

    def read(self, entry: Entry) -> bytes:
        """Read a whole file that a scan found.

        Raises SourceChangedError unless size, time and inode are the entry's before and after (the inode
        only if the entry has one), AccessError if reading is denied.
        """
        return reading.read(self._folders, entry)

    def read_all(self, entries: Iterable[Entry]) -> Iterator[bytes | MLTrackError]:
        """Read whole files that a scan found -> for each, in their order, its bytes or what ``read`` raises.

        Cheaper than ``read`` for many small files that follow each other in a folder. At most 256 files or
        1 MiB, or one larger file, are read ahead.
        """
        return together.read_all(self._folders, entries)

    def find_changed(self, entries: Sequence[Entry]) -> Entry | None:
        """Find the first of these that is no longer as a scan found it, as far as ``stat`` tells; or None.

        Raises AccessError if its folder cannot be searched.
        """
        return together.find_changed(self._folders, entries)

    def open(self, path: str) -> BinaryIO:
        """Open a plain file for reading, unbuffered.

        Raises SourceChangedError if there is none, AccessError if reading is denied.
        """
        return reading.open_file(self._folders, path)

    def write(self, entry: Entry, chunks: Iterable[bytes | memoryview], *, replace: bool = False) -> bool:
        """Write a file, with mode and time; it appears whole or not at all. Folders above it are made.

        True if it was written; False if a file with this size and digest was there, whose mode and time are
        set right. Raises ConflictError if something else is there (with ``replace``: only for a folder),
        IntegrityError if the bytes do not hash to ``entry.digest``, AccessError if the disk is full or
        writing is denied; nothing is left then. No fsync: the store has the bytes, and whoever runs a
        restore again finds by the digests what a power cut took.
        """
        return writing.write(self._folders, entry, chunks, replace=replace)

    def make_link(self, path: str, target: str, *, replace: bool = False) -> bool:
        """Make a symbolic link, with the folders above it. False if the same one is there.

        Raises ConflictError if something else is there (with ``replace``: only for a folder).
        """
        return writing.make_link(self._folders, path, target, replace=replace)

    def make_folder(self, path: str) -> None:
        """Make a folder, with all above it; nothing happens if it is there.

        Raises ConflictError if a file or link is in the way.
        """
        writing.make_folder(self._folders, path)

    def set_mode(self, path: str, mode: int) -> None:
        """Set the permissions of a folder: of ``mode`` only ``0o777``. ConflictError if it is none."""
        writing.set_mode(self._folders, path, mode)

    def delete(self, entry: Entry) -> str | None:
        """Delete a file or link if it is still what ``entry`` says -> None, or why it was left.

        It is renamed into a trash folder beside it, hashed again, and put back if its size or digest differ,
        or if somebody has it open for writing (as far as the system tells). Nothing is ever replaced by that:
        if its name is taken by then, it stays in the trash folder and the reason says where. Raises
        InvalidInputError for a folder or an entry without digest.
        """
        return deleting.delete(self._folders, entry)

    def remove_empty_folder(self, path: str) -> bool:
        """Remove a folder; False if it is not empty, or no folder. AccessError if that is denied."""
        return deleting.remove_empty_folder(self._folders, path)

    def clear_leftover(self, path: str) -> bool:
        """Clear what a killed deletion or restore left: ``scan`` lists it in ``left_out``.

        What is in a trash folder gets its name back, unless something else has it by now; a file that was
        not finished is removed. False if it is no leftover, has to stay, or somebody is still working on it.
        """
        return leftovers.clear(self._folders, path)
