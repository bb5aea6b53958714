"""Run a deployment of yours when new data arrives: reads the messages of the bucket's queue; schedule it."""

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from mltrack_tasks import ArrivalReport, tasks
from mltrack_tasks.forms import OptionalText, StoreChoice, completed

Queue = Annotated[str, Field(min_length=1)]


@flow(name="mltrack-process-new-data", flow_run_name="process new data of {queue}")
def process_new_data(
    queue: Queue,
    deployment: OptionalText = None,
    parameters: dict[str, Any] | None = None,
    parameter: Annotated[str, Field(min_length=1)] = "refs",
    subscription: OptionalText = None,
    batch_size: Annotated[int, Field(ge=1, le=5_000)] = 500,
    max_messages: Annotated[int, Field(ge=1)] = 10_000,
    visibility_s: Annotated[int, Field(ge=1, le=43_200)] = 300,
    wait_s: Annotated[int, Field(ge=0, le=20)] = 1,
    wait: bool = False,
    store: StoreChoice = None,
) -> ArrivalReport:
    """Read the queue, and run the deployment once for each batch of new data.

    Args:
        queue: Name, ARN or URL of the SQS queue to which the bucket's notifications go.
        deployment: Your deployment, as `flow/deployment`; empty: only the event `mltrack.data.arrived`.
        parameters: Further parameters of your deployment, such as its store.
        parameter: Which parameter of your flow takes the list of refs (texts).
        subscription: Under which name the store remembers what was done; empty: the deployment's.
        batch_size: New data of one run at most; 1 for a run each.
        max_messages: Messages that one run reads at most.
        visibility_s: Seconds that a message stays hidden from other readers; renewed while it is worked on.
        wait_s: Seconds without a message after which the run ends.
        wait: Wait for the end of each run that was started, however long it takes, and fail if one fails.
        store: The store that is told of: a saved block, or as text a block's name or `s3://bucket/prefix`.
    """
    found = tasks.process_new_data(
        queue,
        deployment,
        parameter=parameter,
        parameters=parameters,
        subscription=subscription,
        batch_size=batch_size,
        max_messages=max_messages,
        visibility_s=visibility_s,
        wait_s=wait_s,
        wait=wait,
        store=store,
    )
    return completed(found, str(found))


if __name__ == "__main__":
    process_new_data("mltrack")
