"""Remove the runs that match; a dry run, unless told otherwise or given the plan of one."""

from typing import Annotated, Any, Literal

from prefect import flow
from pydantic import Field

from mltrack_tasks import RemovalReport, tasks
from mltrack_tasks.forms import OptionalText, StoreChoice, run_name


@flow(name="mltrack-remove-runs", flow_run_name=run_name("remove runs"))
def remove_runs(
    project: OptionalText = None,
    run_type: Literal["experiment", "production", "evaluation", "development", "analysis"] | None = None,
    model: OptionalText = None,
    status: Literal["finished", "failed", "killed"] | None = None,
    since: OptionalText = None,
    until: OptionalText = None,
    tags: Annotated[dict[str, Any], Field(max_length=100)] | None = None,
    reason: OptionalText = None,
    plan: OptionalText = None,
    dry_run: bool = True,
    store: StoreChoice = None,
) -> RemovalReport:
    """Name the runs that match everything given -> a plan; applied, they are removed.

    What only they held goes with later runs of `collect_garbage`. Runs from which a promoted version came,
    runs that are not over, and runs tagged `mltrack.keep` stay.

    Args:
        project: Only runs of this project.
        run_type: Only runs of this type.
        model: Only runs of this model.
        status: Only runs that ended so.
        since: Only runs that began on this day (`2024-01-15`), or at this time with a timezone, or later.
        until: Only runs that began up to this day, or before this time.
        tags: Only runs with these tags, of these values.
        reason: Kept with the record of each removal.
        plan: Apply the plan of an earlier dry run, without conditions; its artifact shows the digest.
        dry_run: Only make the plan, and show it.
        store: A saved block, or as text a block's name, `s3://bucket/prefix`, or a directory.
    """
    return tasks.remove_runs(
        project=project,
        run_type=run_type,
        model=model,
        status=status,
        since=since,
        until=until,
        tags=tags,
        reason=reason,
        plan=plan,
        dry_run=dry_run and plan is None,
        store=store,
    )


if __name__ == "__main__":
    remove_runs()
