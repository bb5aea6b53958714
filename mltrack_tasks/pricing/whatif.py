"""What if: the same bytes in another storage class, or under lifecycle rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

from mltrack_tasks.pricing.bills import Count, per_thousand, retrieval_cost, rules_of
from mltrack_tasks.pricing.lifecycle import Rule, obeyed
from mltrack_tasks.pricing.prices import Prices
from mltrack_tasks.pricing.tally import BLOBS, CURRENT, Slot, Tally, monthly_cost

Choose: TypeAlias = Callable[[Slot, bool], str | None]
"""Where objects of a slot go, the small ones and the others: a class, or None if they go away."""
LEFT_ALONE = ((90, "GLACIER_IR"), (30, "STANDARD_IA"))
"""Prices that INTELLIGENT_TIERING has for what nobody read for so many days: those of these classes."""


@dataclass(frozen=True)
class WhatIf:
    """What would be otherwise, and at what price. Money is in dollars.

    ``monthly`` is the whole store's cost then, ``saved`` what a month costs less (below 0: more), ``once``
    what moving the objects costs, ``reading`` what reading all moved ones once costs then. ``moved`` and
    ``removed`` count objects and bytes; ``archived`` of the moved ones would have to be restored before they
    are read.
    """

    name: str
    monthly: Decimal
    saved: Decimal
    once: Decimal
    reading: Decimal
    moved: Count
    removed: Count
    archived: int = 0

    @property
    def months(self) -> Decimal | None:
        """After how many months the move has paid for itself; None: never."""
        return self.once / self.saved if self.saved > 0 else None


def of_class(tally: Tally, prices: Prices, storage_class: str) -> WhatIf:
    """What if every blob that a rule could move lay in a class. Small objects and records stay.

    Of INTELLIGENT_TIERING this is what is read often costs; ``of_left_alone`` is the other end.
    """
    return _whatif(
        f"blobs in {storage_class}",
        tally,
        prices,
        lambda slot, small: storage_class if _is_movable(slot, small) else slot.storage_class,
    )


def of_left_alone(tally: Tally, prices: Prices) -> WhatIf:
    """What if every blob lay in INTELLIGENT_TIERING and had not been read since it was written.

    Then it is billed as LEFT_ALONE says, without retrieval. (The archive tiers are off unless asked for.)
    """
    watched = of_class(tally, prices, "INTELLIGENT_TIERING")
    cheaper = Decimal(0)
    after = tally.moved(
        lambda slot, small: "INTELLIGENT_TIERING" if _is_movable(slot, small) else slot.storage_class
    )
    frequent = prices.of("INTELLIGENT_TIERING").storage[0]
    for slot, count in after.slots.items():
        if slot.storage_class == "INTELLIGENT_TIERING" and slot.state == CURRENT:
            size = count.size_bytes - count.small_bytes
            price = next(
                (prices.of(name).storage[0] for days, name in LEFT_ALONE if slot.days >= days), frequent
            )
            cheaper += size * (frequent - price) / 1024**3
    return WhatIf(
        "blobs in INTELLIGENT_TIERING, not read since they were written",
        watched.monthly - cheaper,
        watched.saved + cheaper,
        watched.once,
        watched.reading,
        watched.moved,
        watched.removed,
    )


def of_rules(tally: Tally, prices: Prices, rules: Iterable[Rule], base: str) -> WhatIf:
    """What if lifecycle rules had been obeyed today. ``base`` is what keys of the store begin with."""
    known = list(rules)
    names = ", ".join(rule.name for rule in known)
    return _whatif(
        f"lifecycle rules: {names}" if names else "no lifecycle rule that is enabled",
        tally,
        prices,
        lambda slot, small: obeyed(known, base, slot, small),
    )


def _is_movable(slot: Slot, small: bool) -> bool:
    return slot.place == BLOBS and slot.state == CURRENT and not small


def _whatif(name: str, tally: Tally, prices: Prices, choose: Choose) -> WhatIf:
    moved, removed, once, reading, archived = Count(), Count(), Decimal(0), Decimal(0), 0
    for slot, count in tally.slots.items():
        for part, small in zip(count.split(), (True, False), strict=True):
            target = choose(slot, small) if part.objects else slot.storage_class
            if target is None:
                removed.merge(part)
            elif target != slot.storage_class:
                moved.merge(part)
                there = prices.of(target)
                once += per_thousand(part.objects, there.transition)
                reading += retrieval_cost(part, there)
                archived += part.objects if rules_of(target).archived else 0
    before = monthly_cost(tally, prices)
    after = monthly_cost(tally.moved(choose), prices)
    return WhatIf(name, after, before - after, once, reading, moved, removed, archived)
