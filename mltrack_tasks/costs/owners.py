"""Who a blob is for: the projects of the runs that need it, names, models, migrations.

Kept in a temporary table on disk, so that memory does not grow with the store.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import groupby
from types import TracebackType
from typing import Self

from mltrack_tasks import layout
from mltrack_tasks.records import RunManifest
from mltrack_tasks.trust.readers import MIGRATION, MODEL, NAME, RUN
from mltrack_tasks.trust.roots import Root
from mltrack_tasks.usage_stats import NAMED_DATA, NO_PROJECT

MODELS, MIGRATIONS, NOBODY = "(models)", "(migrations)", "(nothing refers to it)"

_OWNERS = {NAME: NAMED_DATA, MODEL: MODELS, MIGRATION: MIGRATIONS}
_SCHEMA = """
PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA temp_store=FILE; PRAGMA cache_size=-65536;
CREATE TABLE need(digest BLOB, format TEXT, holder BLOB, PRIMARY KEY(digest, format, holder)) WITHOUT ROWID;
CREATE TABLE holder(holder BLOB PRIMARY KEY, owner TEXT, revision INTEGER) WITHOUT ROWID;
"""
_READ = "SELECT digest, format, owner FROM need JOIN holder USING (holder) ORDER BY digest, format"


class Owners:
    """Which holders need which blob. A holder is a run (in all its revisions), a data name, a version of a
    model or a migration; each counts once for a blob, however often it names it.
    """

    def __init__(self) -> None:
        self._base = sqlite3.connect("", isolation_level=None)  # a file of SQLite's own, gone with it
        self._base.executescript(_SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._base.close()

    def read(self, roots: Iterable[Root]) -> None:
        """Note what records need."""
        self._base.execute("BEGIN")
        try:
            for root in roots:
                self._note(root)
        finally:
            self._base.execute("COMMIT")

    def by_digest(self) -> Iterator[tuple[str, dict[str, dict[str, int]]]]:
        """Yield each digest in order, with the holders that each owner has, by format ("": whichever)."""
        rows = self._base.execute(_READ)
        for digest, group in groupby(rows, key=lambda row: row[0]):
            formats: dict[str, dict[str, int]] = {}
            for _, format, owner in group:
                counts = formats.setdefault(format, {})
                counts[owner] = counts.get(owner, 0) + 1
            yield digest.hex(), formats

    def _note(self, root: Root) -> None:
        kind, name, key = root.holder
        holder = blake2b(f"{kind} {name}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
        self._base.execute(
            "INSERT INTO holder VALUES (?1, ?2, ?3) ON CONFLICT (holder) DO UPDATE "
            "SET owner = ?2, revision = ?3 WHERE ?3 > revision",
            (holder, _owner(root), _revision(key)),
        )
        self._base.executemany(
            "INSERT OR IGNORE INTO need VALUES (?, ?, ?)",
            ((bytes.fromhex(need.digest), need.format or "", holder) for need in root.needs),
        )


def shares_of(formats: dict[str, dict[str, int]], format: str) -> dict[str, int]:
    """Who needs a blob of this format -> the number of holders by owner.

    A migration holds what its runs hold, and a record of it stays while others come and go: it counts where
    nothing else needs the blob.
    """
    counts: dict[str, int] = {}
    for which in (format, ""):
        for owner, number in formats.get(which, {}).items():
            counts[owner] = counts.get(owner, 0) + number
    others = {owner: number for owner, number in counts.items() if owner != MIGRATIONS}
    return others or counts


def _owner(root: Root) -> str:
    if root.holder.kind == RUN and isinstance(root.record, RunManifest):
        return NO_PROJECT if root.record.project is None else root.record.project
    return _OWNERS.get(root.holder.kind, NO_PROJECT)


def _revision(key: str) -> int:
    place = layout.parse_manifest_key(key)
    return place[1] if place else 0
