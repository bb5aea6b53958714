"""From batches that were sent to one finished state of the migration."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from mltrack_tasks import events, migrations
from mltrack_tasks.errors import ConflictError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.filetree import FILE, Entry
from mltrack_tasks.migration.deletion import DeleteBatch, RunFiles, deletable, delete_batches
from mltrack_tasks.migration.hashing import Failed
from mltrack_tasks.migration.runmanifests import Written
from mltrack_tasks.migration.runplan import RunPlan
from mltrack_tasks.migration.state import (
    latest_manifest,
    latest_number,
    merged,
    read_tree,
    write_tree,
)
from mltrack_tasks.migrations import MigratedRun, MigrationManifest
from mltrack_tasks.recordstore import create_record, same_content
from mltrack_tasks.stores.base import Store


@dataclass(frozen=True)
class Finished:
    """A finished state, and what may be deleted here now that it is written."""

    manifest: MigrationManifest
    failed: tuple[Failed, ...] = ()
    """Files and runs that were not stored as they are now."""
    deletions: tuple[DeleteBatch, ...] = ()


def finish_migration(
    store: Store,
    work: RunPlan,
    written: Iterable[Written],
    *,
    delete_older_than: timedelta | None = None,
    observe: Observe = log_event,
) -> Finished:
    """Write the manifest of a finished state, last of all -> the one that holds now.

    What equals the last one is that one. With ``delete_older_than`` it also lists the files that may be
    deleted here, before any is: they stay part of a restore. If another call finished the same migration
    meanwhile, this comes after it.
    """
    runs, failed = list(work.kept), list(work.failed)
    for batch in written:
        runs += batch.runs
        failed += batch.failed
    doomed: list[RunFiles] = []
    if delete_older_than is not None:
        now = datetime.now(UTC)
        doomed = deletable(work.scan, work.entries, runs, min_age=delete_older_than, now=now)
    manifest = _written(store, work, runs, failed, [entry for run in doomed for entry in run.entries])
    details = {"number": manifest.number, "files": manifest.files, "bytes": manifest.size_bytes}
    observe(Event(events.MIGRATION_COMPLETED, manifest.migration, details))
    return Finished(manifest, tuple(failed), tuple(delete_batches(doomed, work.places)))


def _written(
    store: Store,
    work: RunPlan,
    runs: Sequence[MigratedRun],
    failed: Sequence[Failed],
    removing: Sequence[Entry],
) -> MigrationManifest:
    migration = work.scan.migration
    while True:
        previous = latest_manifest(store, migration)
        listed = (*previous.tree, *previous.removed) if previous else ()
        removed = _removed(store, previous, work.entries, removing)
        manifest = MigrationManifest(
            migration=migration,
            number=latest_number(store, migration) + 1,
            source=work.scan.source,
            tree=write_tree(store, work.entries, listed, migration),
            removed=write_tree(store, removed, listed, migration),
            runs=tuple(sorted(runs)),
            receipts=_receipts(previous, work.receipts),
            files=sum(entry.kind == FILE for entry in work.entries),
            size_bytes=sum(entry.size for entry in work.entries),
            left_out=(*work.scan.left_out, *failed),
        )
        if previous and _is_same(previous, manifest):
            return previous
        key = migrations.manifest_key(migration, manifest.number)
        try:
            create_record(store, key, manifest.to_content(), what=f"The migration {migration!r}")
        except ConflictError:
            continue  # another call finished this very number: ours is the state after it
        return manifest


def _receipts(previous: MigrationManifest | None, new: Collection[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*(previous.receipts if previous else ()), *new)))


def _is_same(one: MigrationManifest, other: MigrationManifest) -> bool:
    """Whether two states are one: the receipts of the earlier then name all that there is."""
    plain = (replace(each, number=1, receipts=()).to_content() for each in (one, other))
    return same_content(*plain)


def _removed(
    store: Store, previous: MigrationManifest | None, entries: Sequence[Entry], removing: Sequence[Entry]
) -> list[Entry]:
    """What is no longer in the folder, or soon will not be, because it was migrated and deleted."""
    present = {entry.path for entry in entries}
    older = read_tree(store, previous.removed, "the files removed earlier") if previous else []
    return merged(removing, [entry for entry in older if entry.path not in present])
