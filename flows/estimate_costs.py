"""What a store costs, on a schedule or before a decision; nothing is changed."""

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from mltrack_tasks import CostEstimate, tasks
from mltrack_tasks.forms import OptionalText, StoreChoice, completed


@flow(name="mltrack-estimate-costs", flow_run_name="estimate costs")
def estimate_costs(
    region: OptionalText = None,
    lifecycle: dict[str, Any] | None = None,
    monthly_puts: Annotated[int, Field(ge=0)] = 0,
    monthly_gets: Annotated[int, Field(ge=0)] = 0,
    monthly_read_bytes: Annotated[int, Field(ge=0)] = 0,
    prices: OptionalText = None,
    store: StoreChoice = None,
) -> CostEstimate:
    """Estimate what the store costs in a month, for which projects, and what it would cost otherwise.

    Args:
        region: Whose prices are taken; empty for the region of the store.
        lifecycle: Rules to try out, as `aws s3api put-bucket-lifecycle-configuration` takes them.
        monthly_puts: PUT, COPY, POST and LIST requests of a month.
        monthly_gets: GET and HEAD requests of a month.
        monthly_read_bytes: Bytes that are read in a month; some storage classes ask for them.
        prices: A price file on the worker, instead of the one that `MLTRACK_PRICES` names.
        store: A saved block, or as text a block's name, `s3://bucket/prefix`, or a directory.
    """
    found = tasks.estimate_costs(
        region=region,
        lifecycle=lifecycle,
        monthly_puts=monthly_puts,
        monthly_gets=monthly_gets,
        monthly_read_bytes=monthly_read_bytes,
        prices=prices,
        store=store,
    )
    return completed(found, str(found))


if __name__ == "__main__":
    estimate_costs()
