"""From batches that were sent to one finished state of the migration."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from mltrack_tasks import events, migrations
from mltrack_tasks.errors import ConflictError, IntegrityError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.filetree import FILE, Entry
from mltrack_tasks.migration.deletion import (
    DeleteBatch,
    RunFiles,
    check_age,
    deletable,
    delete_batches,
)
from mltrack_tasks.migration.groups import members
from mltrack_tasks.migration.hashing import Failed
from mltrack_tasks.migration.modelwriting import WrittenModels
from mltrack_tasks.migration.receiptlists import listed_receipts
from mltrack_tasks.migration.runmanifests import Written
from mltrack_tasks.migration.runplan import RunPlan
from mltrack_tasks.migration.state import (
    OvertakenError,
    latest_number,
    merged,
    places_in,
    read_manifest,
    read_receipts,
)
from mltrack_tasks.migrations import MigratedRun, MigrationManifest, TakenRegistry
from mltrack_tasks.plan import inlined
from mltrack_tasks.receipts import Place
from mltrack_tasks.recordstore import create_record, same_content
from mltrack_tasks.stores.base import Store
from mltrack_tasks.treeparts import read_tree, write_tree


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
    written: Sequence[Written],
    *,
    models: WrittenModels | None = None,
    delete_older_than: timedelta | None = None,
    observe: Observe = log_event,
) -> Finished:
    """Write the manifest of a finished state, last of all -> the one that holds now.

    What equals the last one is that one. ``models`` is what ``write_models`` gave; without it, what the last
    one says of registered models stands. With ``delete_older_than`` it also lists the files that may be
    deleted here, before any is: they stay part of a restore. Raises ConflictError if another call has
    finished a state of the same migration since this one was planned: what it found may be older.
    """
    if delete_older_than is not None:
        check_age(delete_older_than)
    state = _stored(store, work, list(written))._replace(models=models)
    failed = state.all_failed
    doomed: list[RunFiles] = []
    if delete_older_than is not None and not failed:
        now = datetime.now(UTC)
        doomed = deletable(work.scan, state.entries, state.runs, min_age=delete_older_than, now=now)
    removing = [entry for run in doomed for entry in run.entries]
    manifest = _written(store, work, state, removing)
    places = _proven_places(store, manifest, removing) if doomed else {}
    details = {"number": manifest.number, "files": manifest.files, "bytes": manifest.size_bytes}
    observe(Event(events.MIGRATION_COMPLETED, manifest.migration, details))
    return Finished(manifest, failed, tuple(delete_batches(doomed, places)))


class _State(NamedTuple):
    """What a restore is going to give."""

    entries: Sequence[Entry]
    runs: tuple[MigratedRun, ...]
    failed: tuple[Failed, ...]
    models: WrittenModels | None = None

    @property
    def all_failed(self) -> tuple[Failed, ...]:
        """Files, runs and versions of models that were not stored."""
        return (*self.failed, *(self.models.failed if self.models else ()))


def _stored(store: Store, work: RunPlan, written: Sequence[Written]) -> _State:
    """Put together what is stored; of what failed, what earlier migrations stored of it.

    If a run was not written, the bytes of its new small files are nowhere; nor are those of a file whose
    equal changed before it was sent. They are left out, and named.
    """
    runs = (*work.kept, *(run for batch in written for run in batch.runs))
    failed = (*work.failed, *(failure for batch in written for failure in batch.failed))
    if not failed:
        return _State(work.entries, runs, ())
    previous, there = work.previous, {run.run_id for run in runs}
    older = read_tree(store, previous.tree, "the last finished state") if previous else []
    known = {entry.path: entry for entry in older if entry.kind == FILE}
    inside = _inside_manifests(work, there)
    entries, named = [], {failure.path for failure in failed}
    for entry in work.entries:
        before = known.get(entry.path)
        is_stored = entry.digest in work.places or entry.path in inside
        if entry.kind != FILE or is_stored or (before and before.digest == entry.digest):
            entries.append(entry)
        elif entry.path not in named:
            failed += (Failed(entry.path, "not stored, as another file of its run or its bytes was not"),)
    back = [known[failure.path] for failure in failed if failure.path in known]
    runs += tuple(run for run in (previous.runs if previous else ()) if run.run_id not in there)
    return _State(merged(entries, back), runs, failed)


def _inside_manifests(work: RunPlan, there: Collection[str]) -> set[str]:
    """Name the files whose bytes stand in the manifests of runs that are stored as they are."""
    groups, inside = work.scan.groups, set[str]()
    for group, files in zip(groups, members(work.entries, groups), strict=True):
        if group.run_id in there and work.staying.isdisjoint(group.folders):
            chosen = inlined(files)
            inside.update(entry.path for entry in files if entry.digest in chosen)
    return inside


def _proven_places(
    store: Store, manifest: MigrationManifest, removing: Iterable[Entry]
) -> Mapping[str, Place]:
    """Read back what a restore goes by -> where files lie; IntegrityError if it lacks one that may go."""
    what = f"the manifest of {manifest.migration!r}"
    state = read_manifest(store, manifest.migration, manifest.number)
    listed = {*read_tree(store, state.tree, what), *read_tree(store, state.removed, what)}
    for entry in removing:
        if entry._replace(inode=0, ctime_ns=0) not in listed:
            raise IntegrityError(
                f"{what} does not list {entry.path!r} as it was stored; nothing was deleted."
            )
    return places_in(read_receipts(store, state.migration, state.receipts))


def _written(store: Store, work: RunPlan, state: _State, removing: Sequence[Entry]) -> MigrationManifest:
    migration, previous = work.scan.migration, work.previous
    models = state.models or previous
    before = previous.number if previous else 0
    listed = (*previous.tree, *previous.removed) if previous else ()
    removed = _removed(store, previous, state.entries, removing)
    manifest = MigrationManifest(
        migration=migration,
        number=before + 1,
        source=work.scan.source,
        tree=write_tree(store, state.entries, listed, migration),
        removed=write_tree(store, removed, listed, migration),
        runs=tuple(sorted(state.runs)),
        receipts=_receipts(store, work, (*state.entries, *removed)),
        files=sum(entry.kind == FILE for entry in state.entries),
        size_bytes=sum(entry.size for entry in state.entries),
        left_out=tuple(dict.fromkeys((*work.scan.left_out, *map(_plain, state.all_failed)))),
        versions=models.versions if models else (),
        aliases=models.aliases if models else (),
        registries=_registries(work, state.models),
        moves=state.models.moves if state.models else (),
    )
    if previous and _is_same(previous, manifest):
        manifest = previous
    else:
        _create(store, manifest)
    if removing and latest_number(store, migration) != manifest.number:
        raise OvertakenError(migration)  # this very state, of a call before, is not the newest any more
    return manifest


def _create(store: Store, manifest: MigrationManifest) -> None:
    migration = manifest.migration
    key = migrations.manifest_key(migration, manifest.number)
    try:
        create_record(store, key, manifest.to_content(), what=f"The migration {migration!r}")
    except ConflictError as error:
        raise OvertakenError(migration) from error


def _plain(failure: Failed) -> tuple[str, str]:
    return failure.path, failure.reason


def _receipts(store: Store, work: RunPlan, entries: Iterable[Entry]) -> tuple[str, ...]:
    previous = work.previous
    return listed_receipts(
        store,
        work.scan.migration,
        previous.receipts if previous else (),
        work.receipts,
        needed={entry.digest for entry in entries if entry.kind == FILE},
        moved=work.lost & work.places.keys(),
    )


def _registries(work: RunPlan, models: WrittenModels | None) -> tuple[TakenRegistry, ...]:
    """Which registries were taken; as before, where nothing was written of them."""
    if models is None or work.unchanged:
        return work.previous.registries if work.previous else ()
    return work.scan.registry.taken(work.previous)


def _is_same(one: MigrationManifest, other: MigrationManifest) -> bool:
    """Whether two states are one, and the earlier lists all receipts and moves of the later."""
    if not (set(other.receipts) <= set(one.receipts) and set(other.moves) <= set(one.moves)):
        return False
    plain = (replace(each, number=1, receipts=(), moves=()).to_content() for each in (one, other))
    return same_content(*plain)


def _removed(
    store: Store, previous: MigrationManifest | None, entries: Sequence[Entry], removing: Sequence[Entry]
) -> list[Entry]:
    """What is no longer in the folder, or soon will not be, because it was migrated and deleted."""
    present = {entry.path for entry in entries}
    older = read_tree(store, previous.removed, "the files removed earlier") if previous else []
    return merged(removing, [entry for entry in older if entry.path not in present])
