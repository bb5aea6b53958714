"""Restore a store, or some runs of it, into a folder of the worker's machine."""

import time
from typing import Literal

from prefect import flow

from mltrack_tasks import RestoreReport, tasks
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.forms import OptionalText, RequestsInFlight, StoreChoice, completed
from mltrack_tasks.resolve import store_with
from mltrack_tasks.transfers import check_target, render_restore


@flow(name="mltrack-download-from-s3", flow_run_name="restore to {local_path}")
def download_from_s3(
    local_path: str = "./mltrack_backup",
    s3_bucket: OptionalText = None,
    s3_prefix: OptionalText = None,
    run_ids: list[str] | None = None,
    project: OptionalText = None,
    model: OptionalText = None,
    since: OptionalText = None,
    until: OptionalText = None,
    migration: OptionalText = None,
    layout: Literal["files", "store"] = "files",
    overwrite: bool = False,
    repoint_artifacts: bool = False,
    allow_container: bool = False,
    max_workers: RequestsInFlight | None = None,
    store: StoreChoice = None,
) -> RestoreReport:
    """Write what a store holds into a folder -> what was written; run again, only what is missing.

    Args:
        local_path: Folder on the machine of the worker.
        s3_bucket: Another bucket than the store's.
        s3_prefix: Another prefix than the store's.
        run_ids: Only these runs.
        project: Only runs of this project.
        model: Only runs of this model.
        since: Only runs from this day or time on.
        until: Only runs up to this day, or before this time.
        migration: Only the folder of this migration.
        layout: `files` as they lay on disk, or a `store` in a directory for work without the bucket.
        overwrite: Replace files that are different here.
        repoint_artifacts: Make MLflow find its artifacts in this folder. What says where they are is then not
            as it is stored, so a later restore into this folder needs `overwrite`.
        allow_container: Write into a container's own file system, which goes when it ends.
        max_workers: Requests in flight; by default the store's.
        store: A saved block, or as text a block's name, `s3://bucket/prefix`, or a directory.
    """
    began = time.monotonic()
    if repoint_artifacts and layout == "store":
        raise InvalidInputError("repoint_artifacts is for MLflow's folders, which need layout='files'.")
    check_target(local_path, allow_container=allow_container)
    source = store_with(store, s3_bucket=s3_bucket, s3_prefix=s3_prefix, max_workers=max_workers)
    plan = tasks.plan_restore(
        run_ids=run_ids,
        project=project,
        model=model,
        since=since,
        until=until,
        migration=migration,
        layout=layout,
        store=source,
    )
    done = [
        tasks.restore_batch(batch, local_path, overwrite=overwrite, store=source) for batch in plan.batches
    ]
    tasks.finish_restore(plan, local_path, repoint_artifacts=repoint_artifacts, store=source)
    told = render_restore(plan, done, local_path, seconds=time.monotonic() - began)
    return completed(
        told, f"{told.written_files:,} of {told.files:,} files written, {told.present:,} there already"
    )


if __name__ == "__main__":
    download_from_s3()
