"""Marks: which blobs records need, and which pins they justify, in a temporary table on disk.

So that memory does not grow with the store. Records never change: each is read once, however often it is
asked what is new, and not at all if an earlier collection kept what it needs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from datetime import datetime
from types import TracebackType
from typing import Self

from mltrack_tasks import layout
from mltrack_tasks.collecting.keptmarks import MarksWriter, digests_of, identity, kept_parts, marks_in, short
from mltrack_tasks.collecting.keys import UNPINNED, is_unpinned_key, segment_of_record
from mltrack_tasks.digest import is_digest
from mltrack_tasks.errors import IntegrityError, NotFoundError
from mltrack_tasks.events import Observe
from mltrack_tasks.fields import Fields
from mltrack_tasks.recordstore import read_record
from mltrack_tasks.stores.base import Store
from mltrack_tasks.trust.readers import MIGRATION, MODEL, NAME, RUN, Holder, Reader
from mltrack_tasks.trust.roots import Root, refuse, roots

_PIN_MARKS = {RUN: "", NAME: "~name~", MODEL: "~model~", MIGRATION: "~migration~"}
_SCHEMA = """
PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA temp_store=FILE; PRAGMA cache_size=-40960;
CREATE TABLE need(digest BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE pin(place BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE seen(record BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE unpinned(digest BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE kept(record BLOB PRIMARY KEY, needs BLOB);
"""


class Marks:
    """What the records of a store need. ``look`` reads those that are new since the last look.

    ``before`` and ``now`` are the store's times; with ``full`` every record is read, whatever was kept.
    """

    def __init__(
        self, store: Store, before: datetime, now: datetime, observe: Observe, *, full: bool = False
    ) -> None:
        self._store, self._before, self._observe = store, before, observe
        self._base = sqlite3.connect("", isolation_level=None)  # a file of SQLite's own, gone with it
        self._base.executescript(_SCHEMA)
        self._now, self._full, self._outlived = now, full, set[str]()
        self._writer = MarksWriter(store, now)
        self._looked = False
        self.records = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._base.close()

    def look(self) -> None:
        """Read every record that was not read yet, and keep what it needs for later collections.

        Raises FormatError, IntegrityError or ArchivedError for one that cannot be understood: it may need
        anything. Pins have to be listed before: who takes one away says so first, in what this reads too.
        """
        self._base.execute("BEGIN")
        try:
            if not self._looked:
                self._take_up()
            self._note_unpinned()
            for root in roots(self._store, refuse, skip=self._is_known, observe=self._observe):
                self._add(root)
            self._writer.finish()
        finally:
            self._base.execute("COMMIT")
        self._looked = True
        if outlived := sorted(self._outlived - self._writer.keys):
            self._store.delete(outlived)
            self._outlived.clear()

    def needs(self, digest: str) -> bool:
        """Whether a record needs a blob."""
        return self._has("need", "digest", bytes.fromhex(digest))

    def justifies(self, pin: str) -> bool:
        """Whether a record needs the blob of a pin, and is of the name that the pin says."""
        return self._has("pin", "place", short(pin))

    def lost_a_pin(self, digest: str) -> bool:
        """Whether a pin was taken from a blob within the grace period."""
        return self._has("unpinned", "digest", bytes.fromhex(digest))

    def _take_up(self) -> None:
        """Take up what earlier collections kept."""
        believed, outlived = kept_parts(self._store, self._now, full=self._full)
        self._outlived.update(outlived)
        self._base.executemany("INSERT OR IGNORE INTO kept VALUES (?, ?)", marks_in(self._store, believed))

    def _add(self, root: Root) -> None:
        digests = {bytes.fromhex(need.digest) for need in root.needs}
        self._mark(root.holder, digests)
        if (record := identity(root.stat)) is not None:
            self._writer.add(record, digests)

    def _mark(self, holder: Holder, digests: Collection[bytes]) -> None:
        self.records += 1
        self._insert("need", digests)
        self._insert("pin", (short(pin_of(holder, digest.hex())) for digest in digests))
        self._insert("seen", [short(holder.key)])

    def _note_unpinned(self) -> None:
        for stat in self._store.list(UNPINNED):
            if stat.modified < self._before or not is_unpinned_key(stat.key):
                continue
            if self._has("seen", "record", short(stat.key)):
                continue
            try:
                digests = read_digests(self._store, stat.key)
            except NotFoundError:
                continue
            self._insert("unpinned", map(bytes.fromhex, digests))
            self._insert("seen", [short(stat.key)])

    def _is_known(self, reader: Reader) -> bool:
        """Whether a record was read, by this collection, or by an earlier one that kept what it needs."""
        if self._has("seen", "record", short(reader.holder.key)):
            return True
        asked = "SELECT needs FROM kept WHERE record = ?"
        found = self._base.execute(asked, (identity(reader.stat),)).fetchone()
        if found is not None:
            self._mark(reader.holder, list(digests_of(found[0])))
        return found is not None

    def _has(self, table: str, column: str, value: bytes) -> bool:
        asked = f"SELECT 1 FROM {table} WHERE {column} = ?"
        return self._base.execute(asked, (value,)).fetchone() is not None

    def _insert(self, table: str, values: Iterable[bytes]) -> None:
        self._base.executemany(f"INSERT OR IGNORE INTO {table} VALUES (?)", ((value,) for value in values))


def pin_of(holder: Holder, digest: str) -> str:
    """Key of the pin by which the writer of a record holds a blob."""
    return f"{layout.pin_folder(digest)}{_PIN_MARKS[holder.kind]}{segment_of_record(holder.key)}"


def is_pin(key: str) -> bool:
    """Tell whether the last part of a key is one that this version writes in a pin's folder."""
    last = key.rpartition("/")[2]
    mark = next((mark for mark in _PIN_MARKS.values() if mark and last.startswith(mark)), "")
    try:
        layout.decode_segment(last.removeprefix(mark))
    except IntegrityError:
        return False
    return True


def read_digests(store: Store, key: str) -> list[str]:
    """Read a record that lists digests; IntegrityError if it does not."""
    found = Fields(read_record(store, key).content, key).texts("digests")
    if found is None or not all(map(is_digest, found)):
        raise IntegrityError(f"{key} in {store.location} does not list digests; remove or mend it.")
    return list(found)
