"""From batches that were sent to one finished state of the migration."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from mltrack_tasks import migrations
from mltrack_tasks.errors import ConflictError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.filetree import FILE, Entry
from mltrack_tasks.migrated import signature
from mltrack_tasks.migration.groups import MLFLOW, members
from mltrack_tasks.migration.hashing import Failed
from mltrack_tasks.migration.mlflowruns import surrounds
from mltrack_tasks.migration.planning import Plan
from mltrack_tasks.migration.runmanifests import RunBatch, RunWork
from mltrack_tasks.migration.state import (
    latest_manifest,
    latest_number,
    merged,
    places_in,
    read_tree,
    write_tree,
)
from mltrack_tasks.migration.uploading import Uploaded
from mltrack_tasks.migrations import MigratedRun, MigrationManifest
from mltrack_tasks.recordstore import create_record, same_content
from mltrack_tasks.stores.base import Store

MAX_RUN_BATCHES, RUNS_PER_BATCH = 30, 100


def with_digests(plan: Plan, uploaded: Iterable[Uploaded]) -> tuple[list[Entry], list[Failed]]:
    """Give large files the digests that sending them found -> (entries, what failed so far).

    A file that failed is not among the entries, unless an earlier state of it is stored.
    """
    failed = list(plan.failed)
    digests: dict[str, str] = {}
    for batch in uploaded:
        failed += batch.failed
        digests.update(batch.receipt.digests)
    lost = {failure.path for failure in failed} - {failure.path for failure in plan.failed}
    entries = [e if e.digest else e._replace(digest=digests.get(e.path, "")) for e in plan.entries]
    kept = [e for e in entries if e.kind != FILE or (e.digest and e.path not in lost)]
    return kept, failed


def runs_to_write(
    plan: Plan, entries: Sequence[Entry], failed: Iterable[Failed], uploaded: Iterable[Uploaded]
) -> tuple[list[MigratedRun], list[RunBatch]]:
    """Compare the runs with those of the last manifest -> (runs that stay, batches of the others).

    A run one of whose files could not be read is not revised: what is stored of it is whole.
    """
    known = {run.run_id: run for run in plan.previous.runs} if plan.previous else {}
    broken = {failure.path for failure in failed}
    places = {**plan.places, **places_in(item.receipt for item in uploaded)}
    kept: list[MigratedRun] = []
    work: list[RunWork] = []
    groups = plan.scan.groups
    for group, files in zip(groups, members(entries, groups), strict=True):
        stored = known.get(group.run_id)
        sign = signature(files, group.facts_json)
        if stored is not None and (stored.signature == sign or _touches(broken, group.folders)):
            kept.append(stored)
        elif not _touches(broken, group.folders):
            lying = {e.digest: places[e.digest] for e in files if e.digest in places}
            work.append(RunWork(group, tuple(files), sign, lying, stored is not None))
    gone = known.keys() - {group.run_id for group in groups}
    kept += [known[run_id] for run_id in sorted(gone)]
    return kept, _in_batches(work, entries)


def finish_migration(
    store: Store,
    plan: Plan,
    entries: Sequence[Entry],
    *,
    receipts: Collection[str],
    runs: Iterable[MigratedRun],
    removing: Sequence[Entry] = (),
    failed: Iterable[Failed] = (),
    observe: Observe = log_event,
) -> MigrationManifest:
    """Write the manifest of a finished state, last of all -> the one that holds now.

    What equals the last one is that one. ``removing`` are files that are about to be deleted here: they stay
    part of a restore. If another call finished the same migration meanwhile, this comes after it.
    """
    migration = plan.scan.migration
    left_out = (*plan.scan.left_out, *failed)
    while True:
        previous = latest_manifest(store, migration)
        known = (*previous.tree, *previous.removed) if previous else ()
        removed = _removed(store, previous, entries, removing)
        manifest = MigrationManifest(
            migration=migration,
            number=latest_number(store, migration) + 1,
            source=plan.scan.source,
            tree=write_tree(store, entries, known, migration),
            removed=write_tree(store, removed, known, migration),
            runs=tuple(sorted(runs)),
            receipts=tuple(dict.fromkeys((*(previous.receipts if previous else ()), *receipts))),
            files=sum(entry.kind == FILE for entry in entries),
            size_bytes=sum(entry.size for entry in entries),
            left_out=left_out,
        )
        if previous and _is_same(previous, manifest):
            return previous
        key = migrations.manifest_key(migration, manifest.number)
        try:
            create_record(store, key, manifest.to_content(), what=f"The migration {migration!r}")
        except ConflictError:
            continue
        details = {"number": manifest.number, "files": manifest.files, "bytes": manifest.size_bytes}
        observe(Event("mltrack.migration.completed", migration, details))
        return manifest


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


def _touches(paths: Collection[str], folders: Sequence[str]) -> bool:
    return any(not folder or path.startswith(f"{folder}/") for path in paths for folder in folders)


def _in_batches(work: Sequence[RunWork], entries: Sequence[Entry]) -> list[RunBatch]:
    size = max(RUNS_PER_BATCH, -(-len(work) // MAX_RUN_BATCHES))
    slices = [work[start : start + size] for start in range(0, len(work), size)]
    wanted = {run.group.experiment for run in work if run.group.kind == MLFLOW and run.group.facts is None}
    around = _around(wanted, entries)
    return [
        RunBatch(runs, {f: around[f] for f in {run.group.experiment for run in runs} & wanted})
        for runs in slices
    ]


def _around(experiments: Collection[str], entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Find what tells of experiments: it lies one to three folders below them."""
    found: dict[str, list[Entry]] = {folder: [] for folder in experiments}
    if not experiments:
        return found
    for entry in entries:
        if entry.kind != FILE:
            continue
        folder = entry.path
        for _ in range(3):
            folder = folder.rpartition("/")[0]
            if folder in found and surrounds(entry.path, folder):
                found[folder].append(entry)
                break
            if not folder:
                break
    return found
