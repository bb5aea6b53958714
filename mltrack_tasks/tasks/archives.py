"""Tasks for what lies in an archive."""

from __future__ import annotations

from collections.abc import Sequence

from mltrack_tasks import restores
from mltrack_tasks.archives import DAYS, TIER
from mltrack_tasks.artifacts import Progress, plain, table
from mltrack_tasks.blocks import MLTrackStore
from mltrack_tasks.pricing.figures import dollars
from mltrack_tasks.refs import DataRef
from mltrack_tasks.resolve import open_store
from mltrack_tasks.restores import MAX_COST, RestoredData
from mltrack_tasks.tasking import mltrack_task, recorded, report, run_logger


@mltrack_task
def restore_data(
    refs: DataRef | str | Sequence[DataRef | str] = (),
    *,
    run_id: str | None = None,
    days: int = DAYS,
    tier: str = TIER,
    max_cost: float = MAX_COST,
    dry_run: bool = False,
    store: MLTrackStore | str | None = None,
) -> RestoredData:
    """Make archived data readable again, of refs or of a whole run: start the restores -> how it stands.

    What is readable, or under way, is told as such and costs nothing. Copies stay for ``days``; ``tier`` is
    Standard, Bulk or Expedited. The price is worked out first: over ``max_cost`` [dollars] nothing is
    started, and InvalidInputError says what it would be; ``dry_run`` starts nothing and only tells. In a flow
    it is also shown (artifact ``mltrack-restore``). Raises NotFoundError for an unknown run or ref, and
    PartialTransferError if S3 refused some: the same call goes on.
    """
    with recorded():
        found = restores.restore_data(
            open_store(store),
            refs,
            run_id=run_id,
            days=days,
            tier=tier,
            max_cost=max_cost,
            dry_run=dry_run,
            observe=report,
        )
    run_logger().info("%s", found)
    _show(found)
    return found


@mltrack_task
def await_restore(
    refs: DataRef | str | Sequence[DataRef | str] = (),
    *,
    run_id: str | None = None,
    timeout_hours: float = 48,
    poll_minutes: float = 15,
    store: MLTrackStore | str | None = None,
) -> RestoredData:
    """Wait until archived data can be read -> how it stands. Starts nothing; holds its worker meanwhile.

    Asks every ``poll_minutes``, with a HEAD for each blob. Raises ArchivedError after ``timeout_hours``, or
    at once if something is archived that nobody restores, and NotFoundError if something is missing.
    """
    with Progress("mltrack-restore-progress") as observe:
        found = restores.await_restore(
            open_store(store),
            refs,
            run_id=run_id,
            timeout_hours=timeout_hours,
            poll_minutes=poll_minutes,
            observe=observe,
        )
    run_logger().info("%s", found)
    return found


def _show(found: RestoredData) -> None:
    price = dollars(found.cost)
    lines = (
        ("readable now", found.readable, ""),
        ("under way", found.under_way, ""),
        ("started", found.started, price if found.started else ""),
        ("archived", found.archived, price if found.archived else ""),
        (f"copies for {found.days} days", "", dollars(found.copies_cost)),
        ("missing", len(found.missing), ""),
    )
    rows = [{"": name, "blobs": number, "dollars": cost} for name, number, cost in lines]
    table("mltrack-restore", rows, plain(str(found)))
