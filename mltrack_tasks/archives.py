"""Archives: what it takes to read an object that lies in one, and the error that says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from types import MappingProxyType

from mltrack_tasks import layout
from mltrack_tasks.errors import ArchivedError, InvalidInputError, MLTrackError
from mltrack_tasks.pricing.bills import Count, restore_cost, storage_cost
from mltrack_tasks.pricing.figures import dollars
from mltrack_tasks.pricing.prices import REGION, Prices, load_prices
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.stores.identity import region_of, s3_of

DAYS = 7
"""How long a restored copy stays, unless said otherwise."""
TIER = "Standard"

_ALIKE = {"ARCHIVE_ACCESS": "GLACIER", "DEEP_ARCHIVE_ACCESS": "DEEP_ARCHIVE"}
"""Archive tiers of INTELLIGENT_TIERING: as fast as these classes, without a price but for Expedited."""
DURATIONS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "GLACIER": {"Expedited": "1-5 minutes", "Standard": "3-5 hours", "Bulk": "5-12 hours"},
        "DEEP_ARCHIVE": {"Standard": "12 hours", "Bulk": "48 hours"},
    }
)
"""How long restoring takes by class and tier
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects-retrieval-options.html)."""


def prices_of(store: Store) -> Prices:
    """The prices of a store's region; of us-east-1 where it has none, or its region no prices."""
    try:
        return load_prices(price_region(store))
    except InvalidInputError:
        return load_prices(REGION)


def price_region(store: Store) -> str:
    """The region whose prices a store has: an S3-compatible server has none of its own."""
    s3 = s3_of(store)
    if s3 is None or s3.settings.endpoint_url:
        return REGION
    return region_of(s3) or REGION


def duration_of(storage_class: str, tier: str) -> str:
    """How long restoring takes; InvalidInputError names the tiers of a class that has not this one."""
    found = DURATIONS[_ALIKE.get(storage_class, storage_class)]
    if tier not in found:
        raise InvalidInputError(f"{storage_class} has no tier {tier!r:.40} of restoring: {', '.join(found)}.")
    return found[tier]


def is_tiered(storage_class: str) -> bool:
    """Whether this is an archive tier of INTELLIGENT_TIERING: restored, an object is back for good."""
    return storage_class in _ALIKE


def price_of(prices: Prices, storage_class: str, count: Count, tier: str) -> Decimal:
    """What restoring objects of a class costs [dollars]."""
    duration_of(storage_class, tier)
    if is_tiered(storage_class) and tier != "Expedited":
        return Decimal(0)
    return restore_cost(count, prices.of(_ALIKE.get(storage_class, storage_class)), tier=tier)


def copies_price(prices: Prices, storage_class: str, size_bytes: int, days: int) -> Decimal:
    """What the restored copies cost while they are there [dollars]: as much as STANDARD."""
    if is_tiered(storage_class):
        return Decimal(0)
    return storage_cost(size_bytes=size_bytes, prices=prices) * days / 30


def archived_error(store: Store, stat: Stat) -> ArchivedError:
    """The error for an object that must be restored: its class, what restoring costs, and how."""
    storage_class, blob = stat.storage_class or "GLACIER", layout.parse_blob_key(stat.key)
    count = Count()
    count.add(stat.size)
    tiers = DURATIONS[_ALIKE.get(storage_class, storage_class)]
    prices = {tier: price_of(prices_of(store), storage_class, count, tier) for tier in tiers}
    how = f"restore_data('sha256:{'.'.join(blob)}')" if blob else "aws s3api restore-object"
    offers = "; ".join(f"{tier}: {tiers[tier]}, {dollars(prices[tier])}" for tier in tiers)
    begun = "That is under way; wait until it is there." if stat.restoring else f"Call {how} ({offers})."
    return ArchivedError(
        f"{stat.key} in {store.location} is there, but archived in {storage_class}: it cannot be read until "
        f"it is restored. {begun}",
        storage_class=storage_class,
        restoring=stat.restoring,
        prices=prices,
        how=how,
        details={"key": stat.key, "storage_class": storage_class},
    )


@contextmanager
def told(store: Store, key: str) -> Iterator[None]:
    """Let an ArchivedError of this block say what restoring costs: one HEAD more, where it fails anyway."""
    try:
        yield
    except ArchivedError as error:
        if error.prices:
            raise
        try:
            stat = store.head(key, checksum=True)
        except MLTrackError:
            raise error from None
        if stat is None or not stat.archived:
            raise
        raise archived_error(store, stat) from error
