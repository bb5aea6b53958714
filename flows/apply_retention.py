"""Remove the runs that no policy keeps, on a schedule; a dry run, unless told otherwise."""

from typing import Annotated

from prefect import flow
from pydantic import Field

from mltrack_tasks import RetentionPolicy, RetentionReport, tasks
from mltrack_tasks.forms import StoreChoice, run_name


@flow(name="mltrack-apply-retention", flow_run_name=run_name("apply retention"))
def apply_retention(
    policies: Annotated[list[RetentionPolicy], Field(min_length=1, max_length=100)],
    dry_run: bool = True,
    store: StoreChoice = None,
) -> RetentionReport:
    """Decide which runs the policies keep -> each with the reason; without the dry run the others go.

    What only removed runs held goes with later runs of `collect_garbage`.

    Args:
        policies: The first one that is about a run decides; a run that none is about is kept.
        dry_run: Only decide, and show it.
        store: A saved block, or as text a block's name, `s3://bucket/prefix`, or a directory.
    """
    return tasks.apply_retention(policies, dry_run=dry_run, store=store)
