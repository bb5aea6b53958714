"""Digests of files that were read before, so that an unchanged file is not read again.

A cache on this machine, by path, size, inode, and times of change of bytes and of inode. It may be removed at
any time, and what fails about it is told in the log and costs no more than reading the files.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from mltrack_tasks import events
from mltrack_tasks.filetree import Entry, with_digest
from mltrack_tasks.paths import sort_key

CACHE_VARIABLE = "MLTRACK_CACHE_DIR"
SETTLED = 2_000_000_000
"""[ns] A file whose times are younger than this may still change without showing it: file systems keep times
in steps of up to 2 s (FAT)."""
CHUNK = 4096
"""Rows looked up at once: memory does not grow with the tree."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS digests (
    path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER, digest BLOB
) WITHOUT ROWID
"""
_SELECT = "SELECT path, size, mtime_ns, ctime_ns, inode, digest FROM digests"
_VERSION = 1


def cache_folder() -> Path:
    """Where this library keeps what it can make again: MLTRACK_CACHE_DIR, else the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mltrack_tasks"


class HashCache:
    """Digests of one folder's files. Used by one thread; several processes may share it."""

    def __init__(self, root: Path, folder: Path | None = None) -> None:
        name = hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
        self._path = (folder or cache_folder()) / "hashes" / f"{name}.sqlite"
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._database = self._opened()
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def fill(self, entries: Sequence[Entry]) -> list[Entry]:
        """Give each ordered file the digest that it had when it was last read, if it is unchanged since."""
        filled: list[Entry] = []
        for start in range(0, len(entries), CHUNK):
            chunk = entries[start : start + CHUNK]
            known = self._known(sort_key(chunk[0].path), sort_key(chunk[-1].path))
            if known:
                chunk = [_with_digest(entry, known.get(sort_key(entry.path))) for entry in chunk]
            filled += chunk
        return filled

    def keep(self, entries: Iterable[Entry], since: int) -> None:
        """Remember digests of files read after ``since`` [ns], but for those that had just changed."""
        settled = since - SETTLED
        rows = [
            (sort_key(e.path), e.size, e.mtime_ns, e.ctime_ns, e.inode, bytes.fromhex(e.digest))
            for e in entries
            if e.digest and e.mtime_ns < settled and e.ctime_ns < settled
        ]
        if self._database is None or not rows:
            return
        try:
            with self._database:
                self._database.executemany("REPLACE INTO digests VALUES (?, ?, ?, ?, ?, ?)", rows)
        except (sqlite3.Error, OverflowError) as error:
            self._give_up(error)

    def _known(self, first: bytes, last: bytes) -> dict[bytes, tuple[int, int, int, int, bytes]]:
        if self._database is None:
            return {}
        try:
            rows = self._database.execute(f"{_SELECT} WHERE path BETWEEN ? AND ?", (first, last))
            return {row[0]: row[1:] for row in rows}
        except sqlite3.Error as error:
            self._give_up(error)
            return {}

    def _opened(self) -> sqlite3.Connection:
        try:
            return _open(self._path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise  # locked, or the disk is full: not the file's fault
            self._path.unlink(missing_ok=True)
            return _open(self._path)

    def _give_up(self, error: Exception) -> None:
        events.logger.warning("the cache of digests %s is not used: %s", self._path, error)
        if self._database is not None:
            self._database.close()
            self._database = None


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=10)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=OFF")  # what a crash damages is made again
        if database.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            database.execute("DROP TABLE IF EXISTS digests")
            database.execute(f"PRAGMA user_version={_VERSION}")
        database.execute(_SCHEMA)
        database.execute(f"{_SELECT} LIMIT 1").fetchall()
        database.commit()
    except BaseException:
        database.close()
        raise
    return database


def _with_digest(entry: Entry, known: tuple[int, int, int, int, bytes] | None) -> Entry:
    stamp = (entry.size, entry.mtime_ns, entry.ctime_ns, entry.inode)
    if known is None or known[:4] != stamp or not isinstance(known[4], bytes) or len(known[4]) != 32:
        return entry
    return with_digest(entry, known[4].hex())
