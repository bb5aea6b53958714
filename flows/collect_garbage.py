"""Give back the space of what nothing needs any more; a dry run, unless told otherwise."""

from datetime import timedelta
from typing import Annotated

from prefect import flow
from pydantic import Field

from mltrack_tasks import GarbageReport, tasks
from mltrack_tasks.forms import OptionalText, StoreChoice, completed, run_name


@flow(name="mltrack-collect-garbage", flow_run_name=run_name("collect garbage"))
def collect_garbage(
    grace_days: Annotated[float, Field(ge=1, le=36_500)] = 7,
    dry_run: bool = True,
    plan: OptionalText = None,
    full: bool = False,
    store: StoreChoice = None,
) -> GarbageReport:
    """Find the blobs that no record needs -> what they are; without the dry run they are deleted.

    Args:
        grace_days: Nothing younger than this is deleted.
        dry_run: Only make the plan, and show it.
        plan: Apply the plan of an earlier dry run; its digest stands in that run's artifact.
        full: Read every record anew, also those that an earlier collection read within 30 days.
        store: A saved block, or as text a block's name, `s3://bucket/prefix`, or a directory.
    """
    found = tasks.collect_garbage(
        grace=timedelta(days=grace_days),
        dry_run=dry_run and plan is None,
        plan=plan,
        full=full,
        store=store,
    )
    return completed(found, str(found))


if __name__ == "__main__":
    collect_garbage()
