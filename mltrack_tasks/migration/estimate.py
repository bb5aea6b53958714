"""What carrying out a plan is going to take: requests, money and time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from mltrack_tasks.migration.planning import Plan
from mltrack_tasks.migration.registries import files_of_models
from mltrack_tasks.plan import packs_of
from mltrack_tasks.pricing.bills import request_cost, storage_cost
from mltrack_tasks.pricing.prices import load_prices

REQUEST_TIME, WORKERS, LINE = 0.03, 8, 50e6
"""[s] of a small PUT to a bucket of the same region, how many at once, and [bytes/s] of the line: round
figures, as nothing has been sent yet."""


@dataclass(frozen=True)
class Estimate:
    """What is to come. Money is dollars at the prices of S3 Standard in us-east-1 (``load_prices``)."""

    requests: int
    request_cost: float
    monthly_cost: float
    """Of the bytes that are new."""
    seconds: float
    """At 50 MB/s and 30 ms for a request."""
    prices_as_of: date

    def __str__(self) -> str:
        return (
            f"about {self.requests:,} requests (${self.request_cost:,.4f}), "
            f"${self.monthly_cost:,.4f} a month for what is new, {self.seconds:,.0f} s at 50 MB/s"
        )


def estimate(plan: Plan) -> Estimate:
    """Estimate what a plan takes, from its batches and runs. Blobs that are there already cost nothing."""
    blobs = packs = 0
    for batch in plan.batches:
        blobs += len(batch.single()) - len(batch.listing.found)
        packs += sum(1 for _ in packs_of(batch.packed()))
    there = sum(size for batch in plan.batches for _, size in batch.listing.found.values())
    new = plan.new_bytes - there
    runs = 0 if plan.unchanged else len(plan.scan.groups)
    files, versions = _of_models(plan)
    # A batch: its record, its receipt, a look for deletions. A pack: a pin. A run: log entry, manifest, view.
    # A file of a model: a look, a pin, a copy. A version: its id, folder, record and what follows, an alias.
    requests = 6 + blobs + 3 * len(plan.batches) + 2 * packs + 3 * runs + 3 * files + 20 * versions
    prices = load_prices()
    return Estimate(
        requests=requests,
        request_cost=float(request_cost(puts=requests, prices=prices)),
        monthly_cost=float(storage_cost(size_bytes=max(new, 0), prices=prices)),
        seconds=requests * REQUEST_TIME / WORKERS + new / LINE,
        prices_as_of=prices.as_of,
    )


def _of_models(plan: Plan) -> tuple[int, int]:
    """How many files and versions of registered models are new."""
    known = {(row.model, row.number) for row in plan.previous.versions} if plan.previous else set()
    new = [
        model._replace(
            versions=tuple(v for v in model.versions if (model.name, v.facts.version) not in known)
        )
        for model in plan.scan.registry.models
    ]
    files = sum(1 for _ in files_of_models(plan.entries, new))
    return files, sum(version.folder is not None for model in new for version in model.versions)
