"""The steps of a migration, and of a restore, as tasks: a flow puts them together.

Each batch is one task run of some hundred files. Paths are those of the machine that runs the task.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

from mltrack_tasks import migration as operations
from mltrack_tasks.artifacts import Progress
from mltrack_tasks.assets import made
from mltrack_tasks.blocks import MLTrackStore
from mltrack_tasks.migration.deletion import DeleteBatch, Deleted
from mltrack_tasks.migration.download import RestoreBatch, RestorePlan
from mltrack_tasks.migration.finishing import Finished
from mltrack_tasks.migration.modelwriting import WrittenModels
from mltrack_tasks.migration.origin import Origin
from mltrack_tasks.migration.planning import Plan
from mltrack_tasks.migration.restoring import Restored
from mltrack_tasks.migration.runmanifests import RunBatch, Written
from mltrack_tasks.migration.runplan import RunPlan
from mltrack_tasks.migration.scan import Scan
from mltrack_tasks.migration.uploading import Uploaded
from mltrack_tasks.migrations import manifest_key
from mltrack_tasks.plan import Batch
from mltrack_tasks.resolve import open_store
from mltrack_tasks.tasking import mltrack_task, recorded, report, run_logger, transfer_slot
from mltrack_tasks.transfers import Share, in_container


@mltrack_task
def scan_source(
    local_path: str | Path = "./mlruns",
    *,
    name: str | None = None,
    run_id: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    backend_db: str | Path | None = None,
    allow_empty: bool = False,
) -> Scan:
    """Look at a folder of the machine that runs this -> its entries and runs. Nothing is hashed yet.

    ``name`` names the migration, in which later calls recognise the same folder; by default it follows from
    host and path; in a container, whose host name the next one does not have, a warning asks for one.
    ``backend_db`` is the SQLite database of MLflow, if it is not in the folder. Raises InvalidInputError for
    a path that is not there, and for a folder without files unless ``allow_empty``.
    """
    if name is None and in_container():
        run_logger().warning(
            "This migration is named by host and path, and this host, %s, is a container: the next one has "
            "another name, and would begin a migration of its own, which may not revise the runs of "
            "this one. Give name=... by which it is recognised.",
            socket.gethostname(),
        )
    with Progress("mltrack-scan") as observe:
        return operations.scan_source(
            local_path,
            name=name,
            run_id=run_id,
            include=include,
            exclude=exclude,
            backend_db=backend_db,
            allow_empty=allow_empty,
            observe=observe,
        )


@mltrack_task
def find_existing(
    digests: Collection[str], *, store: MLTrackStore | str | None = None
) -> dict[str, tuple[str, int]]:
    """Find which of these files a store holds as blobs -> digest to (format, size [bytes])."""
    return operations.find_existing(open_store(store), digests)


@mltrack_task
def plan_migration(
    scan: Scan,
    *,
    pack_small_files: bool = True,
    hash_everything: bool = False,
    store: MLTrackStore | str | None = None,
) -> Plan:
    """Compare a folder with what earlier migrations stored -> the batches to send. Writes nothing."""
    with Progress("mltrack-hashing") as observe:
        return operations.plan_migration(
            open_store(store),
            scan,
            pack_small_files=pack_small_files,
            hash_everything=hash_everything,
            observe=observe,
        )


@mltrack_task
def upload_batch(
    batch: Batch,
    *,
    origin: Origin,
    trust: bool = True,
    progress: Share | None = None,
    store: MLTrackStore | str | None = None,
) -> Uploaded:
    """Make sure that the store has a batch's files -> the receipt, and what could not be read.

    Run again after a failure it sends what is missing; ``trust=False`` looks at everything even if there is a
    receipt. A file that cannot be read, or changed, is named in ``failed``.
    """
    observe = report if progress is None else progress.observer()
    with recorded(), transfer_slot():
        opened = open_store(store)
        done = operations.upload_batch(opened, batch, origin=origin, trust=trust, observe=observe)
    run_logger().info(
        "%d files, %d bytes: %d blobs created of %d bytes, %d files failed",
        *(len(batch.files), batch.size_bytes, done.created_blobs, done.created_bytes, len(done.failed)),
    )
    return done


@mltrack_task
def verify_batch(
    batch: Batch,
    sent: Uploaded,
    *,
    origin: Origin,
    store: MLTrackStore | str | None = None,
) -> Uploaded:
    """Look for all that a batch's receipt names; what is gone is sent again -> what the store has."""
    with recorded():
        return operations.verify_batch(open_store(store), batch, sent, origin=origin, observe=report)


@mltrack_task
def verify_batches(
    batches: Sequence[Batch],
    sent: Sequence[Uploaded],
    *,
    origin: Origin,
    store: MLTrackStore | str | None = None,
) -> list[Uploaded]:
    """Look for all that was sent by one LIST, or by HEADs where that is less; what is gone is sent again."""
    with recorded():
        return operations.verify_batches(open_store(store), batches, sent, origin=origin, observe=report)


@mltrack_task
def plan_manifests(plan: Plan, uploaded: Sequence[Uploaded]) -> RunPlan:
    """Find the runs that have to be written, now that their files are stored -> batches of them."""
    return operations.plan_manifests(plan, uploaded)


@mltrack_task
def write_manifests(batch: RunBatch, *, origin: Origin, store: MLTrackStore | str | None = None) -> Written:
    """Write the manifests of a batch of runs -> those in the store now, and what failed."""
    with recorded(), Progress("mltrack-manifests") as observe:
        return operations.write_manifests(open_store(store), batch, origin=origin, observe=observe)


@mltrack_task
def write_models(
    work: RunPlan, written: Sequence[Written], *, store: MLTrackStore | str | None = None
) -> WrittenModels:
    """Register MLflow's registered models and give their aliases -> what is in the store now, what failed.

    Versions whose files are not in the folder, and aliases that somebody moved here since, are noted with the
    reason. Emits ``mltrack.model.promoted`` for each alias that is moved.
    """
    with recorded(), Progress("mltrack-models") as observe:
        return operations.write_models(open_store(store), work, written, observe=observe)


@mltrack_task
def finish_migration(
    work: RunPlan,
    written: Sequence[Written],
    *,
    models: WrittenModels | None = None,
    delete_older_than: timedelta | None = None,
    store: MLTrackStore | str | None = None,
) -> Finished:
    """Write the manifest of the finished state -> it, and with ``delete_older_than`` what may be deleted.

    ``models`` is what ``write_models`` gave; without it, what was known of registered models stays so.
    Emits ``mltrack.migration.completed``.
    """
    opened = open_store(store)
    with recorded():
        done = operations.finish_migration(
            opened,
            work,
            written,
            models=models,
            delete_older_than=delete_older_than,
            observe=report,
        )
    key = manifest_key(done.manifest.migration, done.manifest.number)
    return made(opened, key, done, name=f"{done.manifest.migration} {done.manifest.number}")


@mltrack_task
def delete_local_batch(
    batch: DeleteBatch, *, origin: Origin, store: MLTrackStore | str | None = None
) -> Deleted:
    """Delete files here that the store is shown to have just now -> what went, and what stayed and why."""
    with Progress("mltrack-deletion") as observe:
        return operations.delete_local_batch(open_store(store), batch, origin=origin, observe=observe)


@mltrack_task
def plan_restore(
    *,
    run_ids: Sequence[str] | None = None,
    project: str | None = None,
    model: str | None = None,
    since: date | datetime | str | None = None,
    until: date | datetime | str | None = None,
    migration: str | None = None,
    layout: str = "files",
    store: MLTrackStore | str | None = None,
) -> RestorePlan:
    """Choose what to restore: everything, a migration, or runs -> the batches to write.

    Raises NotFoundError for an unknown run, ConflictError for files that cannot lie in one folder.
    """
    with Progress("mltrack-restore-plan") as observe:
        return operations.plan_restore(
            open_store(store),
            run_ids=run_ids,
            project=project,
            model=model,
            since=since,
            until=until,
            migration=migration,
            layout=layout,
            observe=observe,
        )


@mltrack_task
def restore_batch(
    batch: RestoreBatch,
    local_path: str | Path,
    *,
    overwrite: bool = False,
    store: MLTrackStore | str | None = None,
) -> Restored:
    """Write a batch's files into a folder of the machine that runs this -> what was written and found."""
    with transfer_slot(), Progress("mltrack-restoring") as observe:
        return operations.restore_batch(
            open_store(store), batch, local_path, overwrite=overwrite, observe=observe
        )


@mltrack_task
def finish_restore(
    plan: RestorePlan,
    local_path: str | Path,
    *,
    repoint_artifacts: bool = False,
    store: MLTrackStore | str | None = None,
) -> None:
    """When all batches are written, set the permissions of folders, and copy the records of a store.

    With ``repoint_artifacts`` the addresses of MLflow's artifacts that led into the tree where it was lead
    into this folder. Such files differ from the stored ones: a later restore over them needs ``overwrite``.
    """
    with Progress("mltrack-restore-records") as observe:
        operations.finish_restore(
            open_store(store), plan, local_path, repoint_artifacts=repoint_artifacts, observe=observe
        )
