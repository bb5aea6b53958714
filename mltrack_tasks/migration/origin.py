"""Where a migration comes from: a folder, and copies of files in it that may not be read while in use."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from mltrack_tasks.errors import MLTrackError, SourceChangedError
from mltrack_tasks.events import Observe, log_event
from mltrack_tasks.filetree import Entry
from mltrack_tasks.localtree import LocalTree, Scanned
from mltrack_tasks.stores.files import os_errors


@dataclass(frozen=True)
class Origin:
    """A folder of one machine, and the name under which a store knows it."""

    local_path: str
    migration: str
    copies: Mapping[str, str] = field(default_factory=dict)
    """Path in the folder -> file that is read instead: the copy of a database."""

    def open(self) -> SourceTree:
        """Open the folder for reading."""
        return SourceTree(self)


class SourceTree:
    """A folder that is migrated: ``LocalTree``, but for files of which there is a copy."""

    def __init__(self, origin: Origin) -> None:
        self._tree = LocalTree(origin.local_path)
        self._copies = origin.copies
        self.root = self._tree.root

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tree.close()

    def scan(self, *, observe: Observe = log_event) -> Scanned:
        """List everything below the folder."""
        return self._tree.scan(observe=observe)

    def read(self, entry: Entry) -> bytes:
        """Read a whole file that a scan found; SourceChangedError if it is another by now."""
        copy = self._copies.get(entry.path)
        if copy is None:
            return self._tree.read(entry)
        with _opened(copy) as file:
            return file.read()

    def read_all(self, entries: Sequence[Entry]) -> Iterator[bytes | MLTrackError]:
        """Read whole files that a scan found -> for each, in their order, its bytes or what ``read`` raises.

        Those of one folder should follow each other.
        """
        if self._copies.keys().isdisjoint(entry.path for entry in entries):
            return self._tree.read_all(entries)
        return map(self._body_or_error, entries)

    def require_unchanged(self, entries: Sequence[Entry]) -> None:
        """Raise SourceChangedError if a file that was read is another by now, as far as its times tell."""
        changed = self._tree.find_changed([entry for entry in entries if entry.path not in self._copies])
        if changed is not None:
            raise _changed(changed)

    def _body_or_error(self, entry: Entry) -> bytes | MLTrackError:
        try:
            return self.read(entry)
        except MLTrackError as error:
            return error

    def open(self, entry: Entry) -> BinaryIO:
        """Open a file that a scan found, unbuffered; SourceChangedError if it is another by now."""
        copy = self._copies.get(entry.path)
        if copy is not None:
            return _opened(copy)
        file = self._tree.open(entry.path)
        found = os.fstat(file.fileno())
        if (found.st_size, found.st_mtime_ns) != (entry.size, entry.mtime_ns):
            file.close()
            raise _changed(entry)
        return file


def _changed(entry: Entry) -> SourceChangedError:
    return SourceChangedError(f"{entry.path!r} is not the file any more that was found. Run it again.")


def _opened(copy: str) -> BinaryIO:
    with os_errors(copy):
        return Path(copy).open("rb", buffering=0)
