"""Tasks about money: what a store costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mltrack_tasks.artifacts import Progress, image, plain, table
from mltrack_tasks.blocks import MLTrackStore
from mltrack_tasks.costs import estimate
from mltrack_tasks.costs.estimate import WHAT_IF
from mltrack_tasks.pricing.figures import CostEstimate, cost_chart, dollars, whatif_rows
from mltrack_tasks.resolve import open_store
from mltrack_tasks.tasking import mltrack_task, run_logger


@mltrack_task
def estimate_costs(
    *,
    region: str | None = None,
    storage_classes: Sequence[str] = WHAT_IF,
    lifecycle: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    monthly_puts: int = 0,
    monthly_gets: int = 0,
    monthly_read_bytes: int = 0,
    prices: str | Path | None = None,
    store: MLTrackStore | str | None = None,
) -> CostEstimate:
    """Estimate what the store costs in a month, for which projects, and what it would cost otherwise.

    Reads only: one listing with older versions and unfinished uploads, and the records. ``storage_classes``
    are tried out for the blobs, ``lifecycle`` rules (S3's own document) for everything. ``monthly_...`` say
    what goes on in a month, which no listing tells. ``prices`` is a price file of your own, as is the one
    that ``MLTRACK_PRICES`` names. In a flow it is also shown (artifacts ``mltrack-costs``,
    ``mltrack-costs-what-if`` and ``mltrack-costs-chart``). Raises InvalidInputError for a region, class or
    rule without an answer.
    """
    with Progress("mltrack-costs-progress") as observe:
        found = estimate.estimate_costs(
            open_store(store),
            region=region,
            storage_classes=storage_classes,
            lifecycle=lifecycle,
            monthly_puts=monthly_puts,
            monthly_gets=monthly_gets,
            monthly_read_bytes=monthly_read_bytes,
            prices=prices,
            observe=observe,
        )
    run_logger().info("%s", found)
    _show(found)
    return found


def _show(found: CostEstimate) -> None:
    where = plain(found.location)
    table("mltrack-costs", found.rows(), plain(str(found)))
    rows = [{name: plain(text) for name, text in row.items()} for row in whatif_rows(found.whatifs)]
    table("mltrack-costs-what-if", rows, f"What {where} would cost otherwise")
    image(
        "mltrack-costs-chart",
        cost_chart(found),
        alt=f"What {found.location} costs in a month by storage class and by project",
        text=_text(found),
        description=f"Costs of {where}",
    )


def _text(found: CostEstimate) -> str:
    """What is beside the month: work, minimum stays, projects, and what is to be known."""
    lines = ["| once | dollars |", "|---|--:|"]
    lines += [f"| {plain(name)} | {dollars(cost)} |" for name, cost in found.jobs]
    lines += [f"| minimum stays, if all were deleted today | {dollars(found.early_deletion)} |"]
    lines += ["", "| project | a month |", "|---|--:|"]
    lines += [f"| {plain(each.owner)} | {dollars(each.monthly)} |" for each in found.owners[:100]]
    if found.traffic:
        lines += ["", f"Requests and reads of a month: {dollars(found.traffic)}."]
    lines += ["", *(f"- {plain(note)}" for note in found.notes)]
    return "\n".join(lines)
