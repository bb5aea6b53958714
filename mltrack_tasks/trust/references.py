"""References: what all records of a store need, in a temporary table on disk, in the order of digests.

So that memory does not grow with the store. One thread uses it.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from mltrack_tasks import layout, modelkeys
from mltrack_tasks.errors import AccessError, IntegrityError
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.promotions import Promotion
from mltrack_tasks.records import RunManifest
from mltrack_tasks.trust.findings import MAX_NAMED, UNREADABLE, Finding
from mltrack_tasks.trust.readers import MIGRATION, MODEL, NAME, Holder
from mltrack_tasks.trust.roots import Root
from mltrack_tasks.views import entries_of

_SCHEMA = """
PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA temp_store=FILE;
CREATE TABLE holder(id INTEGER PRIMARY KEY, kind TEXT, name TEXT, key TEXT, pin TEXT);
CREATE TABLE need(digest BLOB, format TEXT, size INTEGER, planned INTEGER, pinned INTEGER, holder INTEGER);
CREATE TABLE run(name TEXT PRIMARY KEY, revision INTEGER) WITHOUT ROWID;
CREATE TABLE view(key TEXT, name TEXT, revision INTEGER);
CREATE TABLE file(key TEXT, size INTEGER, digest BLOB, mark TEXT, holder INTEGER);
CREATE TABLE noted(finding TEXT);
CREATE TABLE suspect(key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE alias(record TEXT, version TEXT, holder INTEGER);
"""
_INDEXES = """
CREATE INDEX of_digest ON need(digest, format, size);
CREATE INDEX of_key ON holder(key);
CREATE INDEX of_file ON file(key);
CREATE INDEX of_view ON view(key);
"""


class Claim(NamedTuple):
    """What records say of one blob."""

    format: str | None
    size: int | None
    planned: bool
    """Whether no record says that it must be there by now."""


class PinOf(NamedTuple):
    """A pin that some record justifies."""

    digest: str
    segment: str
    required: bool
    """Whether its writer wrote it for certain."""


class FileOf(NamedTuple):
    """A real file of a version of a model."""

    key: str
    size: int
    digest: str
    mark: str
    """Key of the object by which its folder is complete."""
    holder: str


class References:
    """Add every root, ``finish``, then ask. A context manager: the table goes with it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mltrack-audit-")
        self._base = sqlite3.connect(Path(self._folder.name) / "references", isolation_level=None)
        self._base.executescript(_SCHEMA)
        self._base.execute("BEGIN")
        self.records = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._base.close()
        self._folder.cleanup()
        if isinstance(error, sqlite3.OperationalError):
            raise AccessError(
                f"The temporary folder (TMPDIR) cannot hold the references of this store: {error}. An audit "
                "takes some 200 bytes there for each; free some space."
            ) from error

    def add(self, root: Root) -> None:
        """Take up one record."""
        self.records += 1
        holder = self.records
        self._base.execute(
            "INSERT INTO holder VALUES (?, ?, ?, ?, ?)", (holder, *root.holder, _pin_of(root.holder))
        )
        pinned = _pinned_by(root)
        self._base.executemany(
            "INSERT INTO need VALUES (?, ?, ?, ?, ?, ?)",
            (
                (
                    bytes.fromhex(need.digest),
                    need.format,
                    need.size,
                    need.planned,
                    pinned is None or need.digest in pinned,
                    holder,
                )
                for need in root.needs
            ),
        )
        if isinstance(root.record, RunManifest):
            self._add_run(root.holder, root.record)
        elif isinstance(root.record, ModelVersion):
            self._add_files(root.holder, root.record, holder)
        elif root.holder.kind == MODEL and isinstance(root.record, list):
            self._add_promotions(root.record, holder)

    def note(self, finding: Finding) -> None:
        """Keep a finding for later: there may be as many as records."""
        self._base.execute("INSERT INTO noted VALUES (?)", (json.dumps(finding.to_json()),))

    def suspect(self, key: str) -> None:
        """Remember an object of which an earlier audit told something."""
        self._base.execute("INSERT OR IGNORE INTO suspect VALUES (?)", (key,))

    def is_suspect(self, key: str) -> bool:
        """Whether an earlier audit told something of an object."""
        return self._base.execute("SELECT 1 FROM suspect WHERE key = ?", (key,)).fetchone() is not None

    def noted(self) -> Iterator[Finding]:
        """What was noted."""
        return (Finding.from_json(json.loads(row)) for (row,) in self._base.execute("SELECT * FROM noted"))

    def finish(self) -> None:
        """All roots are in: sort them."""
        self._base.execute("COMMIT")
        self._base.executescript(_INDEXES)

    def claims(self, after: str = "") -> Iterator[tuple[str, tuple[Claim, ...]]]:
        """What records say of each blob, by digest, from beyond the digest ``after``."""
        rows = self._base.execute(
            "SELECT digest, format, size, min(planned) FROM need WHERE digest > ? "
            "GROUP BY digest, format, size ORDER BY digest",
            (bytes.fromhex(after),),
        )
        for digest, group in groupby(rows, key=itemgetter(0)):
            yield digest.hex(), tuple(Claim(row[1], row[2], bool(row[3])) for row in group)

    def pins(self, after: str = "") -> Iterator[PinOf]:
        """The pins that records justify, by digest and last segment, from beyond the digest ``after``."""
        rows = self._base.execute(
            "SELECT digest, pin, max(pinned) FROM need JOIN holder ON holder.id = need.holder "
            "WHERE digest > ? GROUP BY digest, pin ORDER BY digest, pin",
            (bytes.fromhex(after),),
        )
        return (PinOf(digest.hex(), segment, bool(required)) for digest, segment, required in rows)

    def views(self) -> Iterator[str]:
        """Keys of the views that the current manifests justify, in order."""
        rows = self._base.execute(
            "SELECT DISTINCT key FROM view JOIN run USING (name, revision) ORDER BY key"
        )
        return (key for (key,) in rows)

    def files(self, after: str = "") -> Iterator[FileOf]:
        """The real files that versions of models may have, by key."""
        rows = self._base.execute(
            "SELECT file.key, size, digest, mark, kind, name "
            "FROM file JOIN holder ON holder.id = file.holder WHERE file.key > ? ORDER BY file.key",
            (after,),
        )
        return (
            FileOf(key, size, digest.hex(), mark, f"{kind} {name}")
            for key, size, digest, mark, kind, name in rows
        )

    def dangling_aliases(self) -> Iterator[tuple[Holder, str, str]]:
        """Aliases, versions that they stood for without a record in the registry, and where it should be."""
        rows = self._base.execute(
            "SELECT DISTINCT kind, name, key, version, record "
            "FROM alias JOIN holder ON holder.id = alias.holder "
            "WHERE record NOT IN (SELECT key FROM holder) ORDER BY key, version"
        )
        return ((Holder(*row[:3]), row[3], row[4]) for row in rows)

    def holders(
        self, digest: str, format: str | None = None, size: int | None = None
    ) -> tuple[tuple[Holder, ...], int]:
        """The records that need a blob -> the first MAX_NAMED, and how many; of one format, or one size."""
        where = "digest = ? AND (? IS NULL OR format IS NULL OR format = ?) AND (? IS NULL OR size = ?)"
        rows = f"FROM holder WHERE id IN (SELECT holder FROM need WHERE {where})"
        values = [bytes.fromhex(digest), format, format, size, size]
        [(count,)] = self._base.execute(f"SELECT count(*) {rows}", values)
        named = self._base.execute(
            f"SELECT kind, name, key {rows} ORDER BY kind, name, key LIMIT {MAX_NAMED}", values
        )
        return tuple(Holder(*row) for row in named), count

    def _add_run(self, holder: Holder, manifest: RunManifest) -> None:
        self._base.execute(
            "INSERT INTO run VALUES (?, ?) "
            "ON CONFLICT(name) DO UPDATE SET revision = max(revision, excluded.revision)",
            (manifest.run_id, manifest.revision),
        )
        try:
            keys = list(entries_of(manifest))
        except IntegrityError as error:
            self.note(Finding(UNREADABLE, holder.key, str(error)))
            return
        self._base.executemany(
            "INSERT INTO view VALUES (?, ?, ?)", ((key, manifest.run_id, manifest.revision) for key in keys)
        )

    def _add_files(self, holder: Holder, version: ModelVersion, number: int) -> None:
        if holder.key == modelkeys.promoted_key(version.model, version.version):
            folder, mark = modelkeys.promoted_folder(version.model, version.version), holder.key
        else:
            folder = modelkeys.development_folder(version.model, version.version)
            mark = modelkeys.materialized_key(version.model, version.version)
        self._base.executemany(
            "INSERT INTO file VALUES (?, ?, ?, ?, ?)",
            (
                (folder + file.shown_path, file.size_bytes, bytes.fromhex(file.digest), mark, number)
                for file in version.files
            ),
        )

    def _add_promotions(self, events: list[Promotion], number: int) -> None:
        self._base.executemany(
            "INSERT INTO alias VALUES (?, ?, ?)",
            (
                (modelkeys.promoted_key(event.model, event.version), event.version, number)
                for event in events
                if event.version is not None
            ),
        )


def _pinned_by(root: Root) -> set[str] | None:
    """Digests that the writer of a record pinned for it for certain; None: all of them."""
    if isinstance(root.record, RunManifest):
        return {ref.hash for ref in root.record.all_refs}  # files of a migrated run are pinned by plans
    return set() if root.holder.kind == MIGRATION else None


def _pin_of(holder: Holder) -> str:
    """Last segment of the pins by which a record's writer holds its blobs."""
    zero = "0" * 64
    if holder.kind == NAME:
        key = layout.name_pin_key(zero, holder.name)
    elif holder.kind == MIGRATION:
        key = layout.migration_pin_key(zero, holder.name)
    elif holder.kind == MODEL:
        key = layout.model_pin_key(zero, holder.name.rpartition(" ")[0])
    else:
        key = layout.run_pin_key(zero, holder.name)
    return key.rpartition("/")[2]
