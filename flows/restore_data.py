"""Archived data made readable again, and the wait for it: polling, or suspended without a worker."""

import math
from typing import Annotated, Literal

from prefect import flow
from prefect.flow_runs import suspend_flow_run
from pydantic import Field

from mltrack_tasks import RestoredData, tasks
from mltrack_tasks.forms import OptionalText, StoreChoice, run_name


@flow(name="mltrack-restore-data", flow_run_name=run_name("restore data"))
def restore_data(
    refs: list[str] | None = None,
    run_id: OptionalText = None,
    days: Annotated[int, Field(ge=1, le=365)] = 7,
    tier: Literal["Standard", "Bulk", "Expedited"] = "Standard",
    max_cost: Annotated[float, Field(ge=0)] = 10.0,
    dry_run: bool = False,
    wait: Literal["no", "poll", "suspend"] = "no",
    timeout_hours: Annotated[float, Field(ge=0)] = 48,
    poll_minutes: Annotated[float, Field(gt=0)] = 15,
    store: StoreChoice = None,
) -> RestoredData:
    """Restore the data of a run, or of refs, out of its archive -> how it stands in the end.

    Args:
        refs: What to restore: texts like `sha256:<digest>.parquet`. Or give run_id.
        run_id: The run whose data is restored.
        days: How long the restored copies stay.
        tier: Standard takes hours, Bulk is slower and cheapest, Expedited takes minutes.
        max_cost: Dollars; a dearer restore is not started.
        dry_run: Only look, and say what it would cost.
        wait: `poll` asks until the data is there and holds the worker; `suspend` ends the run's process, and
            whoever resumes the run (a person, an automation) lets it look again.
        timeout_hours: How long to wait.
        poll_minutes: How often to ask.
        store: A block's name, `s3://bucket/prefix`, or a directory.
    """
    found = tasks.restore_data(
        refs or (), run_id=run_id, days=days, tier=tier, max_cost=max_cost, dry_run=dry_run, store=store
    )
    if dry_run or wait == "no" or found.done:
        return found
    if wait == "poll":
        return tasks.await_restore(
            refs or (), run_id=run_id, timeout_hours=timeout_hours, poll_minutes=poll_minutes, store=store
        )
    suspend_flow_run(timeout=math.ceil(timeout_hours * 3600))
    return tasks.await_restore(refs or (), run_id=run_id, timeout_hours=0, store=store)


if __name__ == "__main__":
    restore_data()
