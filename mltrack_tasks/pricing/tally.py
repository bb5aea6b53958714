"""A tally of a store: how many objects and bytes, by folder, state, storage class and age in days.

Its size follows from how many such groups there are, not from how many objects: a million of them in a store
of ten years are a few ten thousand numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from decimal import Decimal
from typing import NamedTuple, TypeVar

from mltrack_tasks.pricing.bills import Count, billed_bytes, monitoring_cost, rules_of, stepped
from mltrack_tasks.pricing.prices import Prices

CURRENT, OLDER, MARKER, UPLOAD = "current", "older version", "delete marker", "unfinished upload"
"""States of what is stored: MARKER takes no bytes, UPLOAD are the parts sent so far."""
BLOBS = "data"
"""Place of blobs. Descriptions of blobs are in DESCRIPTIONS, other objects in their first folder."""
DESCRIPTIONS = "data: descriptions"

K = TypeVar("K", bound=Hashable)


class Slot(NamedTuple):
    """What objects are counted together by."""

    place: str
    state: str
    storage_class: str
    days: int
    """Whole days since an object was written; of an older version, since a newer one took its place."""


class Tally:
    """Counts by slot."""

    def __init__(self) -> None:
        self.slots: dict[Slot, Count] = {}

    def add(self, slot: Slot, size: int) -> None:
        """Count an object of ``size`` bytes."""
        count = self.slots.get(slot)
        if count is None:
            count = self.slots[slot] = Count()
        count.add(size)

    def merge(self, slot: Slot, count: Count) -> None:
        """Count what ``count`` has, in a slot."""
        if count.objects:
            self.slots.setdefault(slot, Count()).merge(count)

    def by(self, key: Callable[[Slot], K]) -> dict[K, Count]:
        """Sum up slots with the same key, in the order of keys."""
        sums: dict[K, Count] = {}
        for slot, count in self.slots.items():
            sums.setdefault(key(slot), Count()).merge(count)
        return sums

    def moved(self, choose: Callable[[Slot, bool], str | None]) -> Tally:
        """Make the tally of what would be if each object went where ``choose(slot, small)`` says.

        It gives a storage class; None for an object that goes away.
        """
        other = Tally()
        for slot, count in self.slots.items():
            for part, small in zip(count.split(), (True, False), strict=True):
                target = choose(slot, small) if part.objects else None
                if target is not None:
                    other.merge(slot._replace(storage_class=target), part)
        return other


class Rates:
    """What a byte of each class costs in a month, with all bytes of the class in their steps of price."""

    def __init__(self, tally: Tally, prices: Prices) -> None:
        self.prices = prices
        totals: dict[str, int] = {"STANDARD": 0}
        for storage_class, count in tally.by(lambda slot: slot.storage_class).items():
            own, standard = billed_bytes(count, storage_class)
            totals[storage_class] = totals.get(storage_class, 0) + own
            totals["STANDARD"] += standard
        self._rates = {name: self._rate(total, name) for name, total in totals.items()}

    def of_byte(self, storage_class: str) -> Decimal:
        """A byte for a month [dollars]."""
        return self._rates[storage_class]

    def monthly(self, count: Count, storage_class: str) -> Decimal:
        """What objects of a class cost in a month [dollars]."""
        own, standard = billed_bytes(count, storage_class)
        watched = monitoring_cost(count, self.prices.of(storage_class))
        return own * self._rates[storage_class] + standard * self._rates["STANDARD"] + watched

    def _rate(self, total: int, name: str) -> Decimal:
        return stepped(total or 1, self.prices.of(name).storage) / (total or 1)


def monthly_cost(tally: Tally, prices: Prices) -> Decimal:
    """What all of it costs in a month [dollars]."""
    rates = Rates(tally, prices)
    by_class = tally.by(lambda slot: slot.storage_class)
    return sum((rates.monthly(count, name) for name, count in by_class.items()), Decimal(0))


def early_deletion(tally: Tally, prices: Prices) -> Decimal:
    """What deleting everything today would cost [dollars]: what is left of the minimum stays of its classes.

    Counted from when an object was written. S3 counts from when a lifecycle rule moved it, which no listing
    tells: for moved objects this is the least.
    """
    rates, cost = Rates(tally, prices), Decimal(0)
    for slot, count, left in _stays(tally):
        own, _ = billed_bytes(count, slot.storage_class)
        cost += own * rates.of_byte(slot.storage_class) * left / 30
    return cost


def _stays(tally: Tally) -> Iterator[tuple[Slot, Count, int]]:
    for slot, count in tally.slots.items():
        left = rules_of(slot.storage_class).days - slot.days
        if left > 0 and slot.state in (CURRENT, OLDER):
            yield slot, count, left
