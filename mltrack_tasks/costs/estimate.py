"""An estimate of what a store costs, from its real listing and its records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from mltrack_tasks.archives import price_region
from mltrack_tasks.costs.counting import Counted, count
from mltrack_tasks.costs.owners import Owners
from mltrack_tasks.delivery import deliver
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.events import Observe, log_event
from mltrack_tasks.pricing.bills import GB, Count, billed_bytes, per_thousand, retrieval_cost
from mltrack_tasks.pricing.figures import CostEstimate, CostLine, OwnerCost, cost_chart
from mltrack_tasks.pricing.lifecycle import parse_rules
from mltrack_tasks.pricing.prices import Prices, load_prices
from mltrack_tasks.pricing.tally import BLOBS, CURRENT, MARKER, Rates, Tally, early_deletion
from mltrack_tasks.pricing.whatif import WhatIf, of_class, of_left_alone, of_rules
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.files import checked_path
from mltrack_tasks.stores.identity import s3_of
from mltrack_tasks.trust.roots import name_in_log, roots

WHAT_IF = ("STANDARD", "INTELLIGENT_TIERING", "STANDARD_IA", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE")
"""Storage classes that are tried out, unless others are asked for."""
_PAGE = 1_000
"""Keys of one answer to a LIST."""


def estimate_costs(
    store: Store,
    *,
    region: str | None = None,
    storage_classes: Sequence[str] = WHAT_IF,
    lifecycle: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    monthly_puts: int = 0,
    monthly_gets: int = 0,
    monthly_read_bytes: int = 0,
    prices: str | Path | None = None,
    observe: Observe = log_event,
) -> CostEstimate:
    """Estimate what a store costs in a month, for whom, and what it would cost otherwise. Reads only.

    From one listing of everything that is billed below the store's prefix: objects with their storage
    classes, older versions, unfinished uploads. Prices are those of ``region`` (the store's own, or
    us-east-1), from the file of this package or from ``prices`` (see ``load_prices``). Blobs are split
    between projects by the records, which are read first: a blob stored meanwhile belongs to nobody yet, and
    so does garbage.

    ``storage_classes`` are tried out for the blobs, and ``lifecycle`` rules, in the form of S3's own
    document, for everything. ``monthly_puts``, ``monthly_gets`` and ``monthly_read_bytes`` say what goes on
    in a month, which no listing tells; it is spread over the storage classes as the bytes are.

    Not counted: transfer out of AWS, KMS requests, replication, taxes, and what other buckets of the account
    have in the steps of prices. Memory does not grow with the store. Raises InvalidInputError for a region,
    class or rule that it has no answer for.
    """
    if min(monthly_puts, monthly_gets, monthly_read_bytes) < 0:
        raise InvalidInputError("Requests and bytes of a month are numbers, 0 or more.")
    asked = load_prices(region or price_region(store), path=prices)
    rules = None if lifecycle is None else parse_rules(lifecycle)
    for name in storage_classes:
        asked.of(name)
    with Owners() as owners:
        owners.read(roots(store, name_in_log, observe=observe))
        found = count(store, owners, asked, observe)
    whatifs = [*_classes(found.tally, asked, storage_classes)]
    if rules is not None:
        whatifs.append(of_rules(found.tally, asked, rules, _base(store)))
    rates = Rates(found.tally, asked)
    lines = tuple(_lines(found.tally, rates))
    return CostEstimate(
        location=store.location,
        region=asked.region,
        as_of=asked.as_of,
        monthly=sum((line.monthly for line in lines), Decimal(0)),
        lines=lines,
        owners=tuple(_owners(found, rates)),
        saved=sum((rates.monthly(each, name) for name, each in found.saved.items()), Decimal(0)),
        saved_bytes=sum(each.size_bytes for each in found.saved.values()),
        traffic=_traffic(found.tally, asked, monthly_puts, monthly_gets, monthly_read_bytes),
        jobs=tuple(_jobs(found.tally, asked)),
        early_deletion=early_deletion(found.tally, asked),
        whatifs=tuple(whatifs),
        notes=tuple(found.notes),
    )


def save_chart(found: CostEstimate, path: str | Path) -> Path:
    """Write the chart of an estimate as an SVG file -> its absolute path.

    Missing folders are created. A file with this very picture is left alone; one with anything else is a
    ConflictError.
    """
    body = cost_chart(found).encode()
    return deliver([body], sha256_hex(body), len(body), checked_path(path))


def _base(store: Store) -> str:
    s3 = s3_of(store)
    return f"{s3.settings.prefix}/".lstrip("/") if s3 else ""


def _lines(tally: Tally, rates: Rates) -> Iterable[CostLine]:
    found = tally.by(lambda slot: (slot.place, slot.state, slot.storage_class))
    for (place, state, storage_class), each in sorted(found.items()):
        billed = sum(billed_bytes(each, storage_class))
        cost = rates.monthly(each, storage_class)
        yield CostLine(place, state, storage_class, each.objects, each.size_bytes, billed, cost)


def _owners(found: Counted, rates: Rates) -> list[OwnerCost]:
    owners = [
        OwnerCost(
            owner,
            round(sum(share.size for share in shares.values())),
            sum((share.cost(rates, name) for name, share in shares.items()), Decimal(0)),
        )
        for owner, shares in found.shares.items()
    ]
    return sorted(owners, key=lambda each: (-each.monthly, each.owner))


def _classes(tally: Tally, prices: Prices, names: Iterable[str]) -> Iterable[WhatIf]:
    for name in names:
        yield of_class(tally, prices, name)
        if name == "INTELLIGENT_TIERING":
            yield of_left_alone(tally, prices)


def _blobs(tally: Tally) -> dict[str, Count]:
    """The blobs by storage class."""
    here = (BLOBS, CURRENT)
    by_class = tally.by(lambda slot: slot.storage_class if (slot.place, slot.state) == here else "")
    return {name: each for name, each in by_class.items() if name}


def _jobs(tally: Tally, prices: Prices) -> Iterable[tuple[str, Decimal]]:
    kept = tally.by(lambda slot: slot.storage_class if slot.state != MARKER else "")
    written = (per_thousand(each.objects, prices.of(name).put) for name, each in kept.items() if name)
    keys = sum(each.objects for each in tally.slots.values())
    blobs = _blobs(tally)
    looked = (per_thousand(each.objects, prices.of(name).get) for name, each in blobs.items())
    read = (retrieval_cost(each, prices.of(name)) for name, each in blobs.items())
    yield "writing it all once (requests, one an object)", sum(written, Decimal(0))
    yield "listing it all", per_thousand(-(-keys // _PAGE), prices.of("STANDARD").put)
    yield "asking for each blob (verify_store, attested)", sum(looked, Decimal(0))
    yield "reading each blob (verify_store, read; within AWS)", sum(read, Decimal(0))


def _traffic(tally: Tally, prices: Prices, puts: int, gets: int, read_bytes: int) -> Decimal:
    blobs = _blobs(tally) or {"STANDARD": Count(size_bytes=1)}
    total = sum(each.size_bytes for each in blobs.values()) or 1
    cost = Decimal(0)
    for name, each in blobs.items():
        part, asked = Decimal(each.size_bytes) / total, prices.of(name)
        cost += part * (per_thousand(puts, asked.put) + per_thousand(gets, asked.get))
        cost += part * read_bytes / GB * asked.retrieval
    return cost
