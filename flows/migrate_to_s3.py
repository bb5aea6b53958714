"""Store a folder of the worker's machine, by hand, from the UI or on a schedule.

``python flows/migrate_to_s3.py --serve`` schedules it on the machine that has the folder.
"""

import argparse
import time
from typing import Annotated

from prefect import flow
from pydantic import Field

from mltrack_tasks import MigrationReport, tasks
from mltrack_tasks.forms import OptionalText, RequestsInFlight, StoreChoice, completed, run_name
from mltrack_tasks.resolve import store_with
from mltrack_tasks.transfers import Outcome, Transfer, age_of, render_migration, shown_if_stopped


@flow(name="mltrack-migrate-to-s3", flow_run_name=run_name("migrate {local_path}"))
def migrate_to_s3(
    local_path: str = "./mlruns",
    s3_bucket: OptionalText = None,
    s3_prefix: OptionalText = None,
    delete_after_upload: bool = False,
    dry_run: bool = False,
    backend_db: OptionalText = None,
    name: OptionalText = None,
    run_id: OptionalText = None,
    include: list[str] | None = None,
    exclude: list[str] | None = None,
    pack_small_files: bool = True,
    min_age_minutes: Annotated[float, Field(ge=0)] = 60,
    allow_empty: bool = False,
    max_workers: RequestsInFlight | None = None,
    store: StoreChoice = None,
) -> MigrationReport:
    """Store a folder with its runs -> what was done; run again, only what has changed.

    Args:
        local_path: Folder on the machine of the worker: MLflow's `mlruns`, or any other.
        s3_bucket: Another bucket than the store's.
        s3_prefix: Another prefix than the store's.
        delete_after_upload: Delete files here that are proven to be stored, of runs that ended.
        dry_run: Only show what would be sent.
        backend_db: MLflow's SQLite database, if it is not in the folder or beside it.
        name: Name under which later calls recognise the folder; by default made of host and path. Give one
            where the host changes from run to run, as in containers.
        run_id: Make a folder that is not MLflow's one run of this id.
        include: Patterns of relative paths, such as `*.csv`; nothing means everything.
        exclude: Patterns of relative paths to leave out.
        pack_small_files: Send small files many at a time.
        min_age_minutes: With delete_after_upload, how long a run must have been unchanged.
        allow_empty: Accept a folder without files.
        max_workers: Requests in flight; by default the store's.
        store: A saved block, or as text a block's name, `s3://bucket/prefix`, or a directory.
    """
    began = time.monotonic()
    age = age_of(min_age_minutes) if delete_after_upload else None
    into = store_with(store, s3_bucket=s3_bucket, s3_prefix=s3_prefix, max_workers=max_workers)
    scan = tasks.scan_source(
        local_path,
        name=name,
        run_id=run_id,
        include=include or (),
        exclude=exclude or (),
        backend_db=backend_db,
        allow_empty=allow_empty,
    )
    plan = tasks.plan_migration(scan, pack_small_files=pack_small_files, hash_everything=dry_run, store=into)
    done, origin = Outcome(), scan.origin
    if not dry_run and (delete_after_upload or not plan.unchanged):
        transfer = Transfer("mltrack-migration-progress", f"Migrating {scan.root}", plan.new_bytes)
        with shown_if_stopped(plan, done):
            for batch in plan.batches:
                part = transfer.share(batch.size_bytes)
                done.uploaded.append(tasks.upload_batch(batch, origin=origin, progress=part, store=into))
            done.uploaded = tasks.verify_batches(plan.batches, done.uploaded, origin=origin, store=into)
            work = tasks.plan_manifests(plan, done.uploaded)
            for runs in work.batches:
                done.written.append(tasks.write_manifests(runs, origin=origin, store=into))
            models = tasks.write_models(work, done.written, store=into)
            done.finished = tasks.finish_migration(
                work, done.written, models=models, delete_older_than=age, store=into
            )
            for doomed in done.finished.deletions:
                done.deleted.append(tasks.delete_local_batch(doomed, origin=origin, store=into))
            transfer.finish()
    told = render_migration(plan, done, dry_run=dry_run, began=began, store=into)
    return completed(told, told.summary())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Migrate a folder of this machine.")
    parser.add_argument("--serve", action="store_true", help="stay, and run on a schedule or from the UI")
    parser.add_argument("--local-path", default="./mlruns")
    parser.add_argument("--store", default=None)
    parser.add_argument("--cron", default=None, help='such as "0 3 * * *"')
    given = parser.parse_args()
    chosen = {"local_path": given.local_path, "store": given.store}
    if given.serve:
        migrate_to_s3.serve(name="migrate-to-s3", cron=given.cron, parameters=chosen)
    else:
        migrate_to_s3(**chosen)
