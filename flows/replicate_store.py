"""Keep a second store up to date, in another region, account or server; schedule it."""

from typing import Annotated

from prefect import flow
from pydantic import Field

from mltrack_tasks import MLTrackStore, ReplicationReport, tasks
from mltrack_tasks.forms import StoreChoice, run_name

Target = Annotated[str, Field(min_length=1)]


@flow(name="mltrack-replicate-store", flow_run_name=run_name("replicate store"))
def replicate_store(
    target: MLTrackStore | Target, dry_run: bool = False, store: StoreChoice = None
) -> ReplicationReport:
    """Copy what a replica lacks -> what was missing, and copied; fails when something cannot be copied.

    Args:
        target: The replica, an empty place at first: a saved block, or as text a block's name,
            `s3://bucket/prefix`, or a directory.
        dry_run: Only say how far the replica is behind.
        store: What is replicated: a saved block, or as text a block's name, `s3://bucket/prefix`, or a
            directory.
    """
    return tasks.replicate_store(target, dry_run=dry_run, store=store)
