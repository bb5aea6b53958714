"""Set up the bucket of a store, or look whether it is still as it was set up; a dry run, unless told "
"otherwise."""

from typing import Annotated

from prefect import flow
from pydantic import Field

from mltrack_tasks import BucketReport, BucketSettings, tasks
from mltrack_tasks.forms import OptionalText, StoreChoice, run_name

NOTHING_SAID = BucketSettings()


@flow(name="mltrack-provision-bucket", flow_run_name=run_name("provision bucket"))
def provision_bucket(
    settings: BucketSettings = NOTHING_SAID,
    dry_run: bool = True,
    plan: OptionalText = None,
    undo: Annotated[int | None, Field(ge=1)] = None,
    store: StoreChoice = None,
) -> BucketReport:
    """Compare the bucket with the settings -> a report; without the dry run the changes are made.

    Args:
        settings: How the bucket is to be set up. What is left out stays as it was last applied.
        dry_run: Only look, and show what would change and what was changed by hand.
        plan: Make the changes of an earlier dry run, or none; its digest stands in that run's artifact.
        undo: Number of a change to take back, instead of all that.
        store: A saved block, or as text a block's name or `s3://bucket/prefix`.
    """
    if undo is not None:
        return tasks.undo_bucket_change(undo, dry_run=dry_run, store=store)
    return tasks.provision_bucket(settings, dry_run=dry_run and plan is None, plan=plan, store=store)


if __name__ == "__main__":
    provision_bucket()
