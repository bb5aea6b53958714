"""The task that reads messages about new data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mltrack_tasks.arrivals import process
from mltrack_tasks.arrivals.keys import subscription_of
from mltrack_tasks.arrivals.report import ArrivalReport
from mltrack_tasks.artifacts import markdown, plain, table
from mltrack_tasks.blocks import MLTrackStore
from mltrack_tasks.errors import PartialTransferError, TransientError
from mltrack_tasks.resolve import open_store
from mltrack_tasks.starting import Starter
from mltrack_tasks.stores.guard import guard_of
from mltrack_tasks.tasking import mltrack_task, recorded, report, run_logger


@mltrack_task
def process_new_data(
    queue: str,
    deployment: str | None = None,
    *,
    parameter: str = "refs",
    parameters: Mapping[str, Any] | None = None,
    subscription: str | None = None,
    batch_size: int = 500,
    max_messages: int = 10_000,
    visibility_s: int = 300,
    wait_s: int = 1,
    wait: bool = False,
    store: MLTrackStore | str | None = None,
) -> ArrivalReport:
    """Read messages about new records of the store, and run ``deployment`` on the data that they name.

    ``queue`` is the name, ARN or URL of the SQS queue to which the bucket's notifications go. The deployment
    (``flow/deployment``) is run once for each batch of up to ``batch_size`` new data, with the texts of their
    refs as ``parameter`` beside ``parameters``; each blob is in one batch, whatever messages, records and
    retries name it. For each batch the event ``mltrack.data.arrived`` is emitted; without a deployment that
    is all. What was acted upon is remembered in the store under the name ``subscription``, by default the
    deployment's. ``wait`` waits for each run to end, however long that takes, and for ever where no worker
    takes it up; messages stay hidden (``visibility_s`` [s], renewed) until then, for at most SQS's 12 hours.
    What the deployment's own runs store starts nothing, except in their subflows.

    Messages that cannot be understood go to the queue's dead letters. In a flow the figures are also shown
    (artifacts ``mltrack-arrivals`` and ``mltrack-dead-letters``). Raises NotFoundError for an unknown
    deployment, InvalidInputError if it does not take the parameters or the queue has no dead letters,
    AccessError for a queue that cannot be read, PartialTransferError if runs that were waited for failed.
    """
    opened = open_store(store)
    start = Starter(deployment, parameter, parameters, store_id=guard_of(opened).store_id or "", wait=wait)
    with recorded(), _failures_told(start):
        found = process.process_new_data(
            opened,
            queue,
            start,
            subscription=subscription or (deployment and subscription_of(deployment)),
            own_deployment=start.deployment_id,
            batch_size=batch_size,
            max_messages=max_messages,
            visibility_s=visibility_s,
            wait_s=wait_s,
            observe=report,
        )
    _show(found)
    _require_complete(start, found.begun)
    return found


@contextmanager
def _failures_told(start: Starter) -> Iterator[None]:
    """Tell of runs that failed also where the reading fails later: a retry would not know of them."""
    try:
        yield
    except TransientError as error:
        _require_complete(start, (), f" The reading then stopped: {error}")
        raise


def _require_complete(start: Starter, begun: Sequence[str], more: str = "") -> None:
    if start.failed:
        raise PartialTransferError(
            f"{len(start.failed)} of {start.waited} runs of {start.deployment!r} did not complete; the first "
            f"is {start.failed[0]}. Their data is not new any more: run them again in Prefect.{more}",
            done=tuple(run for run in begun if run not in start.failed),
            failed=tuple(start.failed),
        )


def _show(found: ArrivalReport) -> None:
    run_logger().info("%s", found)
    table("mltrack-arrivals", found.rows(), plain(str(found)))
    if found.reasons:
        lines = [f"- {plain(reason)}" for reason in found.reasons[:100]]
        markdown(
            "mltrack-dead-letters",
            "\n".join([f"{found.buried:,} messages could not be understood:", "", *lines]),
            f"Dead letters of {plain(found.queue)}",
        )
