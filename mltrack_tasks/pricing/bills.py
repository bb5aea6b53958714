"""What S3 bills: bytes by class with their minima and overheads, requests, retrieval, minimum stays.

The rules are those of https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-class-intro.html and of
the price list's notes (https://aws.amazon.com/s3/pricing/). All money is in dollars, as exact decimals.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.pricing.prices import REGION, ClassPrices, Prices, load_prices

GB = 1024**3
"""[bytes] of what AWS bills as a GB; 1 TB is 1,024 of them."""
STEPS = (50 * 1024, 500 * 1024)
"""[GB] up to which the first and the second price of storage hold: 50 TB and 500 TB."""
SMALL = 128 * 1024
"""[bytes] Smaller objects are billed as this by some classes, not watched by INTELLIGENT_TIERING, and not
moved by lifecycle rules."""
MONTH = 30
"""[days] that a month has where a minimum stay is charged for a part of one."""
_THOUSAND = Decimal(1000)


@dataclass(frozen=True)
class Rules:
    """What a class adds to the bytes of its objects."""

    minimum: int = 0
    """[bytes] that each object is billed as, at least."""
    overhead: int = 0
    """[bytes] more for each object, at the price of its class."""
    overhead_standard: int = 0
    """[bytes] more for each object, at the price of STANDARD."""
    days: int = 0
    """[days] that each object is billed for, at least."""
    archived: bool = False
    """Whether an object has to be restored before it is read."""


RULES = {
    "STANDARD_IA": Rules(minimum=SMALL, days=30),
    "ONEZONE_IA": Rules(minimum=SMALL, days=30),
    "GLACIER_IR": Rules(minimum=SMALL, days=90),
    "GLACIER": Rules(overhead=32 * 1024, overhead_standard=8 * 1024, days=90, archived=True),
    "DEEP_ARCHIVE": Rules(overhead=32 * 1024, overhead_standard=8 * 1024, days=180, archived=True),
}
"""Classes that bill other than by the byte."""


@dataclass
class Count:
    """A number of objects and their bytes, and apart those that are small."""

    objects: int = 0
    size_bytes: int = 0
    small: int = 0
    small_bytes: int = 0

    def add(self, size: int) -> None:
        """Count one object of ``size`` bytes."""
        self.objects += 1
        self.size_bytes += size
        if size < SMALL:
            self.small += 1
            self.small_bytes += size

    def merge(self, other: Count) -> None:
        """Count what another count has."""
        self.objects += other.objects
        self.size_bytes += other.size_bytes
        self.small += other.small
        self.small_bytes += other.small_bytes

    def split(self) -> tuple[Count, Count]:
        """Part the small objects from the others -> (small, others)."""
        small = Count(self.small, self.small_bytes, self.small, self.small_bytes)
        return small, Count(self.objects - self.small, self.size_bytes - self.small_bytes)


def rules_of(storage_class: str) -> Rules:
    """The rules of a class; none of its own: bytes are billed as they are."""
    return RULES.get(storage_class, Rules())


def billed_bytes(count: Count, storage_class: str) -> tuple[int, int]:
    """Bytes that are billed for objects of a class -> (at its own price, at that of STANDARD)."""
    rules = rules_of(storage_class)
    raised = count.small * rules.minimum - count.small_bytes if rules.minimum else 0
    own = count.size_bytes + raised + count.objects * rules.overhead
    return own, count.objects * rules.overhead_standard


def stepped(size_bytes: int, storage: tuple[Decimal, ...]) -> Decimal:
    """Bytes for a month at the prices of a class, each step at its own -> [dollars].

    AWS counts the steps over all buckets of an account in a region; here they are counted over these bytes.
    """
    left, cost = Decimal(size_bytes) / GB, Decimal(0)
    widths = [STEPS[0], STEPS[1] - STEPS[0]] if len(storage) > 1 else []
    for price, width in zip(storage, widths, strict=False):
        part = min(left, Decimal(width))
        cost, left = cost + part * price, left - part
    return cost + left * storage[-1]


def monitoring_cost(count: Count, prices: ClassPrices) -> Decimal:
    """Watching objects for a month [dollars]: what INTELLIGENT_TIERING asks, not for small ones."""
    return (count.objects - count.small) * prices.monitoring / _THOUSAND


def per_thousand(number: int, price: Decimal) -> Decimal:
    """A number of requests at a price of 1,000 -> [dollars]."""
    return number * price / _THOUSAND


def retrieval_cost(count: Count, prices: ClassPrices, *, tier: str = "Standard") -> Decimal:
    """Reading all of it once [dollars]: the GETs, what the class asks for a GB, and restores by ``tier``.

    Without the line out of AWS. Raises InvalidInputError for a tier that the class has not.
    """
    cost = per_thousand(count.objects, prices.get) + Decimal(count.size_bytes) / GB * prices.retrieval
    if not prices.restore:
        return cost
    return cost + restore_cost(count, prices, tier=tier)


def restore_cost(count: Count, prices: ClassPrices, *, tier: str) -> Decimal:
    """Starting the restores of archived objects [dollars], without what their copies cost meanwhile."""
    if tier not in prices.restore:
        raise InvalidInputError(
            f"There is no tier {tier!r:.40} of restoring from this storage class; there are "
            f"{', '.join(prices.restore)}."
        )
    price = prices.restore[tier]
    return Decimal(count.size_bytes) / GB * price.gb + per_thousand(count.objects, price.requests)


def storage_cost(
    *,
    size_bytes: int,
    storage_class: str = "STANDARD",
    region: str = REGION,
    objects: int = 0,
    prices: Prices | None = None,
) -> Decimal:
    """What bytes cost for a month -> [dollars], exact.

    Of ``objects`` objects of equal size: their minima, overheads and monitoring count too; 0 leaves these
    out. ``prices`` instead of ``region`` are prices that were loaded before. Prices are those of the price
    file (see ``load_prices``), a GB is 2^30 bytes. Raises InvalidInputError for a class or region without a
    price.
    """
    if size_bytes < 0 or objects < 0:
        raise InvalidInputError(f"size_bytes and objects are 0 or more, not {size_bytes:,} and {objects:,}.")
    found = prices or load_prices(region)
    asked = found.of(storage_class)
    if not objects:
        return stepped(size_bytes, asked.storage)
    small = size_bytes < objects * SMALL
    count = Count(objects, size_bytes, objects if small else 0, size_bytes if small else 0)
    own, standard = billed_bytes(count, storage_class)
    return (
        stepped(own, asked.storage)
        + stepped(standard, found.of("STANDARD").storage)
        + monitoring_cost(count, asked)
    )


def request_cost(
    *,
    puts: int = 0,
    gets: int = 0,
    storage_class: str = "STANDARD",
    region: str = REGION,
    prices: Prices | None = None,
) -> Decimal:
    """What requests cost -> [dollars].

    ``puts`` are PUT, COPY, POST and LIST, ``gets`` are GET and HEAD. DELETE is free. Errors as for
    ``storage_cost``.
    """
    asked = (prices or load_prices(region)).of(storage_class)
    return per_thousand(puts, asked.put) + per_thousand(gets, asked.get)
